//! From the `model` property to a file, and to what stands beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nvr_core::model::{ModelHints, ModelType, parse_labels};

/// A model file larger than this is refused: ONNX files end at 2 GiB, the limit of protobuf.
const MAX_MODEL_BYTES: u64 = 1 << 31;
/// Text files beside a model larger than this are refused.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// A model that is part of the plugin.
#[derive(Debug)]
struct BuiltIn {
    name: &'static str,
    onnx: &'static [u8],
    facts: &'static str,
}

/// Models that need no file.
const BUILT_IN: &[BuiltIn] = &[BuiltIn {
    name: "demo",
    onnx: include_bytes!("../../models/demo.onnx"),
    facts: include_str!("../../models/demo.toml"),
}];

/// Where the model's bytes come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// The file's size and time belong to it: a file that was replaced is another model.
    File {
        path: PathBuf,
        bytes: u64,
        modified: Option<SystemTime>,
    },
    BuiltIn(&'static str),
}

impl Source {
    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::BuiltIn(name) => format!("the built-in model {name}"),
        }
    }

    /// Bytes of a built-in model.
    pub fn built_in(&self) -> Option<&'static [u8]> {
        match self {
            Self::File { .. } => None,
            Self::BuiltIn(name) => BUILT_IN.iter().find(|model| model.name == *name).map(|model| model.onnx),
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FileError {
    #[error(
        "no model is set: give the property model a name or the path of an .onnx file; built in: {built_in}"
    )]
    Unset { built_in: String },
    #[error(
        "model {name} was not found; looked for {looked_for}. `nvr-launch models` lists known models, \
         `nvr-launch models get {name}` downloads one, or give the path of an .onnx file"
    )]
    NotFound { name: String, looked_for: String },
    #[error("{path} cannot be used as a model: {reason}")]
    Unusable { path: String, reason: String },
}

fn unusable(path: &Path, reason: &(impl ToString + ?Sized)) -> FileError {
    FileError::Unusable { path: path.display().to_string(), reason: reason.to_string() }
}

/// Directories that may hold models and libraries, strongest first: `NVR_DATA_DIR` or `$XDG_DATA_HOME/nvr` or
/// `~/.local/share/nvr`, then `/usr/local/share/nvr` and `/usr/share/nvr`.
pub fn data_directories() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = variable("NVR_DATA_DIR")
        .or_else(|| variable("XDG_DATA_HOME").map(|dir| dir.join("nvr")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".local/share/nvr")));
    own.into_iter().chain(["/usr/local/share/nvr".into(), "/usr/share/nvr".into()]).collect()
}

/// Finds the model that `model` names: a path where it has a slash or ends in `.onnx`, else the name of a built-in
/// model or of a file in the data directories.
pub fn find(model: &str, data_directories: &[PathBuf]) -> Result<Source, FileError> {
    let is_path =
        model.contains('/') || Path::new(model).extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    if model.is_empty() {
        let names: Vec<_> = BUILT_IN.iter().map(|model| model.name).collect();
        return Err(FileError::Unset { built_in: names.join(", ") });
    }
    if is_path {
        let path = std::path::absolute(model).map_err(|error| unusable(Path::new(model), &error))?;
        return file(&path);
    }
    if let Some(model) = BUILT_IN.iter().find(|built_in| built_in.name == model) {
        return Ok(Source::BuiltIn(model.name));
    }
    let candidates: Vec<_> =
        data_directories.iter().map(|dir| dir.join("models").join(format!("{model}.onnx"))).collect();
    if let Some(path) = candidates.iter().find(|path| path.exists()) {
        return file(path);
    }
    let looked_for: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(FileError::NotFound { name: model.into(), looked_for: looked_for.join(", ") })
}

fn file(path: &Path) -> Result<Source, FileError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unusable(path, "there is no such file"),
        _ => unusable(path, &error),
    })?;
    if !metadata.is_file() {
        return Err(unusable(path, "it is not a file"));
    }
    // Its own facts would be read out of it.
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("toml") || end == "modelinfo") {
        return Err(unusable(
            path,
            "such a file says something about a model; name the .onnx file beside it",
        ));
    }
    match metadata.len() {
        0 => Err(unusable(path, "the file is empty")),
        bytes if bytes > MAX_MODEL_BYTES => {
            Err(unusable(path, &format!("{bytes} bytes are more than an ONNX file can have")))
        }
        bytes => Ok(Source::File { path: path.to_path_buf(), bytes, modified: metadata.modified().ok() }),
    }
}

/// The name under which a model's events are published: the file's name without its ending.
pub fn model_id(source: &Source) -> Arc<str> {
    match source {
        Source::File { path, .. } => {
            path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into())
        }
        Source::BuiltIn(name) => (*name).into(),
    }
}

/// What is said about a model outside its own file, strongest first, each with its origin.
pub fn hints(
    source: &Source,
    model_type: Option<ModelType>,
    labels_file: Option<&str>,
) -> Result<Vec<(String, ModelHints)>, FileError> {
    let mut layers = Vec::new();
    if let Some(model_type) = model_type {
        layers.push(("model-type".into(), ModelHints { model_type: Some(model_type), ..Default::default() }));
    }
    if let Some(path) = labels_file.map(Path::new) {
        let labels = parse_labels(&text(path)?).map_err(|reason| FileError::Unusable {
            path: path.display().to_string(),
            reason: format!("as a list of labels: {reason}"),
        })?;
        layers.push((path.display().to_string(), ModelHints { labels: Some(labels), ..Default::default() }));
    }
    match source {
        Source::File { path, .. } => {
            let toml = path.with_extension("toml");
            if toml.is_file() {
                let hints = ModelHints::from_toml(&text(&toml)?).map_err(|error| unusable(&toml, &error))?;
                layers.push((toml.display().to_string(), hints));
            }
            let mut appended = path.clone().into_os_string();
            appended.push(".modelinfo");
            for modelinfo in [PathBuf::from(appended), path.with_extension("modelinfo")] {
                if modelinfo.is_file() {
                    let hints = ModelHints::from_modelinfo(&text(&modelinfo)?)
                        .map_err(|e| unusable(&modelinfo, &e))?;
                    layers.push((modelinfo.display().to_string(), hints));
                    break;
                }
            }
        }
        Source::BuiltIn(name) => {
            if let Some(model) = BUILT_IN.iter().find(|model| model.name == *name) {
                let origin = format!("facts of the built-in {name}");
                let hints = ModelHints::from_toml(model.facts).map_err(|error| FileError::Unusable {
                    path: origin.clone(),
                    reason: error.to_string(),
                })?;
                layers.push((origin, hints));
            }
        }
    }
    Ok(layers)
}

fn text(path: &Path) -> Result<String, FileError> {
    let metadata = fs::metadata(path).map_err(|error| unusable(path, &error))?;
    if !metadata.is_file() {
        return Err(unusable(path, "it is not a file"));
    }
    if metadata.len() > MAX_TEXT_BYTES {
        return Err(unusable(path, &format!("{} bytes are too many for a text file", metadata.len())));
    }
    let bytes = fs::read(path).map_err(|error| unusable(path, &error))?;
    String::from_utf8(bytes).map_err(|_| unusable(path, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_order_and_paths_are_taken_as_they_are() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [first.path().to_path_buf(), second.path().to_path_buf()];
        for dir in &dirs {
            fs::create_dir(dir.join("models")).unwrap();
        }
        let path_of = |source| match source {
            Source::File { path, .. } => path,
            Source::BuiltIn(_) => panic!("not built in"),
        };
        let error = find("mine", &dirs).unwrap_err().to_string();
        for dir in &dirs {
            assert!(error.contains(&dir.join("models/mine.onnx").display().to_string()), "{error}");
        }
        assert!(error.contains("nvr-launch models get mine"), "{error}");

        fs::write(dirs[1].join("models/mine.onnx"), b"x").unwrap();
        assert_eq!(path_of(find("mine", &dirs).unwrap()), dirs[1].join("models/mine.onnx"));
        fs::write(dirs[0].join("models/mine.onnx"), b"y").unwrap();
        let found = find("mine", &dirs).unwrap();
        assert_eq!(model_id(&found).as_ref(), "mine");
        assert_eq!(path_of(found), dirs[0].join("models/mine.onnx"));

        let error = find("/nowhere/at/all.onnx", &dirs).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.onnx") && error.contains("no such file"), "{error}");
        fs::write(dirs[0].join("empty.onnx"), b"").unwrap();
        let error = find(dirs[0].join("empty.onnx").to_str().unwrap(), &dirs).unwrap_err().to_string();
        assert!(error.contains("empty.onnx"), "{error}");
        assert!(find(dirs[0].join("models").to_str().unwrap(), &dirs).is_err(), "a directory");
        let facts = dirs[0].join("models/empty.toml");
        fs::write(&facts, "type = \"yolox\"\n").unwrap();
        let error = find(facts.to_str().unwrap(), &dirs).unwrap_err().to_string();
        assert!(error.contains("empty.toml") && error.ends_with("name the .onnx file beside it"), "{error}");
        assert_eq!(find("demo", &dirs), Ok(Source::BuiltIn("demo")));
        let error = find("", &dirs).unwrap_err().to_string();
        assert!(error.contains("property model") && error.ends_with("file; built in: demo"), "{error}");
    }

    #[test]
    fn what_stands_beside_a_model_is_layered() {
        let dir = tempfile::tempdir().unwrap();
        let onnx = dir.path().join("m.onnx");
        fs::write(&onnx, b"x").unwrap();
        let source = find(onnx.to_str().unwrap(), &[]).unwrap();
        assert!(hints(&source, None, None).unwrap().is_empty());

        fs::write(dir.path().join("m.toml"), "type = \"yolov8\"\nlabels = [\"a\"]\n").unwrap();
        fs::write(dir.path().join("labels.txt"), "b\nc\n").unwrap();
        let labels = dir.path().join("labels.txt");
        let layers = hints(&source, Some(ModelType::Yolox), labels.to_str()).unwrap();
        assert_eq!(layers.len(), 3);
        assert_eq!(layers[0].1.model_type, Some(ModelType::Yolox));
        assert_eq!(layers[1].1.labels.as_deref(), Some(&["b".to_owned(), "c".to_owned()][..]));
        assert_eq!(layers[2].1.model_type, Some(ModelType::Yolov8));
        assert!(layers[2].0.ends_with("m.toml"));

        fs::write(dir.path().join("m.toml"), "typ = \"yolov8\"\n").unwrap();
        let error = hints(&source, None, None).unwrap_err().to_string();
        assert!(error.contains("m.toml") && error.contains("typ"), "{error}");
        fs::write(dir.path().join("m.toml"), [0xffu8, 0xfe, 0x00]).unwrap();
        assert!(hints(&source, None, None).unwrap_err().to_string().contains("m.toml"));
        let error = hints(&source, None, Some("/nowhere.txt")).unwrap_err().to_string();
        assert!(error.contains("/nowhere.txt"), "{error}");
    }
}
