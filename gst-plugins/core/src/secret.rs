//! What nobody may see in an address: user, password, and secrets in its query.

use std::borrow::Cow;

/// What is shown instead of a secret.
pub const HIDDEN: &str = "***";

/// Query keys whose values are secrets; `user-pw` and `AccessToken` are such too.
const SECRET_KEYS: [&str; 7] = ["pass", "pwd", "pw", "token", "auth", "secret", "key"];

/// Where a key may begin after the host; some cameras have their query in the path.
const BEFORE_KEY: [char; 5] = ['/', '?', '#', '&', ';'];

/// Takes secrets out of any text: after every `scheme://`, `user:password@` becomes `***@`, and so do the values of
/// secrets in the query.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let without = without_users(word);
        let Some(at) = without.find("://") else {
            shown.push_str(&without);
            continue;
        };
        let (scheme, rest) = without.split_at(at + 3);
        shown.push_str(scheme);
        // In a text, the address may stand in quotes or brackets.
        for piece in pieces(rest, |c| c == '&' || c.is_whitespace() || matches!(c, '"' | '\\' | '<' | '>')) {
            shown.push_str(piece.shown());
        }
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// A word with `***` for whatever stands before the `@` of an address in it.
fn without_users(word: &str) -> String {
    let mut shown = String::new();
    let mut rest = word;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        rest = match user_end(after) {
            Some(end) => {
                shown.push_str(HIDDEN);
                &after[end..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

/// A text that is an address and nothing else, without user and password, and without the values of secrets.
pub fn redact_uri(uri: &str) -> String {
    let (_, location) = split_credentials(uri);
    pieces(&location, |c| c == '&').map(|piece| piece.shown()).collect()
}

/// As [`redact_uri`], with `***@` where user and password stood. Unlike [`redact`], which looks for addresses in a text
/// and takes a space for the end of one, it knows a password with spaces.
pub fn redact_address(uri: &str) -> String {
    let shown = redact_uri(uri);
    match (split_credentials(uri).0, shown.split_once("://")) {
        (Some(_), Some((scheme, rest))) => format!("{scheme}://{HIDDEN}@{rest}"),
        _ => shown,
    }
}

/// The values of secrets in the query of an address, as they stand there.
pub fn secrets(location: &str) -> impl Iterator<Item = &str> {
    pieces(location, |c| c == '&').filter_map(|piece| match piece {
        Piece::Secret(value) => Some(value),
        Piece::Plain(_) => None,
    })
}

/// User and password as they stand in `uri`, and `uri` without them. Passwords often hold characters that ought to
/// be escaped and are not, so the last `@` counts, also one after a `/` where no host and port come before that.
pub fn split_credentials(uri: &str) -> (Option<(String, Option<String>)>, String) {
    let Some((scheme, rest)) = uri.split_once("://") else { return (None, uri.to_owned()) };
    let Some(at) = user_end(rest) else { return (None, uri.to_owned()) };
    let (credentials, host) = (&rest[..at], &rest[at + 1..]);
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
        None => (credentials.to_owned(), None),
    };
    (Some((user, password)), format!("{scheme}://{host}"))
}

/// Where the `@` after user and password stands in what follows `scheme://`.
fn user_end(rest: &str) -> Option<usize> {
    let first = &rest[..rest.find('/').unwrap_or(rest.len())];
    match first.rfind('@') {
        Some(at) if looks_like_host(&first[at + 1..]) => Some(at),
        None if looks_like_host(first.split(['?', '#']).next().unwrap_or_default()) => None,
        _ => rest.rfind('@'),
    }
}

/// Whether `text` can be a host with or without a port, and nothing else.
fn looks_like_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, "")) => return true,
        Some((_, tail)) => ("", tail.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.iter().any(|secret| key.contains(secret))
}

enum Piece<'a> {
    Plain(&'a str),
    Secret(&'a str),
}

impl<'a> Piece<'a> {
    fn shown(&self) -> &'a str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(_) => HIDDEN,
        }
    }
}

/// An address in pieces; a secret goes on to the next character that `ends` it.
fn pieces(text: &str, ends: impl Fn(char) -> bool) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut secret = false;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if std::mem::take(&mut secret) {
            let end = rest.find(&ends).unwrap_or(rest.len());
            let (value, tail) = rest.split_at(end);
            rest = tail;
            return Some(Piece::Secret(value));
        }
        // Up to and with the `=` of the next key whose value is a secret.
        let mut at = 0;
        while let Some(found) = rest[at..].find(BEFORE_KEY) {
            at += found + 1;
            let key_end =
                at + rest[at..].find(|c| c == '=' || BEFORE_KEY.contains(&c)).unwrap_or(rest.len() - at);
            if rest[key_end..].starts_with('=') && is_secret(&rest[at..key_end]) {
                let (plain, tail) = rest.split_at(key_end + 1);
                rest = tail;
                secret = true;
                return Some(Piece::Plain(plain));
            }
        }
        Some(Piece::Plain(std::mem::take(&mut rest)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_vanish_from_a_text_and_the_rest_stays() {
        for (text, expected) in [
            ("rtsp://admin:secret@cam/1", "rtsp://***@cam/1"),
            ("rtsp://admin:p@ss@cam:554/1", "rtsp://***@cam:554/1"),
            ("rtsp://admin:p/a?s#s@cam:554/1", "rtsp://***@cam:554/1"),
            ("mqtts://user@broker", "mqtts://***@broker"),
            (
                "could not open 'rtsp://a:b@c/d' and http://x:y@z.",
                "could not open 'rtsp://***@c/d' and http://***@z.",
            ),
            ("\"rtsp://a:p\"w'd@cam\"", "\"rtsp://***@cam\""),
            ("rtsp://cam/path@2", "rtsp://cam/path@2"),
            ("nothing: here", "nothing: here"),
            ("http://cam/s.cgi?user=u&pwd=geheim&x=1", "http://cam/s.cgi?user=u&pwd=***&x=1"),
            ("\"http://cam/live?Token=a/b#c\" (404)\nnext", "\"http://cam/live?Token=***\" (404)\nnext"),
            (
                "rtsp://cam/user=admin&password=geheim&channel=1",
                "rtsp://cam/user=admin&password=***&channel=1",
            ),
            ("http://h/#x=1;access_token=geheim", "http://h/#x=1;access_token=***"),
            ("http://h/?u=rtsp://a:geheim@b/&key=geheim", "http://h/?u=rtsp://***@b/&key=***"),
            ("token=here is no address", "token=here is no address"),
            ("https://h/?t=1 token=x", "https://h/?t=1 token=x"),
        ] {
            assert_eq!(redact(text), expected);
            assert_eq!(redact(expected), expected);
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (uri, expected, found) in [
            ("rtsp://a:b@cam:554/1?x=1", "rtsp://cam:554/1?x=1", &[][..]),
            ("http://cam/?a=1&pwd=p\"w d&token=", "http://cam/?a=1&pwd=***&token=", &["p\"w d"]),
            ("testsrc://?seed=7", "testsrc://?seed=7", &[]),
        ] {
            assert_eq!(redact_uri(uri), expected);
            assert_eq!(secrets(uri).collect::<Vec<_>>(), found);
        }
        for (uri, expected) in [
            ("rtsp://u:my pass@cam/1", "rtsp://***@cam/1"),
            ("rtsp://***@cam/1", "rtsp://***@cam/1"),
            ("rtsp://cam/1?pwd=my pass&x=1", "rtsp://cam/1?pwd=***&x=1"),
            ("no address", "no address"),
        ] {
            assert_eq!(redact_address(uri), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,60}|([a:/@?&=#;\" ]|pwd|://){0,20}") {
            redact(&text);
            redact_uri(&text);
            redact_address(&text);
            secrets(&text).count();
        }

        #[test]
        fn no_password_is_shown_in_a_text(
            password in "[A-Za-z]([A-Za-z0-9#?:/%!]{8,12}|[A-Za-z0-9@#?:%!]{8,12})zz",
            key in "(user-)?(pwd|password|token|auth)",
            before in "[a-z (]{0,10}",
        ) {
            let text = format!("{before}rtsp://user:{password}@cam.example:554/x?{key}={password}");
            let shown = redact(&text);
            prop_assert!(!shown.contains(&password), "{shown}");
            prop_assert!(shown.starts_with(&before) && shown.contains("***@cam.example:554/x?"), "{shown}");
        }
    }
}
