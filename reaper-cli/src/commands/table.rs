//! Columns for people.

use std::io::Write;

use super::output::print;
use crate::{
    colours::{Colours, TextStyle},
    error::Result,
};

/// Prints rows in columns that are as wide as their longest field, without looks.
pub(crate) fn print_plain<const N: usize>(
    out: &mut dyn Write,
    colours: Colours,
    head: [&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    print_table(out, colours, head, rows, |_, _| TextStyle::Plain)
}

/// Prints rows in columns that are as wide as their longest field. A field looks as `look` says of
/// its column and text.
pub(crate) fn print_table<const N: usize>(
    out: &mut dyn Write,
    colours: Colours,
    head: [&str; N],
    rows: &[[String; N]],
    look: fn(usize, &str) -> TextStyle,
) -> Result<()> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, field) in widths.iter_mut().zip(row) {
            *width = (*width).max(field.chars().count());
        }
    }
    let mut text = line(colours, head.iter().copied(), &widths, |_, _| {
        TextStyle::Heading
    });
    for row in rows {
        text.push_str(&line(
            colours,
            row.iter().map(String::as_str),
            &widths,
            look,
        ));
    }
    print(out, format_args!("{text}"))
}

/// A name from outside this program, on one line and without control characters: it could
/// contain commands for the terminal.
pub(crate) fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

fn line<'a>(
    colours: Colours,
    fields: impl Iterator<Item = &'a str>,
    widths: &[usize],
    look: fn(usize, &str) -> TextStyle,
) -> String {
    let mut line = String::new();
    for (column, (field, width)) in fields.zip(widths).enumerate() {
        line.push_str(&colours.paint(look(column, field), field));
        let padding = width.saturating_sub(field.chars().count()) + 3;
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line() {
        assert_eq!(printable("a b\n\x1b[2J\u{9b}é"), "a b\\n\\u{1b}[2J\\u{9b}é");
    }

    #[test]
    fn columns_are_aligned() {
        let mut out = Vec::new();
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["longer".to_owned(), String::new()],
        ];
        print_plain(&mut out, Colours::default(), ["ID", "PID"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID       PID\na        1\nlonger\n"
        );
    }
}
