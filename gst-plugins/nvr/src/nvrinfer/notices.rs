//! What a frame has to say besides its detections: warnings, a model that has taken over, another latency.

use std::sync::Arc;

use gst::{prelude::*, subclass::prelude::*};

use super::{CAT, engine::Client, imp::NvrInfer, printable, swap};

/// What one frame has to report once no lock is held.
#[derive(Debug, Default)]
pub struct Notices {
    pub retired: Option<Arc<Client>>,
    pub unknown_classes: Vec<String>,
    pub labels: Vec<Arc<str>>,
    pub error: Option<String>,
    pub no_motion: bool,
    pub latency: bool,
    /// The frame that waits is not worth an inference any more.
    pub withdraw: bool,
}

impl NvrInfer {
    /// Says what there is to say, and lets go of the model that was used before.
    pub fn give(&self, notices: Notices) {
        if let Some(client) = notices.retired {
            gst::info!(
                CAT,
                imp = self,
                "Model {} has taken over",
                self.with_state(|s| s.model.clone()).unwrap_or_default()
            );
            swap::retire(client);
        }
        if !notices.unknown_classes.is_empty() {
            let labels: Vec<_> = notices.labels.iter().take(100).map(AsRef::as_ref).collect();
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                (
                    "The model knows no class {}; its classes are {}",
                    notices.unknown_classes.join(", "),
                    printable(&labels.join(", "))
                )
            );
        }
        if notices.no_motion {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("gate=motion, but no frame says whether it moves: put nvrmotion in front. Every such frame is analysed")
            );
        }
        if let Some(error) = notices.error {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                (
                    "A frame passes without analysis: {}. Further ones are counted as errors in stats",
                    printable(&error)
                )
            );
        }
        if notices.latency {
            let obj = self.obj();
            let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
        }
    }
}
