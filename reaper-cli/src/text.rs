//! Text from outside this program, made harmless for a terminal.
//!
//! Paths, annotations, arguments and messages may hold any character that a workload or an image
//! chooses. On a terminal a control character would be a command, and a newline would forge a line.

/// `text` on one line and without control characters, which are escaped as Rust does. What is printable
/// already stays as it is, so doing it twice does no harm.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// JSON without the control characters that it may hold as they are: DEL, and those from U+0080 on, which
/// some terminals obey. It means the same afterwards.
pub(crate) fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_table_cells_are_escaped() {
        let shown = printable("a b\n\x1b[2J\u{9b}é");
        assert_eq!(shown, "a b\\n\\u{1b}[2J\\u{9b}é");
        assert_eq!(printable(&shown), shown);
    }

    #[test]
    fn json_means_the_same_and_commands_no_terminal() {
        let text = "a\u{9b}2J\u{7f}é\x1b";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let shown = printable_json(&json);
        assert!(!shown.contains(['\u{9b}', '\u{7f}', '\x1b']), "{shown:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
    }
}
