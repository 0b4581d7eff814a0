//! Label lists.

/// Most labels that are accepted; the largest public detection set (Open Images, LVIS) has under 2000.
pub const MAX_LABELS: usize = 20_000;

/// The 80 classes of COCO in the order that YOLO and DETR exports count them, 0 to 79.
pub const COCO_80: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// COCO's own category ids that no object carries; 1 to 90 minus these are the 80 classes.
const COCO_UNUSED: [usize; 10] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83];

/// COCO's original category ids 1 to 90 (TensorFlow's and the first DETR's numbering) as a list of 90, `id - 1`
/// the index; ids that COCO never used are named `unused 12` and so on.
pub fn coco_90() -> Vec<String> {
    let mut names = COCO_80.iter();
    (1..=90)
        .map(|id| {
            if COCO_UNUSED.contains(&id) {
                format!("unused {id}")
            } else {
                names.next().map_or_else(|| format!("class {id}"), ToString::to_string)
            }
        })
        .collect()
}

/// A label file: one label a line; blank lines at the end and a byte-order mark are ignored.
pub fn parse_labels(text: &str) -> Result<Vec<String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if text.is_empty() {
        return Err("no labels: one label a line is expected".into());
    }
    let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if labels.len() > MAX_LABELS {
        return Err(format!("{} lines: at most {MAX_LABELS} labels are accepted", labels.len()));
    }
    if let Some(line) = labels.iter().position(String::is_empty) {
        return Err(format!("line {} is empty: every class needs a label", line + 1));
    }
    if let Some(line) = labels.iter().position(|label| label.chars().any(char::is_control)) {
        return Err(format!("line {} is not text: one label a line is expected", line + 1));
    }
    Ok(labels)
}

/// A Python `dict` of integers to strings or a list of strings, as `repr()` or JSON writes it: the form of
/// `names` in the metadata of Ultralytics' exports. `None` where it is anything else, or has holes.
pub fn parse_python_names(text: &str) -> Option<Vec<String>> {
    let mut parser = Python { rest: text.trim() };
    let mut names: Vec<(usize, String)> = Vec::new();
    if parser.eat('{') {
        while !parser.eat('}') {
            let key = parser.integer()?;
            if !parser.eat(':') || names.len() >= MAX_LABELS {
                return None;
            }
            names.push((key, parser.string()?));
            if !parser.eat(',') && !parser.rest.starts_with('}') {
                return None;
            }
        }
    } else if parser.eat('[') {
        while !parser.eat(']') {
            if names.len() >= MAX_LABELS {
                return None;
            }
            names.push((names.len(), parser.string()?));
            if !parser.eat(',') && !parser.rest.starts_with(']') {
                return None;
            }
        }
    } else {
        return None;
    }
    names.sort_by_key(|(id, _)| *id);
    let whole =
        parser.rest.is_empty() && !names.is_empty() && names.iter().enumerate().all(|(i, (id, _))| i == *id);
    whole.then(|| names.into_iter().map(|(_, name)| name).collect())
}

struct Python<'a> {
    rest: &'a str,
}

impl Python<'_> {
    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// A number, quoted in JSON.
    fn integer(&mut self) -> Option<usize> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(['"', '\'']) {
            return self.string()?.parse().ok();
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let mut chars = self.rest.char_indices();
        let (_, quote) = chars.next().filter(|(_, c)| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Some(text);
            }
            text.push(match c {
                '\\' => match chars.next()?.1 {
                    'n' | 't' | 'r' => ' ',
                    escaped @ ('\\' | '\'' | '"' | '/') => escaped,
                    'x' => unicode(&mut chars, 2)?,
                    'u' => unicode(&mut chars, 4)?,
                    'U' => unicode(&mut chars, 8)?,
                    _ => return None,
                },
                c if c.is_control() => ' ',
                c => c,
            });
        }
        None
    }
}

fn unicode(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Option<char> {
    let mut value = 0u32;
    for _ in 0..digits {
        value = value.checked_mul(16)?.checked_add(chars.next()?.1.to_digit(16)?)?;
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn coco_90_has_the_80_names_at_their_published_ids() {
        let names = coco_90();
        assert_eq!(names.len(), 90);
        for (id, name) in [
            (1, "person"),
            (3, "car"),
            (13, "stop sign"),
            (18, "dog"),
            (44, "bottle"),
            (67, "dining table"),
            (90, "toothbrush"),
        ] {
            assert_eq!(names[id - 1], name);
        }
        assert_eq!(names.iter().filter(|name| !name.starts_with("unused")).count(), 80);
    }

    #[test]
    fn python_names() {
        for (text, expected) in [
            ("{0: 'person', 1: \"driver's cab\"}", Some(vec!["person", "driver's cab"])),
            ("{1: 'b', 0: 'a'}", Some(vec!["a", "b"])),
            ("{\"0\": \"a\", \"1\": \"b\"}", Some(vec!["a", "b"])),
            ("['a', 'b',]", Some(vec!["a", "b"])),
            ("{0: 'caf\\xe9', 1: '\\u4eba', 2: 'it\\'s'}", Some(vec!["café", "人", "it's"])),
            ("{0: 'a', 2: 'c'}", None),
            ("{0: 'a'", None),
            ("{0: a}", None),
            ("{}", None),
            ("", None),
            ("{0: 'a'} trailing", None),
            ("{0: 'a' 1: 'b'}", None),
        ] {
            let got = parse_python_names(text);
            assert_eq!(
                got.as_deref().map(|v| v.iter().map(String::as_str).collect::<Vec<_>>()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn label_files() {
        assert_eq!(parse_labels("\u{feff}a\r\nb c\r\n\r\n").unwrap(), ["a", "b c"]);
        assert!(parse_labels("a\n\nb").unwrap_err().contains("line 2"));
        assert!(parse_labels("  \n").is_err());
        assert!(parse_labels("a\u{0}b").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,200}") {
            let _ = parse_python_names(&text);
            let _ = parse_labels(&text);
        }

        #[test]
        fn what_python_writes_is_read(names in prop::collection::vec("[a-zA-Z0-9 '\\\\\"]{1,12}", 1..20)) {
            let text = names.iter().enumerate()
                .map(|(i, name)| format!("{i}: '{}'", name.replace('\\', "\\\\").replace('\'', "\\'")))
                .collect::<Vec<_>>().join(", ");
            prop_assert_eq!(parse_python_names(&format!("{{{text}}}")), Some(names));
        }
    }
}
