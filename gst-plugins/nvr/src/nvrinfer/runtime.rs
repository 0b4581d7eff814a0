//! The ONNX Runtime library: found and loaded once per process, when the first model is.
//!
//! `ort` panics where its API is used before a library is loaded, so nothing in this element touches it without
//! a [`Runtime`] in hand.

use std::{
    ffi::CStr,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

use ort::{
    AsPointer,
    environment::Environment,
    logging::LogLevel,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
};
use parking_lot::Mutex;

use super::{CAT, model_files};

/// The oldest release whose API is asked for.
pub const OLDEST: &str = "1.17";

const SYSTEM_NAMES: [&str; 3] = ["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.so.1.21"];

/// The loaded library. Lives as long as the process: ONNX Runtime cannot be unloaded.
#[derive(Debug)]
pub struct Runtime {
    pub environment: EnvironmentHandle,
    pub path: PathBuf,
    /// Major and minor number of the release.
    pub version: (u32, u32),
    /// What the library says of itself.
    pub build: String,
    /// Whether all sessions take their working memory from one arena.
    pub shared_arena: bool,
}

/// [`Environment`] with a `Debug`.
pub struct EnvironmentHandle(pub Environment);

impl std::fmt::Debug for EnvironmentHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "ONNX Runtime was not found; looked at {looked_at}. Install your distribution's library (version {OLDEST} or \
         newer; Debian 13 has libonnxruntime1.21), or put libonnxruntime.so, which every onnxruntime Python wheel \
         contains, into {put_it}, or name it with the runtime-library property or ORT_DYLIB_PATH"
    )]
    NotFound { looked_at: String, put_it: String },
    #[error("{path} cannot be used as ONNX Runtime {OLDEST} or newer: {reason}")]
    Unusable { path: String, reason: String },
    #[error("ONNX Runtime is already loaded from {loaded}; a process cannot change to {wanted}, restart it")]
    AlreadyLoaded { loaded: String, wanted: String },
}

/// Loads the library that `property` names, or the first that is found; the loaded one where `property` is `None`.
pub fn get(property: Option<&str>) -> Result<&'static Runtime, RuntimeError> {
    // Held while loading: two cameras that start together must not load two libraries, and loading calls
    // nothing of ours.
    static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);
    let mut loaded = LOADED.lock();

    let wanted = property.filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(runtime) = *loaded {
        return match wanted {
            Some(wanted) if !same_file(&wanted, &runtime.path) => Err(RuntimeError::AlreadyLoaded {
                loaded: runtime.path.display().to_string(),
                wanted: wanted.display().to_string(),
            }),
            _ => Ok(runtime),
        };
    }
    let runtime = &*Box::leak(Box::new(find(wanted)?));
    let (major, minor) = runtime.version;
    gst::info!(CAT, "ONNX Runtime {major}.{minor} from {}: {}", runtime.path.display(), runtime.build);
    *loaded = Some(runtime);
    Ok(runtime)
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The first library of the list in the documentation of `runtime-library`. One that is named or lies where ours
/// are kept must load; of the system's, which may be there or not, the first that loads is taken.
fn find(wanted: Option<PathBuf>) -> Result<Runtime, RuntimeError> {
    if let Some(path) =
        wanted.or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()).map(Into::into))
    {
        return load(&path);
    }
    let kept: Vec<_> =
        model_files::data_directories().into_iter().map(|dir| dir.join("lib/libonnxruntime.so")).collect();
    if let Some(path) = kept.iter().find(|path| path.is_file()) {
        return load(path);
    }
    for name in SYSTEM_NAMES {
        match load(Path::new(name)) {
            Ok(runtime) => return Ok(runtime),
            Err(error) => gst::debug!(CAT, "{error}"),
        }
    }
    let mut looked_at: Vec<_> = kept.iter().map(|path| path.display().to_string()).collect();
    looked_at.push(format!("the system's {}", SYSTEM_NAMES.join(", ")));
    Err(RuntimeError::NotFound {
        looked_at: looked_at.join(", "),
        put_it: kept.first().map_or_else(String::new, |path| path.display().to_string()),
    })
}

fn load(path: &Path) -> Result<Runtime, RuntimeError> {
    let unusable = |reason: String| RuntimeError::Unusable { path: path.display().to_string(), reason };
    if path.components().count() > 1 && !path.is_file() {
        return Err(unusable("there is no such file".into()));
    }
    // `ort` takes a relative path for one relative to the executable.
    let absolute =
        if path.components().count() > 1 { std::path::absolute(path) } else { Ok(path.to_path_buf()) };
    let absolute = absolute.map_err(|error| unusable(error.to_string()))?;
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        let builder = ort::init_from(&absolute).map_err(|error| error.to_string())?;
        let environment = builder
            .with_name("nvr")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| error.to_string())?;
        environment.set_log_level(LogLevel::Warning);
        let shared_arena = share_arena(&environment)
            .inspect_err(|error| gst::info!(CAT, "Every session has an arena of its own: {error}"))
            .is_ok();
        super::exit::guard();
        let environment = EnvironmentHandle(environment);
        let (version, build) = (version(&absolute)?, ort::info().to_owned());
        Ok(Runtime { environment, path: absolute.clone(), version, build, shared_arena })
    }))
    .unwrap_or_else(|_| Err("it does not offer the expected interface".into()))
    .map_err(unusable)
}

/// The release of a library that is loaded already; `ort` knows it and does not tell.
fn version(path: &Path) -> Result<(u32, u32), String> {
    // SAFETY: the library has been loaded and initialised under this name, so nothing of it runs here but the two
    // functions of its interface that every release has; the text that they give is the library's own, for ever.
    let text = unsafe {
        let library = libloading::Library::new(path).map_err(|error| error.to_string())?;
        let base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")
            .map_err(|error| error.to_string())?;
        let base = base().as_ref().ok_or("it has no interface")?;
        CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned()
    };
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(format!("it calls itself release {text:?}")),
    }
}

/// Registers one arena for the working memory of all sessions, which grows by what is asked for. A session's own
/// arena grows by powers of two and keeps its peak to itself: two sessions of a small detector take 15 MB more.
fn share_arena(environment: &Environment) -> ort::Result<()> {
    const UNLIMITED: usize = 0;
    const AS_REQUESTED: i32 = 1;
    const DEFAULT: i32 = -1;
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let api = ort::api();
    let mut config = std::ptr::null_mut();
    // SAFETY: `config` is written by the first call where that succeeds, and released once. The environment and
    // the memory description outlive the calls, and the library copies both.
    unsafe {
        let created = (api.CreateArenaCfg)(UNLIMITED, AS_REQUESTED, DEFAULT, DEFAULT, &raw mut config);
        ort::Error::result_from_status(created)?;
        let registered = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), config);
        (api.ReleaseArenaCfg)(config);
        ort::Error::result_from_status(registered)
    }
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    let level = match level {
        LogLevel::Verbose => gst::DebugLevel::Trace,
        LogLevel::Info => gst::DebugLevel::Debug,
        LogLevel::Warning => gst::DebugLevel::Info,
        // Whatever fails is reported by the call that failed; here it is a detail for people debugging.
        LogLevel::Error | LogLevel::Fatal => gst::DebugLevel::Warning,
    };
    gst::log_with_level!(CAT, level, "onnxruntime {category}: {message} ({location})");
}
