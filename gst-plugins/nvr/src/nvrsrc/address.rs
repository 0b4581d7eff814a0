//! Where a camera is: its URI taken apart, and the URI as it may be shown. Pure.

use std::path::PathBuf;

use nvr_core::secret::{self, HIDDEN, split_credentials};
use url::Url;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// rtsp or rtsps.
    Rtsp(Remote),
    /// http or https.
    Http(Remote),
    File(PathBuf),
    /// The built-in test source, with its settings.
    Test(Vec<(String, String)>),
}

/// An address with the credentials apart.
#[derive(Clone, Eq, PartialEq)]
pub struct Remote {
    /// Without user and password.
    pub uri: String,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Remote {
    /// Whether this is RTSP without TLS or a tunnel.
    pub fn is_plain(&self) -> bool {
        self.uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rtsp://"))
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("uri", &redact(&self.uri)).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    #[error("no uri is set; give one such as rtsp://192.0.2.7/stream1")]
    Missing,
    #[error("{uri}: not a uri ({reason}); expected something like rtsp://192.0.2.7/stream1")]
    Malformed { uri: String, reason: String },
    #[error("{uri}: no camera can be reached by {scheme}:; use rtsp, rtsps, http, https, file or testsrc")]
    Scheme { uri: String, scheme: String },
}

impl Address {
    /// Takes `uri` apart. `user` and `password`, where given, win over what the URI holds.
    pub fn parse(uri: &str, user: Option<&str>, password: Option<&str>) -> Result<Self, AddressError> {
        let uri = uri.trim();
        if uri.is_empty() {
            return Err(AddressError::Missing);
        }
        let malformed = |reason: String| AddressError::Malformed { uri: redact(uri), reason };
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| malformed("it has no scheme".into()))?;
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "rtsp" | "rtsps" | "http" | "https" => {
                let (credentials, location) = split_credentials(uri);
                let url = Url::parse(&location).map_err(|e| malformed(e.to_string()))?;
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(malformed("it names no host".into()));
                }
                let (in_uri_user, in_uri_password) = match credentials {
                    Some((user, password)) => (Some(decode(&user)), password.map(|p| decode(&p))),
                    None => (None, None),
                };
                let remote = Remote {
                    uri: location,
                    user: user.map(Into::into).or(in_uri_user).filter(|user| !user.is_empty()),
                    password: password.map(Into::into).or(in_uri_password),
                };
                Ok(if scheme.starts_with("rtsp") { Self::Rtsp(remote) } else { Self::Http(remote) })
            }
            "file" => {
                let url = Url::parse(uri).map_err(|e| malformed(e.to_string()))?;
                let path = url
                    .to_file_path()
                    .map_err(|()| malformed("it is not the path of a local file".into()))?;
                Ok(Self::File(path))
            }
            "testsrc" => {
                let query = rest.split_once('?').map_or("", |(_, query)| query);
                let pairs = query.split('&').filter(|pair| !pair.is_empty());
                Ok(Self::Test(
                    pairs
                        .map(|pair| {
                            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
                            (decode(key), decode(value))
                        })
                        .collect(),
                ))
            }
            _ => Err(AddressError::Scheme { uri: redact(uri), scheme }),
        }
    }
}

/// `uri` without user and password, and without secrets in its query: fit for logs and messages.
pub fn redact(uri: &str) -> String {
    secret::redact_uri(uri)
}

/// `text` with every secret of `uri` and `password` hidden, for messages that others wrote.
pub fn redact_text(text: &str, uri: &str, password: Option<&str>) -> String {
    let (credentials, location) = split_credentials(uri);
    let in_uri = credentials.and_then(|(_, password)| password);
    let mut secrets: Vec<String> =
        [password, in_uri.as_deref()].into_iter().flatten().map(Into::into).collect();
    secrets.extend(secret::secrets(&location).map(Into::into));
    let decoded: Vec<_> = secrets.iter().map(|secret| decode(secret)).collect();
    secrets.extend(decoded);
    // A secret may be part of another one; what is left of that would show.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.replace(uri, &redact(uri));
    for secret in secrets {
        // Hiding a single letter would hide every such letter of the text, and thereby show it.
        if secret.len() > 1 {
            text = text.replace(&secret, HIDDEN);
        }
    }
    text
}

/// Percent-decoding; what is not a valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten();
        let hex = escape.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_leave_the_uri() {
        for (uri, shown, user, password) in [
            ("rtsp://cam/1", "rtsp://cam/1", None, None),
            ("rtsp://a:b@cam:554/1?x=1", "rtsp://cam:554/1?x=1", Some("a"), Some("b")),
            ("RTSP://a@cam/1", "RTSP://cam/1", Some("a"), None),
            ("rtsp://admin:p@ss@cam/1", "rtsp://cam/1", Some("admin"), Some("p@ss")),
            ("rtsp://admin:p#a?s@cam/1", "rtsp://cam/1", Some("admin"), Some("p#a?s")),
            ("rtsp://admin:p/s@cam/1", "rtsp://cam/1", Some("admin"), Some("p/s")),
            ("rtsp://admin:%40%zz@cam/1", "rtsp://cam/1", Some("admin"), Some("@%zz")),
            ("rtsp://cam:554/live@2", "rtsp://cam:554/live@2", None, None),
            ("rtsps://[2001:db8::7]:322/a", "rtsps://[2001:db8::7]:322/a", None, None),
            ("http://cam/s.cgi?user=u&pwd=p", "http://cam/s.cgi?user=u&pwd=***", None, None),
        ] {
            let (Address::Rtsp(remote) | Address::Http(remote)) = Address::parse(uri, None, None).unwrap()
            else {
                panic!("{uri}")
            };
            assert_eq!(redact(uri), shown);
            assert_eq!(remote.user.as_deref(), user, "{uri}");
            assert_eq!(remote.password.as_deref(), password, "{uri}");
        }
    }

    #[test]
    fn properties_win_over_the_uri() {
        let Address::Rtsp(remote) = Address::parse("rtsp://a:b@cam/1", Some("c"), Some("d")).unwrap() else {
            panic!()
        };
        assert_eq!((remote.user.as_deref(), remote.password.as_deref()), (Some("c"), Some("d")));
        assert_eq!(remote.uri, "rtsp://cam/1");
    }

    #[test]
    fn other_schemes() {
        assert_eq!(
            Address::parse("file:///video/a%20b.mp4", None, None),
            Ok(Address::File("/video/a b.mp4".into()))
        );
        let pairs = [("seed", "7"), ("width", "640")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            Address::parse("testsrc://?seed=7&width=640", None, None),
            Ok(Address::Test(pairs.into()))
        );
        assert_eq!(Address::parse("testsrc:", None, None), Ok(Address::Test(Vec::new())));
        assert_eq!(Address::parse("  ", None, None), Err(AddressError::Missing));
        for bad in ["camera 1", "ftp://a/b", "rtsp://", "rtsp:///x", "file://host/x", "rtsp://a:b:c/x"] {
            assert!(Address::parse(bad, None, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_of_others_shows_no_secret() {
        let uri = "rtsp://admin:s%21cret@cam/1";
        let text = format!("could not open {uri}: user admin password s!cret, or s%21cret; other geheim");
        let shown = redact_text(&text, uri, Some("geheim"));
        assert!(!shown.contains("cret") && !shown.contains("geheim"), "{shown}");
        assert!(shown.contains("rtsp://cam/1"), "{shown}");
    }

    #[test]
    fn a_token_in_the_query_is_shown_to_nobody() {
        let uri = "http://cam/live.mjpg?channel=1&Token=a%2Fb-c-9";
        for text in
            ["Could not open http://cam/live.mjpg?channel=1&Token=a%2Fb-c-9 (404)", "token a/b-c-9 is wrong"]
        {
            let shown = redact_text(text, uri, None);
            assert!(!shown.contains("b-c-9") && shown.contains(HIDDEN), "{shown}");
        }
        assert!(redact_text("channel=1", uri, None).contains("channel=1"));
    }

    proptest! {
        #[test]
        fn nothing_panics(uri in ".{0,60}") {
            let _ = Address::parse(&uri, None, None);
            redact(&uri);
        }

        #[test]
        fn no_password_is_shown(
            // An `@` and then a `/` is what a path looks like as well.
            password in "[A-Za-z]([A-Za-z0-9#?:/%!]{8,12}|[A-Za-z0-9@#?:%!]{8,12})zz",
            path in "[a-z0-9/]{0,10}",
        ) {
            let uri = format!("rtsp://user:{password}@cam.example:554/{path}");
            let shown = redact(&uri);
            prop_assert!(!shown.contains(&password), "{shown}");
            prop_assert_eq!(shown, format!("rtsp://cam.example:554/{}", path));
        }
    }
}
