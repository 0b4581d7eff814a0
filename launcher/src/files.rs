//! Text files that people write: read as a whole, or refused in words that say what is wrong with them.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use toml_edit::Document;

use crate::diagnostics::{Collector, Problems, line_of};

/// Nobody writes more by hand: what is longer was not meant.
pub(crate) const MOST: u64 = 1 << 20;

/// Reads a file of at most `most` bytes. The error says why not, and goes after the file's name.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, String> {
    if path.as_os_str().is_empty() {
        return Err("the name is empty".into());
    }
    let why = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => "it does not exist".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    };
    let file = File::open(path).map_err(why)?;
    let mut bytes = Vec::new();
    // A pipe, as the shell makes one of <(…), does not know its length.
    file.take(most + 1).read_to_end(&mut bytes).map_err(why)?;
    if bytes.len() as u64 > most {
        return Err(format!("it is longer than {most} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        format!("it is no text in UTF-8, from line {line} on")
    })
}

/// Reads TOML; what is none is a problem of `file` with its line.
pub(crate) fn toml<'a>(file: &str, text: &'a str) -> Result<Document<&'a str>, Problems> {
    Document::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let message = format!("not valid TOML: {}", error.message());
        Collector::only(file, line, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        for (path, expected) in [
            (file("right", b"k = 1\n"), Ok("k = 1\n")),
            (file("empty", b""), Ok("")),
            (file("binary", b"k = 1\n\xff\xfe"), Err("it is no text in UTF-8, from line 2 on")),
            (file("long", &[b'a'; 17]), Err("it is longer than 16 bytes")),
            (file("just right", &[b'a'; 16]), Ok("aaaaaaaaaaaaaaaa")),
            (folder.path().join("missing"), Err("it does not exist")),
            (folder.path().into(), Err("it is a directory")),
            ("".into(), Err("the name is empty")),
            ("/dev/zero".into(), Err("it is longer than 16 bytes")),
        ] {
            let found = read_text(&path, 16);
            let found = found.as_deref().map_err(String::as_str);
            assert_eq!(found, expected, "{}", path.display());
        }
    }

    #[test]
    fn what_is_no_toml_has_its_line() {
        let error = toml("a.toml", "k = 1\nk = = 2\n").unwrap_err().to_string();
        assert!(error.starts_with("a.toml:2: not valid TOML: "), "{error}");
    }
}
