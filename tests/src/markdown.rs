//! Reads the project's own Markdown pages, so that what they show can be tested.

/// The lines outside of fenced blocks.
///
/// # Panics
/// When a fenced block is not closed.
pub fn prose(text: &str) -> String {
    split(text).0
}

/// The commands in fenced blocks marked `sh`, continued lines joined.
///
/// # Panics
/// When a fenced block is not closed.
pub fn commands(text: &str) -> Vec<String> {
    split(text).1
}

fn split(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut commands) = (String::new(), Vec::new());
    let mut fence: Option<&str> = None;
    let mut command = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        match (trimmed.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language.trim()),
            (Some(_), Some(_)) => fence = None,
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
            (None, Some("sh")) => {
                command.push_str(trimmed.trim_end_matches('\\'));
                if trimmed.ends_with('\\') {
                    command.push(' ');
                } else {
                    commands.push(std::mem::take(&mut command));
                }
            }
            (None, Some(_)) => {}
        }
    }
    assert!(fence.is_none(), "a fenced block is not closed");
    (prose, commands)
}

/// Words of a shell command, as far as the documentation uses a shell: quotes, comments, and no expansion.
///
/// # Panics
/// When a quote is not closed.
pub fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "unbalanced quote in: {command}");
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_words_are_found() {
        let text = "prose `a`\n```sh\none \\\n  'two three' # why\nfour\n```\n```json\n{}\n```\nend\n";
        assert_eq!(prose(text), "prose `a`\nend\n");
        let commands = commands(text);
        assert_eq!(
            commands.iter().map(|c| words(c)).collect::<Vec<_>>(),
            [vec!["one", "two three"], vec!["four"]]
        );
    }
}
