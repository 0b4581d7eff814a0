//! Passwords as cameras ask for them: Basic (RFC 7617) and Digest (RFC 7616, with MD5). Pure.

use gst::glib::{self, ChecksumType};

use super::{fault::Secret, rtsp::Message};

/// User that a camera with a password knows.
pub const USER: &str = "viewer";

const REALM: &str = "fault lab";

/// What a camera asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lock {
    pub password: Secret,
    /// Digest and not Basic.
    pub digest: bool,
}

/// What a request brings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Given {
    Nothing,
    Right,
    Wrong,
}

impl Lock {
    /// `WWW-Authenticate` of a refusal.
    pub fn challenge(&self, nonce: &str) -> String {
        if self.digest {
            format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"")
        } else {
            format!("Basic realm=\"{REALM}\"")
        }
    }

    /// Whether `request` may pass; `nonce` is the one that was asked for.
    pub fn check(&self, request: &Message, nonce: &str) -> Given {
        let Some(header) = request.header("Authorization") else { return Given::Nothing };
        let right = if self.digest {
            digest_is_right(header, request.method().unwrap_or_default(), nonce, &self.password.0)
        } else {
            let wanted = glib::base64_encode(format!("{USER}:{}", self.password.0).as_bytes());
            header.strip_prefix("Basic ").map(str::trim) == Some(wanted.as_str())
        };
        if right { Given::Right } else { Given::Wrong }
    }
}

fn digest_is_right(header: &str, method: &str, nonce: &str, password: &str) -> bool {
    let Some(rest) = header.strip_prefix("Digest ") else { return false };
    let uri = parameter(rest, "uri").unwrap_or_default();
    parameter(rest, "username") == Some(USER)
        && parameter(rest, "nonce") == Some(nonce)
        && parameter(rest, "response") == Some(response(USER, REALM, password, nonce, method, uri).as_str())
}

/// The value of a parameter, without its quotes.
fn parameter<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(',').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

fn response(user: &str, realm: &str, password: &str, nonce: &str, method: &str, uri: &str) -> String {
    let md5 = |text: String| {
        let sum = glib::compute_checksum_for_string(ChecksumType::Md5, &text);
        sum.map(|sum| sum.to_string()).unwrap_or_default()
    };
    let secret = md5(format!("{user}:{realm}:{password}"));
    let request = md5(format!("{method}:{uri}"));
    md5(format!("{secret}:{nonce}:{request}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lock(digest: bool) -> Lock {
        Lock { password: Secret("sesame".into()), digest }
    }

    fn request(authorization: &str) -> Message {
        let text =
            format!("DESCRIBE rtsp://h/0 RTSP/1.0\r\nCSeq: 2\r\nAuthorization: {authorization}\r\n\r\n");
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_answer_of_the_standards_example() {
        // RFC 2069, as corrected by its errata.
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let given = response("Mufasa", "testrealm@host.com", "CircleOfLife", nonce, "GET", "/dir/index.html");
        assert_eq!(given, "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn passwords_are_right_or_wrong() {
        let nothing = Message::parse(b"DESCRIBE rtsp://h/0 RTSP/1.0\r\nCSeq: 2\r\n\r\n").unwrap();
        for digest in [false, true] {
            assert_eq!(lock(digest).check(&nothing, "n"), Given::Nothing);
        }
        let basic = |text: &str| request(&format!("Basic {}", glib::base64_encode(text.as_bytes())));
        assert_eq!(lock(false).check(&basic("viewer:sesame"), "n"), Given::Right);
        assert_eq!(lock(false).check(&basic("viewer:wrong"), "n"), Given::Wrong);
        assert_eq!(lock(true).check(&basic("viewer:sesame"), "n"), Given::Wrong, "not what was asked for");

        let digest = |password: &str, nonce: &str| {
            let uri = "rtsp://h/0";
            let sum = response(USER, REALM, password, nonce, "DESCRIBE", uri);
            request(&format!(
                "Digest username=\"{USER}\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{sum}\""
            ))
        };
        assert_eq!(lock(true).check(&digest("sesame", "n"), "n"), Given::Right);
        assert_eq!(lock(true).check(&digest("wrong", "n"), "n"), Given::Wrong);
        assert_eq!(lock(true).check(&digest("sesame", "old"), "n"), Given::Wrong);
        assert_eq!(lock(false).check(&digest("sesame", "n"), "n"), Given::Wrong);
        assert!(
            lock(true).challenge("n").starts_with("Digest ") && lock(true).challenge("n").contains("\"n\"")
        );
    }

    proptest! {
        #[test]
        fn any_header_is_read(text in "(Digest |Basic )?[ -~]{0,80}", digest: bool) {
            prop_assert_ne!(lock(digest).check(&request(&text), "n"), Given::Right);
        }
    }
}
