//! The first elements of a connection, for each kind of address.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gst::{glib, prelude::*};

use super::{
    TlsValidation,
    address::Remote,
    login,
    session::{Plan, Session, SessionError, Shared},
};

/// How long closing a connection may take for TEARDOWN to be sent: cameras allow few sessions, and remember those
/// that nobody ended.
const TEARDOWN: gst::ClockTime = gst::ClockTime::from_mseconds(500);

impl Session {
    pub(super) fn rtsp(&self, plan: &Plan, remote: &Remote) -> Result<(), SessionError> {
        let micros = u64::from(plan.timeout) * 1_000_000;
        let source = gst::ElementFactory::make("rtspsrc")
            .property("location", &remote.uri)
            .property("latency", plan.latency)
            .property("protocols", plan.protocols)
            .property("tcp-timeout", micros)
            .property("teardown-timeout", TEARDOWN)
            .property("do-retransmission", false)
            .property("add-reference-timestamp-meta", true)
            .build()?;
        if let Some(user) = &remote.user {
            let password = remote.password.as_deref().unwrap_or_default();
            source.set_property("user-id", user);
            source.set_property("user-pw", password);
            login::once(&source, password);
        }
        if plan.tls_validation == TlsValidation::None {
            source.set_property_from_str("tls-validation-flags", "no-flags");
        }
        let shared = Arc::downgrade(&self.shared);
        source.connect("accept-certificate", false, move |_| {
            // Asked only about a certificate that did not pass.
            if let Some(shared) = shared.upgrade() {
                shared.untrusted.store(true, Ordering::Relaxed);
            }
            Some(false.to_value())
        });
        // Only the first stream of each kind is asked of the camera; what is not used need not be sent.
        let (video, audio) = (AtomicBool::new(false), AtomicBool::new(!plan.audio));
        let shared = Arc::downgrade(&self.shared);
        source.connect("select-stream", false, move |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let wanted = caps.as_ref().and_then(|caps| caps.structure(0)).is_some_and(|stream| {
                let taken = match stream.get::<&str>("media") {
                    Ok("video") => &video,
                    Ok("audio") => &audio,
                    _ => return false,
                };
                if depayloader(stream).is_some() {
                    return !taken.swap(true, Ordering::Relaxed);
                }
                if std::ptr::eq(taken, &raw const video)
                    && let Some(shared) = shared.upgrade()
                {
                    shared.cannot_take(stream.get("encoding-name").unwrap_or("of an unknown kind"));
                }
                false
            });
            Some(wanted.to_value())
        });
        source.connect("new-manager", false, |values| {
            let manager = values.get(1)?.get::<gst::Element>().ok()?;
            manager.connect("new-jitterbuffer", false, |values| {
                // Waiting for `latency` before the first packet would only delay the first picture.
                let buffer = values.get(1)?.get::<gst::Element>().ok()?;
                buffer.set_property("faststart-min-packets", 1_u32);
                None
            });
            None
        });
        self.connect_pads(&source, false);
        self.pipeline.add(&source)?;
        Ok(())
    }

    pub(super) fn http(&self, plan: &Plan, remote: &Remote) -> Result<(), SessionError> {
        let source = gst::ElementFactory::make("souphttpsrc")
            .property("location", &remote.uri)
            .property("timeout", plan.timeout)
            .property("is-live", true)
            .property("do-timestamp", true)
            .property("keep-alive", true)
            .property("retries", 0)
            .property("ssl-strict", plan.tls_validation == TlsValidation::Full)
            .build()?;
        if let Some(user) = &remote.user {
            source.set_property("user-id", user);
            source.set_property("user-pw", remote.password.as_deref().unwrap_or_default());
        }
        self.parse(&source)
    }

    pub(super) fn file(&self, path: &Path) -> Result<(), SessionError> {
        if !path.is_file() {
            return Err(SessionError::NoFile { path: path.display().to_string() });
        }
        let source = gst::ElementFactory::make("filesrc").property("location", path).build()?;
        self.parse(&source)
    }

    fn parse(&self, source: &gst::Element) -> Result<(), SessionError> {
        let parse = gst::ElementFactory::make("parsebin").build()?;
        self.connect_pads(&parse, true);
        self.pipeline.add_many([source, &parse])?;
        source.link(&parse)?;
        Ok(())
    }

    pub(super) fn test(&self, settings: &[(String, String)]) -> Result<(), SessionError> {
        // A camera does not tell what it shows: the detections downstream are a model's alone, unless asked for.
        let source = gst::ElementFactory::make("nvrtestsrc").property("ground-truth", false).build()?;
        let mut caps = gst::Caps::new_empty_simple("video/x-raw");
        for (key, value) in settings {
            let wrong = || SessionError::Setting { key: key.clone(), value: value.clone() };
            let structure = caps.make_mut().structure_mut(0).ok_or_else(wrong)?;
            match key.as_str() {
                "width" | "height" => structure.set(key, value.parse::<i32>().map_err(|_| wrong())?),
                "framerate" => {
                    let (n, d) = value.split_once('/').unwrap_or((value, "1"));
                    let (n, d) =
                        (n.parse::<i32>().map_err(|_| wrong())?, d.parse::<i32>().map_err(|_| wrong())?);
                    if n <= 0 || d <= 0 {
                        return Err(wrong());
                    }
                    structure.set(key, gst::Fraction::new(n, d));
                }
                "name" | "parent" => return Err(wrong()),
                _ => {
                    let spec = source.find_property(key).ok_or_else(wrong)?;
                    let value = glib::Value::deserialize_with_pspec(value, &spec).map_err(|_| wrong())?;
                    source.set_property_from_value(key, &value);
                }
            }
        }
        let filter = gst::ElementFactory::make("capsfilter").property("caps", &caps).build()?;
        self.pipeline.add_many([&source, &filter])?;
        source.link(&filter)?;
        let pad = filter.static_pad("src").ok_or_else(|| glib::bool_error!("capsfilter without a pad"))?;
        pad.link_full(&self.outlet, gst::PadLinkCheck::empty())
            .map_err(|_| glib::bool_error!("the test source could not be linked"))?;
        Ok(())
    }

    fn connect_pads(&self, source: &gst::Element, paced: bool) {
        let weak = (Arc::downgrade(&self.shared), self.outlet.downgrade());
        source.connect_pad_added(move |_, pad| {
            let (Some(shared), Some(outlet)) = (weak.0.upgrade(), weak.1.upgrade()) else { return };
            shared.added(&outlet, pad, paced);
        });
        let shared = Arc::downgrade(&self.shared);
        source.connect_no_more_pads(move |_| {
            if let Some(shared) = shared.upgrade() {
                shared.no_more_pads();
            }
        });
    }
}

/// The depayloader for an RTP stream.
pub fn depayloader(rtp: &gst::StructureRef) -> Option<gst::ElementFactory> {
    let name = rtp.get::<&str>("encoding-name").ok();
    let known = match name.unwrap_or_default().to_ascii_uppercase().as_str() {
        "H264" => Some("rtph264depay"),
        "H265" => Some("rtph265depay"),
        "JPEG" => Some("rtpjpegdepay"),
        "MPEG4-GENERIC" => Some("rtpmp4gdepay"),
        "MP4A-LATM" => Some("rtpmp4adepay"),
        "PCMA" => Some("rtppcmadepay"),
        "PCMU" => Some("rtppcmudepay"),
        "OPUS" => Some("rtpopusdepay"),
        _ => None,
    };
    if let Some(factory) = known.and_then(gst::ElementFactory::find) {
        return Some(factory);
    }
    // `rtspsrc` gives the caps of a stream that is to be selected another name.
    let mut renamed = rtp.to_owned();
    renamed.set_name("application/x-rtp");
    let caps = gst::Caps::builder_full().structure(renamed).build();
    gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DEPAYLOADER, gst::Rank::MARGINAL)
        .into_iter()
        .find(|factory| match name {
            Some(_) => factory.can_sink_any_caps(&caps),
            // A static payload type says what it is by its number: only who takes this number is meant.
            None => factory.can_sink_all_caps(&caps),
        })
}

impl Shared {
    /// Whether a refused certificate is why a connection failed.
    pub fn refused_certificate(&self, error: &glib::Error, detail: Option<&str>) -> bool {
        // rtspsrc asks before it refuses; souphttpsrc only says so.
        let said = |text: &str| text.to_lowercase().contains("certificate");
        self.untrusted.load(Ordering::Relaxed) || said(error.message()) || detail.is_some_and(said)
    }
}
