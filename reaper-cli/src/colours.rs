//! Colours, for people at a terminal.

use std::io::IsTerminal as _;

/// Whether what is printed may have colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Colours(bool);

/// How something is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextStyle {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Colours {
    /// For a terminal that knows them, unless `NO_COLOR` says otherwise (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(std::io::stdout().is_terminal() && !dumb && !set("NO_COLOR"))
    }

    /// `text`, as it is to look.
    pub(crate) fn paint(self, look: TextStyle, text: &str) -> String {
        let code = match look {
            TextStyle::Plain => return text.to_owned(),
            _ if !self.0 || text.is_empty() => return text.to_owned(),
            TextStyle::Heading => 1,
            TextStyle::Good => 32,
            TextStyle::Warning => 33,
            TextStyle::Bad => 31,
            TextStyle::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_colours_text_only_when_enabled() {
        assert_eq!(
            Colours(true).paint(TextStyle::Good, "ok"),
            "\x1b[32mok\x1b[0m"
        );
        assert_eq!(Colours(true).paint(TextStyle::Plain, "ok"), "ok");
        assert_eq!(Colours(true).paint(TextStyle::Bad, ""), "");
        assert_eq!(Colours(false).paint(TextStyle::Good, "ok"), "ok");
    }
}
