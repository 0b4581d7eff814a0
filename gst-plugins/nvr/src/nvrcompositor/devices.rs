//! Which device draws the wall, and its mixer while it does.

use nvr_core::layout::{Backend, choose};
use parking_lot::Mutex;

use super::{
    NvrCompositorBackend,
    device::{self, Device},
    mixer::{Layer, Mixer},
};

/// The locks are held alone and briefly; the mixer is taken out of its place while it works.
#[derive(Debug, Default)]
pub(super) struct Devices {
    choice: Mutex<Choice>,
    mixer: Mutex<Option<Mixer>>,
}

#[derive(Debug, Default)]
struct Choice {
    current: Backend,
    /// What could not be used since the start.
    failed: Vec<Backend>,
}

impl Devices {
    /// Begins with what was asked for, or with the processor.
    ///
    /// # Errors
    /// What was asked for cannot be used here; the text is for the user.
    pub fn start(&self, asked: NvrCompositorBackend) -> Result<(), String> {
        let current = asked.fixed().unwrap_or_default();
        if let Some(device) = device::of(current) {
            device.check().map_err(|reason| device.complaint(&reason))?;
        }
        *self.choice.lock() = Choice { current, failed: Vec::new() };
        Ok(())
    }

    /// Closes the mixer; another is opened when there is something to compose.
    pub fn close(&self) {
        let mixer = self.mixer.lock().take();
        drop(mixer);
    }

    /// The device that draws; `None` for the processor.
    pub fn current(&self) -> Option<&'static Device> {
        device::of(self.choice.lock().current)
    }

    /// What the property calls the one that draws.
    pub fn name(&self) -> &'static str {
        self.current().map_or("cpu", |device| device.name)
    }

    /// Decides who draws pictures that live in `memories`. Whether that is another than before.
    pub fn choose(&self, asked: NvrCompositorBackend, memories: &[Backend]) -> bool {
        let other = {
            let mut choice = self.choice.lock();
            let wanted = asked.fixed().unwrap_or_else(|| choose(memories, choice.current, &choice.failed));
            let other = wanted != choice.current;
            choice.current = wanted;
            other
        };
        if other {
            self.close();
        }
        other
    }

    /// Goes back to the processor for good.
    pub fn give_up(&self, device: &Device) {
        self.close();
        let mut choice = self.choice.lock();
        choice.failed.push(device.backend);
        choice.current = Backend::Cpu;
    }

    /// Pictures that cameras may send. What a device gave up on is still taken: a camera may have nothing else.
    pub fn accepted(&self, asked: NvrCompositorBackend) -> gst::Caps {
        let current = asked.fixed().unwrap_or(self.choice.lock().current);
        // Once a device draws, the pictures of another would have to be copied.
        let open = asked.fixed().is_none() && current == Backend::Cpu;
        let mut caps = gst_video::VideoCapsBuilder::new().build();
        for device in &device::DEVICES {
            let wanted = open || device.backend == current;
            if wanted && device.is_installed() {
                caps.make_mut().append(device.input());
                // Only this device draws compositions: the processor could not take over.
                if asked.fixed() == Some(device.backend) {
                    caps.make_mut().append(device.composed_input());
                }
            }
        }
        caps
    }

    /// Composes a wall with these caps. Gives it, and how many layers had something new.
    ///
    /// # Errors
    /// The device cannot be opened, or has failed.
    pub fn compose(
        &self,
        device: &'static Device,
        owner: &super::NvrCompositor,
        layers: &[Layer],
        wall: &gst::Caps,
    ) -> Result<(gst::Buffer, u64), String> {
        let known = self.mixer.lock().take();
        let mut mixer = match known {
            Some(mixer) => mixer,
            None => Mixer::open(device, owner, wall)?,
        };
        let composed = mixer.compose(layers)?;
        *self.mixer.lock() = Some(mixer);
        Ok(composed)
    }
}
