//! Columns for people.

use std::io::Write;

use super::output::print;
use crate::{
    colours::{Colours, TextStyle},
    error::Result,
    text::printable,
};

/// Prints rows in columns that are as wide as their longest field, without looks.
pub(crate) fn print_plain(
    out: &mut dyn Write,
    colours: Colours,
    head: &[&str],
    rows: &[impl AsRef<[String]>],
) -> Result<()> {
    print_table(out, colours, head, rows, |_, _| TextStyle::Plain)
}

/// Prints rows in columns that are as wide as their longest field. A field looks as `look` says of
/// its column and text. Control characters in fields are escaped.
pub(crate) fn print_table(
    out: &mut dyn Write,
    colours: Colours,
    head: &[&str],
    rows: &[impl AsRef<[String]>],
    look: fn(usize, &str) -> TextStyle,
) -> Result<()> {
    let shown = |row: &[String]| row.iter().map(|field| printable(field)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| shown(row.as_ref())).collect();
    let mut widths: Vec<_> = head.iter().map(|name| name.len()).collect();
    for row in &rows {
        for (width, field) in widths.iter_mut().zip(row) {
            *width = (*width).max(field.chars().count());
        }
    }
    let mut text = line(colours, head.iter().copied(), &widths, |_, _| {
        TextStyle::Heading
    });
    for row in &rows {
        text.push_str(&line(
            colours,
            row.iter().map(String::as_str),
            &widths,
            look,
        ));
    }
    print(out, format_args!("{text}"))
}

/// A field that there may not be.
pub(crate) fn or_dash(field: Option<String>) -> String {
    field.unwrap_or_else(|| "-".to_owned())
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
    fn columns_are_aligned() {
        let mut out = Vec::new();
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["longer".to_owned(), String::new()],
        ];
        print_plain(&mut out, Colours::default(), &["ID", "PID"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID       PID\na        1\nlonger\n"
        );
    }

    #[test]
    fn a_field_stays_in_its_row_and_commands_no_terminal() {
        let mut out = Vec::new();
        let rows = [["x\n\x1b[31my".to_owned(), "1".to_owned()]];
        print_plain(&mut out, Colours::default(), &["ID", "PID"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID               PID\nx\\n\\u{1b}[31my   1\n"
        );
    }
}
