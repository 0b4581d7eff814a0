//! How often a camera is shown a password. `rtspsrc` answers every 401 with another log-in, eight times for one
//! request, and many cameras lock an account after five that are wrong.

use std::time::{Duration, Instant};

use gst::{
    glib::{
        self,
        translate::{ToGlibPtr, from_glib_none},
    },
    prelude::*,
};
use gst_rtsp::{ffi, rtsp_message::RTSPMessage};
use parking_lot::Mutex;

/// Keep-alives are the same request again and again, and further apart than this.
const AGAIN: Duration = Duration::from_secs(1);

/// Which requests `rtspsrc` may answer a refusal of with the password.
#[derive(Debug, Default)]
struct Login {
    last: Option<(i32, String, Instant)>,
    /// The stream was asked for: what comes now are keep-alives and the end.
    playing: bool,
}

impl Login {
    /// Notes a request that is about to be sent. False where it repeats the last one, and so shows the password: a
    /// refusal of this one is final.
    fn may_repeat(&mut self, method: i32, uri: &str, now: Instant) -> bool {
        let again = self.last.as_ref().is_some_and(|(last_method, last_uri, at)| {
            *last_method == method
                && last_uri == uri
                && (!self.playing || now.saturating_duration_since(*at) < AGAIN)
        });
        self.last = Some((method, uri.to_owned(), now));
        self.playing |= method == ffi::GST_RTSP_PLAY as i32;
        !again
    }
}

/// Has `source`, an `rtspsrc`, show `password` once for each refusal.
pub fn once(source: &gst::Element, password: &str) {
    let login = Mutex::new(Login::default());
    let password = password.to_owned();
    source.connect("before-send", false, move |values| {
        let source = values.first().and_then(|value| value.get::<gst::Element>().ok());
        let request = values.get(1).and_then(|value| value.get::<RTSPMessage>().ok());
        if let Some((source, (method, uri))) = source.zip(request.as_ref().and_then(parse)) {
            let may = login.lock().may_repeat(method, &uri, Instant::now());
            // Without a password it takes the next refusal for what it is. What has been agreed on with the camera
            // already stays with the connection.
            source.set_property("user-pw", may.then_some(&password));
        }
        Some(true.to_value())
    });
}

/// Method and address of a request.
fn parse(message: &RTSPMessage) -> Option<(i32, String)> {
    let (mut method, mut uri, mut version) = (0, std::ptr::null(), 0);
    // SAFETY: the message lives through the call, which does not change it; `uri` belongs to it and is copied.
    unsafe {
        let message = message.to_glib_none();
        let result =
            ffi::gst_rtsp_message_parse_request(message.0, &raw mut method, &raw mut uri, &raw mut version);
        let uri: Option<glib::GString> = from_glib_none(uri);
        uri.filter(|_| result == ffi::GST_RTSP_OK).map(|uri| (method as i32, uri.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBE: i32 = ffi::GST_RTSP_DESCRIBE as i32;
    const SETUP: i32 = ffi::GST_RTSP_SETUP as i32;
    const PLAY: i32 = ffi::GST_RTSP_PLAY as i32;
    const OPTIONS: i32 = ffi::GST_RTSP_OPTIONS as i32;

    #[test]
    fn a_password_is_shown_once_for_each_refusal() {
        let (mut login, start) = (Login::default(), Instant::now());
        let steps = [
            (0, OPTIONS, "/", true),
            (5, DESCRIBE, "/", true),
            // Refused, and again with the password; however long the camera takes.
            (4000, DESCRIBE, "/", false),
            (4001, DESCRIBE, "/", false),
            (4002, SETUP, "/0", true),
            (4003, SETUP, "/1", true),
            (4004, PLAY, "/", true),
            // Keep-alives, one of them refused because the challenge was too old, and one for good.
            (30_000, OPTIONS, "/", true),
            (60_000, OPTIONS, "/", true),
            (60_010, OPTIONS, "/", false),
            (90_000, OPTIONS, "/", true),
            (90_010, OPTIONS, "/", false),
            (90_020, OPTIONS, "/", false),
        ];
        for (number, (at, method, uri, expected)) in steps.into_iter().enumerate() {
            let may = login.may_repeat(method, uri, start + Duration::from_millis(at));
            assert_eq!(may, expected, "step {number}");
        }
    }

    #[test]
    fn requests_are_read() {
        gst::init().unwrap();
        let request = |method, uri: &str| {
            let mut message = std::ptr::null_mut();
            // SAFETY: the message is a new one, and is taken over.
            unsafe {
                ffi::gst_rtsp_message_new_request(&raw mut message, method, uri.to_glib_none().0);
                glib::translate::from_glib_full::<_, RTSPMessage>(message)
            }
        };
        let message = request(ffi::GST_RTSP_SETUP, "rtsp://h/1/track=0");
        let (method, uri) = parse(&message).unwrap();
        assert_eq!((method, uri.as_str()), (SETUP, "rtsp://h/1/track=0"));
    }
}
