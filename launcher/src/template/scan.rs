//! Splits a launch string into the few kinds of token that matter here. Stricter than gst-launch where that
//! removes doubt about what belongs to a value: a quote may stand only right after `=`.

use super::{Piece, TemplateError};

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TokenKind {
    /// `!` or `:`
    Link,
    /// `(` or `name.(`
    Open,
    Close,
    Element(String),
    Assignment {
        key: String,
        value: Vec<Piece>,
    },
    /// `name.` or `name.pad`
    Reference {
        name: String,
        pad: Option<String>,
    },
    /// A caps filter, up to the next `!`.
    Caps,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

const PLACE: &str = "a parameter may stand only where a property value stands, as in \"property=${name}\"";

/// Whether `text` can name an element.
pub(super) fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%' | ':')
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.position += end;
        &rest[..end]
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> TemplateError {
        let wrong_place = self.text[offset..].starts_with("${");
        TemplateError::new(offset, if wrong_place { PLACE.to_owned() } else { message.into() })
    }

    /// The text of a value, quotes included.
    fn value(&mut self) -> Result<&'a str, TemplateError> {
        let start = self.position;
        let quote = self.peek().filter(|c| matches!(c, '"' | '\''));
        if quote.is_some() {
            self.position += 1;
        }
        let mut escaped = false;
        for (index, c) in self.text[self.position..].char_indices() {
            let end = match quote {
                Some(quote) => !escaped && c == quote,
                None => !escaped && c.is_whitespace(),
            };
            if end {
                self.position += index + quote.map_or(0, char::len_utf8);
                let after_quote = self.peek().filter(|c| quote.is_some() && !c.is_whitespace() && *c != '!');
                if let Some(c) = after_quote {
                    return Err(self.error(
                        self.position,
                        format!("a space is missing between the closing quote and {c:?}"),
                    ));
                }
                return Ok(&self.text[start..self.position]);
            }
            escaped = !escaped && c == '\\';
        }
        if quote.is_some() {
            return Err(self.error(start, "the quote that opens here is never closed"));
        }
        self.position = self.text.len();
        Ok(&self.text[start..])
    }
}

/// Splits a launch string.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    if let Some(offset) = text.find('\0') {
        return Err(TemplateError::new(offset, "a NUL character cannot stand in a launch string"));
    }
    let mut scanner = Scanner { text, position: 0 };
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        scanner.skip_space();
        let start = scanner.position;
        let Some(c) = scanner.peek() else { return Ok(tokens) };
        let kind = match c {
            '!' | ':' => {
                scanner.position += 1;
                TokenKind::Link
            }
            '(' => {
                scanner.position += 1;
                TokenKind::Open
            }
            ')' => {
                scanner.position += 1;
                TokenKind::Close
            }
            c if c.is_ascii_alphanumeric() || c == '_' => word(&mut scanner)?,
            '"' | '\'' => return Err(scanner.error(start, "a quote may stand only right after '='")),
            c => return Err(scanner.error(start, format!("{c:?} is not understood here"))),
        };
        tokens.push(Token { kind, start, end: scanner.position });
    }
}

/// What begins with a letter: element, assignment, reference or caps.
fn word(scanner: &mut Scanner<'_>) -> Result<TokenKind, TemplateError> {
    let start = scanner.position;
    let key = scanner.take_while(is_key_char);
    let after_key = scanner.position;
    scanner.skip_space();
    if scanner.peek() == Some('=') {
        scanner.position += 1;
        scanner.skip_space();
        let value_at = scanner.position;
        if matches!(scanner.peek(), None | Some('!')) {
            return Err(scanner.error(start, format!("a value is missing after \"{key}=\"")));
        }
        let raw = scanner.value()?;
        let value = unquote_pieces(raw)
            .map_err(|error| TemplateError::new(value_at + error.offset, error.message))?;
        return Ok(TokenKind::Assignment { key: key.into(), value });
    }
    scanner.position = after_key;
    match scanner.peek() {
        Some('.') => {
            scanner.position += 1;
            if scanner.peek() == Some('(') {
                scanner.position += 1;
                return Ok(TokenKind::Open);
            }
            let pad = scanner.take_while(is_key_char);
            if let Some(c) = scanner.peek().filter(|c| !c.is_whitespace() && *c != '!') {
                return Err(
                    scanner.error(scanner.position, format!("{c:?} is not understood after \"{key}.{pad}\""))
                );
            }
            Ok(TokenKind::Reference { name: key.into(), pad: (!pad.is_empty()).then(|| pad.into()) })
        }
        Some('/') => {
            let caps = scanner.take_while(|c| c != '!');
            match caps.find("${") {
                Some(at) => Err(scanner.error(after_key + at, PLACE)),
                None => Ok(TokenKind::Caps),
            }
        }
        None | Some('!' | '(' | ')') => Ok(TokenKind::Element(key.into())),
        Some(c) if c.is_whitespace() => Ok(TokenKind::Element(key.into())),
        Some(c) => Err(scanner.error(scanner.position, format!("{c:?} is not understood after {key:?}"))),
    }
}

fn unquote_pieces(raw: &str) -> Result<Vec<Piece>, TemplateError> {
    match raw.chars().next() {
        Some(quote @ ('"' | '\'')) if raw.len() >= 2 && raw.ends_with(quote) => {
            parse_pieces(&raw[1..raw.len() - 1], true)
                .map_err(|error| TemplateError::new(error.offset + 1, error.message))
        }
        _ => parse_pieces(raw, true),
    }
}

/// Splits a value into text and parameters. With `escapes`, a backslash takes the next character literally, as
/// in gst-launch.
///
/// # Errors
/// `${` that is not closed, or does not hold a parameter's name.
pub fn parse_pieces(raw: &str, escapes: bool) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        if escapes && c == '\\' {
            let mut chars = rest.chars();
            chars.next();
            text.extend(chars.next());
            rest = chars.as_str();
        } else if let Some(after) = rest.strip_prefix("${") {
            let offset = raw.len() - rest.len();
            let Some(end) = after.find('}') else {
                return Err(TemplateError::new(offset, "\"${\" is never closed with \"}\""));
            };
            let name = &after[..end];
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(TemplateError::new(
                    offset,
                    format!("\"${{{name}}}\" must hold a parameter's name: letters, digits and '_'"),
                ));
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Param(name.into()));
            rest = &after[end + 1..];
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}
