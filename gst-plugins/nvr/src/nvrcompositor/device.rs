//! What GStreamer has to compose a wall where the pictures live: one mixer for each kind of memory, and what has to
//! stand around it.

use gst::prelude::*;
use gst_video::VideoFormat;
use nvr_core::layout::Backend;

use super::settings::MAX_SIDE;

/// How a mixer is told to show a part of a picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Crop {
    /// By properties of its pads.
    Properties,
    /// By a meta on the picture.
    Meta,
}

/// The elements that compose pictures in one kind of memory.
#[derive(Debug)]
pub(super) struct Device {
    pub backend: Backend,
    /// What the property calls it.
    pub name: &'static str,
    /// Caps feature of its memory.
    pub memory: &'static str,
    pub mixer: &'static str,
    /// What brings any picture into its memory, in front of each of the mixer's pads.
    pub front: &'static [&'static str],
    /// What brings a wall into system memory.
    pub back: &'static [&'static str],
    /// The one of these elements whose sink pads say which formats it takes.
    pub taker: &'static str,
    /// Format of a wall that stays in its memory.
    pub format: VideoFormat,
    pub crop: Crop,
    /// Whether what is drawn over a picture may be transparent in part.
    pub blends: bool,
    /// What has to be there, in words for the user.
    pub needs: &'static str,
}

pub(super) const DEVICES: [Device; 3] = [
    Device {
        backend: Backend::Gl,
        name: "gl",
        memory: "memory:GLMemory",
        mixer: "glvideomixerelement",
        front: &["glupload", "glcolorconvert"],
        back: &["glcolorconvert", "gldownload"],
        taker: "glcolorconvert",
        format: VideoFormat::Rgba,
        crop: Crop::Properties,
        blends: true,
        needs: "GStreamer's OpenGL elements (package gstreamer1.0-gl) and an OpenGL driver; on a machine without a \
                display, the environment variable GST_GL_WINDOW=egl-device lets them work without one",
    },
    Device {
        backend: Backend::Va,
        name: "va",
        memory: "memory:VAMemory",
        mixer: "vacompositor",
        front: &["vapostproc"],
        back: &["vapostproc"],
        taker: "vapostproc",
        format: VideoFormat::Nv12,
        crop: Crop::Meta,
        // It knows one opacity for a picture as a whole.
        blends: false,
        needs: "GStreamer's va elements (package gstreamer1.0-plugins-bad) and the VA-API driver of the graphics card, \
                whose video processor has to be able to blend",
    },
    Device {
        backend: Backend::Cuda,
        name: "cuda",
        memory: "memory:CUDAMemory",
        mixer: "cudacompositor",
        front: &["cudaupload", "cudaconvertscale"],
        back: &["cudaconvertscale", "cudadownload"],
        taker: "cudaconvertscale",
        format: VideoFormat::Nv12,
        crop: Crop::Meta,
        blends: true,
        needs: "GStreamer 1.26 or newer with its nvcodec elements (package gstreamer1.0-plugins-bad) and NVIDIA's driver",
    },
];

/// Formats of a wall in system memory.
pub(super) const FORMATS: [VideoFormat; 2] = [VideoFormat::I420, VideoFormat::Nv12];

/// The device behind a backend; `None` for the processor.
pub(super) fn of(backend: Backend) -> Option<&'static Device> {
    DEVICES.iter().find(|device| device.backend == backend)
}

/// The memory that pictures with these caps live in. What is neither system memory nor a device's is read by the
/// processor like the former.
pub(super) fn memory(caps: &gst::CapsRef) -> Backend {
    let features = caps.features(0).filter(|features| !features.is_any());
    DEVICES
        .iter()
        .find(|device| features.is_some_and(|features| features.contains(device.memory)))
        .map_or(Backend::Cpu, |device| device.backend)
}

/// What an element says of its failure: the particular part of it, where there is one, stands behind its name.
pub(super) fn words(error: &gst::message::Error) -> String {
    let debug = error.debug().unwrap_or_default();
    match debug.split_once(":\n") {
        Some((_, particular)) => particular.to_owned(),
        None => error.error().to_string(),
    }
}

/// Walls in system memory.
pub(super) fn plain() -> gst::Caps {
    sized(gst_video::VideoCapsBuilder::new().format_list(FORMATS))
}

fn sized<F>(builder: gst_video::VideoCapsBuilder<F>) -> gst::Caps {
    let sides = 2..=MAX_SIDE as i32;
    builder
        .width_range(sides.clone())
        .height_range(sides)
        .framerate_range(gst::Fraction::new(1, 60)..=gst::Fraction::new(240, 1))
        .build()
}

impl Device {
    fn elements(&self) -> impl Iterator<Item = &'static str> {
        let around = self.front.iter().chain(self.back).copied();
        [self.mixer].into_iter().chain(around)
    }

    /// Whether all of its elements are installed. That they are does not say that there is a device.
    pub fn is_installed(&self) -> bool {
        self.elements().all(|name| gst::ElementFactory::find(name).is_some())
    }

    /// That its elements are installed and the device opens.
    ///
    /// # Errors
    /// What is missing, or what the mixer says of its device.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = self.elements().find(|name| gst::ElementFactory::find(name).is_none()) {
            return Err(format!("the element {name} is not installed"));
        }
        let mixer = gst::ElementFactory::make(self.mixer).build().map_err(|error| error.to_string())?;
        // What it says of its failure belongs to nobody: the caller says it.
        let bus = gst::Bus::new();
        mixer.set_bus(Some(&bus));
        let ready = mixer.set_state(gst::State::Ready);
        mixer.set_bus(None);
        let _ = mixer.set_state(gst::State::Null);
        ready.map(|_| ()).map_err(|_| {
            let said = bus.pop_filtered(&[gst::MessageType::Error]);
            let reason = said.as_ref().and_then(|message| match message.view() {
                gst::MessageView::Error(error) => Some(words(error)),
                _ => None,
            });
            reason.unwrap_or_else(|| format!("{} could not open its device", self.mixer))
        })
    }

    /// Pictures in its memory that it takes.
    pub fn input(&self) -> gst::Caps {
        let templates = gst::ElementFactory::find(self.taker).map(|factory| factory.static_pad_templates());
        let mut caps = gst::Caps::new_empty();
        {
            let caps = caps.make_mut();
            for template in templates.into_iter().flatten() {
                if template.direction() != gst::PadDirection::Sink {
                    continue;
                }
                for (structure, features) in template.caps().iter_with_features() {
                    if !features.is_any() && features.size() == 1 && features.contains(self.memory) {
                        caps.append_structure_full(structure.to_owned(), Some(features.to_owned()));
                    }
                }
            }
        }
        caps
    }

    /// Any picture in its memory, for templates.
    pub fn any_input(&self) -> gst::Caps {
        gst_video::VideoCapsBuilder::new().features([self.memory]).build()
    }

    /// Walls in its memory.
    pub fn output(&self) -> gst::Caps {
        let mut caps = sized(gst_video::VideoCapsBuilder::new().features([self.memory]).format(self.format));
        if self.backend == Backend::Gl {
            caps.make_mut().set("texture-target", "2D");
        }
        caps
    }

    /// Whether caps name its memory: those that stand for any memory do not.
    pub fn is_named_in(&self, caps: &gst::CapsRef) -> bool {
        caps.iter_with_features().any(|(_, features)| !features.is_any() && features.contains(self.memory))
    }

    /// Why it was given up, in words for the user.
    pub fn farewell(&self, reason: &str) -> String {
        format!(
            "the cameras' pictures are in {}, which cannot be composed here ({reason}); the processor draws the wall, \
             and copies every picture for it. backend={} needs {}; with backend=cpu cameras send to system memory from \
             the start",
            self.memory, self.name, self.needs
        )
    }

    /// Why what was asked for is not there, in words for the user.
    pub fn complaint(&self, reason: &str) -> String {
        let present: Vec<_> =
            DEVICES.iter().filter(|device| device.is_installed()).map(|device| device.name).collect();
        format!(
            "backend={} was asked for, and cannot be used here: {reason}; it needs {}; installed: cpu{}{}",
            self.name,
            self.needs,
            if present.is_empty() { "" } else { ", " },
            present.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        text.parse().unwrap()
    }

    #[test]
    fn memory_is_what_caps_say() {
        gst::init().unwrap();
        for (text, wanted) in [
            ("video/x-raw, format=I420", Backend::Cpu),
            ("video/x-raw(memory:SystemMemory), format=I420", Backend::Cpu),
            ("video/x-raw(memory:DMABuf), format=NV12", Backend::Cpu),
            ("video/x-raw(ANY), format=NV12", Backend::Cpu),
            ("video/x-raw(memory:GLMemory), format=RGBA", Backend::Gl),
            ("video/x-raw(memory:VAMemory), format=NV12", Backend::Va),
            ("video/x-raw(memory:CUDAMemory), format=NV12", Backend::Cuda),
        ] {
            assert_eq!(memory(&caps(text)), wanted, "{text}");
        }
        let gl = of(Backend::Gl).unwrap();
        assert!(!gl.is_named_in(&gst::Caps::new_any()));
        assert!(!gl.is_named_in(&caps("video/x-raw(ANY)")));
        assert!(gl.is_named_in(&caps("video/x-raw; video/x-raw(memory:GLMemory)")));
        assert_eq!(memory(&gl.output()), Backend::Gl);
        assert!(of(Backend::Cpu).is_none());
    }

    #[test]
    fn a_complaint_says_what_is_missing_and_what_is_there() {
        gst::init().unwrap();
        let text = of(Backend::Cuda).unwrap().complaint("the element cudacompositor is not installed");
        for part in
            ["backend=cuda was asked for", "cudacompositor is not installed", "1.26", "installed: cpu"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
