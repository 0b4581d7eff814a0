//! GStreamer elements for AI video from IP cameras: `libgstnvr.so` for gst-launch-1.0 and other applications,
//! and an rlib that registers the same elements statically.

mod frames;
mod in_place;
pub mod meta;
pub mod mqtt;
pub mod nvrcompositor;
pub mod nvrcontrol;
pub mod nvrinfer;
pub mod nvrmotion;
pub mod nvrmqttsink;
pub mod nvroverlay;
pub mod nvrrecordsink;
pub mod nvrsrc;
pub mod nvrtestsrc;
pub mod nvrtrack;
pub mod nvrzones;
mod pixels;
mod properties;
mod sigpipe;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    meta::init();
    nvrsrc::register(plugin)?;
    nvrtestsrc::register(plugin)?;
    nvrmotion::register(plugin)?;
    nvrinfer::register(plugin)?;
    nvrtrack::register(plugin)?;
    nvrzones::register(plugin)?;
    nvrcompositor::register(plugin)?;
    nvrmqttsink::register(plugin)?;
    nvroverlay::register(plugin)?;
    nvrrecordsink::register(plugin)?;
    nvrcontrol::register(plugin)
}

gst::plugin_define!(
    nvr,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    "nvr",
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);

/// Registers the elements for the tests of this crate. Once for all of them: GStreamer describes an element that is
/// registered again in place, while other tests read.
#[cfg(test)]
fn init() {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer starts");
        plugin_register_static().expect("the plugin registers");
    });
}
