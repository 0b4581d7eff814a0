//! A local RTSP server for the demo, the tests and the benchmarks: cameras made of launch lines, of the built-in test
//! source, or of recorded files that repeat for ever.
//!
//! It listens on the loopback interface only. A recorded file is split into access units once, held in memory and
//! sent again and again at its own pace with timestamps that go on: nothing is decoded or encoded, and one thread
//! paces every file of the server, so that twelve cameras cost little on the machine that is being measured.

mod clip;
mod pacer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use gst::{glib, prelude::*};
use gst_app::{AppLeakyType, AppSrc};
use gst_rtsp_server::prelude::*;
use nvr_core::scene::SceneKind;
use parking_lot::Mutex;

use clip::Clip;
use pacer::{Feed, Feeds};

/// How often sessions that went silent are looked for.
const SESSION_CHECK: Duration = Duration::from_secs(2);

/// What a path of the server shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Camera {
    /// The built-in test source, encoded as H.264.
    TestSrc(TestSrc),
    /// A file with H.264, H.265 or JPEG video, sent as it is, for ever.
    File(PathBuf),
    /// A launch line that ends in payloaders named `pay0`, `pay1` and so on.
    Launch(String),
}

/// The scene that [`Camera::TestSrc`] draws.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSrc {
    pub seed: u64,
    pub scene: SceneKind,
    pub width: u32,
    pub height: u32,
    /// Frames per second; also the distance of two keyframes.
    pub fps: u32,
    /// Objects in the scene; `None` takes the element's default.
    pub objects: Option<u32>,
    /// kbit/s.
    pub bitrate: u32,
}

impl Default for TestSrc {
    fn default() -> Self {
        Self {
            seed: 0,
            scene: SceneKind::Yard,
            width: 1280,
            height: 720,
            fps: 25,
            objects: None,
            bitrate: 3000,
        }
    }
}

impl TestSrc {
    fn launch(&self) -> anyhow::Result<String> {
        let Self { seed, width, height, fps, bitrate, .. } = self;
        let scene = match self.scene {
            SceneKind::Yard => "yard",
            SceneKind::Street => "street",
            SceneKind::Room => "room",
        };
        let objects = self.objects.map_or_else(String::new, |n| format!("objects={n}"));
        let encoder = if gst::ElementFactory::find("x264enc").is_some() {
            format!(
                "x264enc tune=zerolatency speed-preset=superfast threads=1 key-int-max={fps} bitrate={bitrate}"
            )
        } else if gst::ElementFactory::find("openh264enc").is_some() {
            format!("openh264enc complexity=low gop-size={fps} bitrate={}", u64::from(*bitrate) * 1000)
        } else {
            bail!(
                "no H.264 encoder for the built-in cameras: install gstreamer1.0-plugins-ugly (x264enc) \
                 or gstreamer1.0-plugins-bad (openh264enc)"
            );
        };
        Ok(format!(
            "( nvrtestsrc seed={seed} scene={scene} {objects} ! video/x-raw,width={width},height={height},framerate={fps}/1 \
             ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! {encoder} \
             ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        ))
    }
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 takes any free port.
    pub port: u16,
    /// User and password that clients must give; `None` lets everyone in.
    pub credentials: Option<(String, String)>,
    /// Told of every access unit of a recorded file as it is sent.
    pub on_send: Option<SendHook>,
}

/// Called with a path (`/0`) and how many access units were sent there since its stream began. Runs on the thread that
/// paces all files: it must return at once.
#[derive(Clone)]
#[allow(clippy::type_complexity, reason = "the type is this one's subject")]
pub struct SendHook(Arc<dyn Fn(&str, u64) + Send + Sync>);

impl SendHook {
    pub fn new(hook: impl Fn(&str, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl std::fmt::Debug for SendHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendHook")
    }
}

/// A running server; stops when dropped.
pub struct RtspServer {
    server: gst_rtsp_server::RTSPServer,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    listener: Option<glib::SourceId>,
    thread: Option<thread::JoinHandle<()>>,
    pacer: Option<thread::JoinHandle<()>>,
    feeds: Arc<Feeds>,
    clips: Mutex<HashMap<PathBuf, Arc<Clip>>>,
    paused: Mutex<HashMap<String, Arc<AtomicBool>>>,
    /// What is being shown, by path.
    shown: Arc<Mutex<HashMap<String, glib::WeakRef<gst::Element>>>>,
    options: Options,
    port: u16,
}

impl std::fmt::Debug for RtspServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtspServer").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Ends sessions that time out: the server itself does so for none, and sends to clients without a network for ever.
///
/// # Errors
/// The server has no sessions.
pub(crate) fn forget_silent_clients(
    server: &gst_rtsp_server::RTSPServer,
    context: &glib::MainContext,
) -> anyhow::Result<()> {
    let pool = server.session_pool().context("the RTSP server has no session pool")?;
    let check = glib::timeout_source_new(SESSION_CHECK, None, glib::Priority::DEFAULT, move || {
        pool.cleanup();
        glib::ControlFlow::Continue
    });
    check.attach(Some(context));
    Ok(())
}

impl RtspServer {
    /// Starts a server on 127.0.0.1 at any free port, without a password.
    pub fn start() -> anyhow::Result<Self> {
        Self::with_options(Options::default())
    }

    /// Starts a server on 127.0.0.1. Fails where the port is taken.
    pub fn with_options(options: Options) -> anyhow::Result<Self> {
        gst::init().context("GStreamer could not be initialised")?;
        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&options.port.to_string());
        if let Some((user, password)) = &options.credentials {
            let token = gst_rtsp_server::RTSPToken::builder()
                .field(gst_rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE.as_str(), "viewer")
                .build();
            let auth = gst_rtsp_server::RTSPAuth::new();
            auth.add_basic(&gst_rtsp_server::RTSPAuth::make_basic(user, password), &token);
            server.set_auth(Some(&auth));
        }

        let context = glib::MainContext::new();
        let listener = server
            .attach(Some(&context))
            .with_context(|| format!("the RTSP server could not listen on 127.0.0.1:{}", options.port))?;
        let port = u16::try_from(server.bound_port()).context("the RTSP server did not get a port")?;

        forget_silent_clients(&server, &context)?;

        let main_loop = glib::MainLoop::new(Some(&context), false);
        let thread = thread::Builder::new().name("rtsp-server".into()).spawn({
            let (main_loop, context) = (main_loop.clone(), context.clone());
            move || {
                // Fails only where another thread owns this private context.
                let _ = context.with_thread_default(|| main_loop.run());
            }
        })?;
        let feeds = Arc::new(Feeds::new(options.on_send.clone()));
        let pacer = thread::Builder::new().name("rtsp-pacer".into()).spawn({
            let feeds = feeds.clone();
            move || feeds.run()
        })?;
        Ok(Self {
            server,
            context,
            main_loop,
            listener: Some(listener),
            thread: Some(thread),
            pacer: Some(pacer),
            feeds,
            clips: Mutex::default(),
            paused: Mutex::default(),
            shown: Arc::default(),
            options,
            port,
        })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a camera, without credentials.
    pub fn uri(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{}", self.port, path.trim_start_matches('/'))
    }

    /// Shows `camera` at `path`; replaces what was there for clients that connect from now on. Returns the address.
    pub fn add_camera(&self, path: &str, camera: &Camera) -> anyhow::Result<String> {
        let mount = mount_path(path);
        let factory = gst_rtsp_server::RTSPMediaFactory::new();
        match camera {
            Camera::Launch(launch) => factory.set_launch(launch),
            Camera::TestSrc(test) => factory.set_launch(&test.launch()?),
            Camera::File(file) => self.configure_file(&factory, file, &mount)?,
        }
        factory.set_shared(true);
        // The media's own jitter buffers are for streams that it receives; 0 keeps its latency out of what it sends.
        factory.set_latency(0);
        factory.set_protocols(
            gst_rtsp_server::gst_rtsp::RTSPLowerTrans::TCP | gst_rtsp_server::gst_rtsp::RTSPLowerTrans::UDP,
        );
        if self.options.credentials.is_some() {
            let mut role = gst::Structure::new_empty("viewer");
            role.set("media.factory.access", true);
            role.set("media.factory.construct", true);
            factory.add_role_from_structure(&role);
        }
        factory.connect_media_configure({
            let (shown, mount) = (self.shown.clone(), mount.clone());
            move |_, media| {
                shown.lock().insert(mount.clone(), media.element().downgrade());
            }
        });
        let mounts = self.server.mount_points().context("the RTSP server has no mount points")?;
        mounts.add_factory(&mount, factory);
        Ok(self.uri(path))
    }

    /// Takes a camera away; connected clients keep what they have.
    pub fn remove_camera(&self, path: &str) {
        if let Some(mounts) = self.server.mount_points() {
            mounts.remove_factory(&mount_path(path));
        }
    }

    /// Stops or resumes sending a recorded file while connections stay open, as a hung camera does.
    /// False where no recorded file is shown at `path`.
    pub fn set_paused(&self, path: &str, paused: bool) -> bool {
        let flag = self.paused.lock().get(&mount_path(path)).cloned();
        flag.is_some_and(|flag| {
            flag.store(paused, Ordering::Relaxed);
            true
        })
    }

    /// The element `name` of the launch line of a camera; `None` while nobody watches it.
    pub fn element(&self, path: &str, name: &str) -> Option<gst::Element> {
        let shown = self.shown.lock().get(&mount_path(path))?.upgrade()?;
        shown.downcast::<gst::Bin>().ok()?.by_name(name)
    }

    fn configure_file(
        &self,
        factory: &gst_rtsp_server::RTSPMediaFactory,
        file: &Path,
        mount: &str,
    ) -> anyhow::Result<()> {
        let known = self.clips.lock().get(file).cloned();
        let clip = match known {
            Some(clip) => clip,
            None => Arc::new(Clip::load(file)?),
        };
        self.clips.lock().insert(file.to_owned(), clip.clone());
        let payloader = clip.payloader()?;
        factory.set_launch(&format!("( appsrc name=source ! {payloader} name=pay0 pt=96 )"));

        let paused = Arc::new(AtomicBool::new(false));
        self.paused.lock().insert(mount.to_owned(), paused.clone());
        let feeds = Arc::downgrade(&self.feeds);
        let mount: Arc<str> = mount.into();
        factory.connect_media_configure(move |_, media| {
            let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("source"));
            let (Some(source), Some(feeds)) = (source.and_downcast::<AppSrc>(), feeds.upgrade()) else {
                return;
            };
            source.set_is_live(true);
            source.set_format(gst::Format::Time);
            source.set_caps(Some(&clip.caps));
            source.set_leaky_type(AppLeakyType::Downstream);
            source.set_max_buffers(100);
            source.set_max_bytes(0);
            media.connect_unprepared({
                let (feeds, source) = (Arc::downgrade(&feeds), source.downgrade());
                move |_| {
                    if let (Some(feeds), Some(source)) = (feeds.upgrade(), source.upgrade()) {
                        feeds.remove(&source);
                    }
                }
            });
            feeds.add(Feed::new(source, clip.clone(), mount.clone(), paused.clone()));
        });
        Ok(())
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        self.feeds.stop();
        // On the server's own thread: no listener, then no clients, then the end of the loop.
        let listener = self.listener.take();
        let (server, context, main_loop) =
            (self.server.clone(), self.context.clone(), self.main_loop.clone());
        self.context.invoke(move || {
            if let Some(source) = listener.and_then(|id| context.find_source_by_id(&id)) {
                source.destroy();
            }
            server.client_filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
            if let Some(pool) = server.session_pool() {
                pool.filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
            }
            main_loop.quit();
        });
        for thread in [self.thread.take(), self.pacer.take()].into_iter().flatten() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

fn mount_path(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests;
