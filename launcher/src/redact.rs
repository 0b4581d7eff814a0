//! Takes credentials out of text before it reaches a log, a message or a file.

use std::borrow::Cow;

/// Replaces `user:password@` (and `user@`) after every `scheme://` by `***@`.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut result = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        result.push_str(before);
        // The authority ends at the first of these; a password may hold any other character, '@' and quotes
        // included.
        let end =
            after.find(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace()).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(user_end) => {
                changed = true;
                result.push_str("***");
                rest = &after[user_end..];
            }
            None => rest = after,
        }
    }
    if !changed {
        return Cow::Borrowed(text);
    }
    result.push_str(rest);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_vanish_and_the_rest_stays() {
        for (text, expected) in [
            ("rtsp://admin:secret@cam/1", "rtsp://***@cam/1"),
            ("rtsp://admin:p@ss@cam:554/1", "rtsp://***@cam:554/1"),
            ("mqtts://user@broker", "mqtts://***@broker"),
            (
                "could not open 'rtsp://a:b@c/d' and http://x:y@z.",
                "could not open 'rtsp://***@c/d' and http://***@z.",
            ),
            ("\"rtsp://a:p\"w'd@cam\"", "\"rtsp://***@cam\""),
            ("rtsp://cam/path@2", "rtsp://cam/path@2"),
            ("nothing: here", "nothing: here"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
