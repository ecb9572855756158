//! Items as they are written, on one line.

use syn::{Attribute, Item, Meta};

use crate::source::{is_for_tests, is_public};

/// The name of an item that is public where it is written.
pub(crate) fn public_name(item: &Item) -> Option<String> {
    let (visibility, name) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Const(item) => (&item.vis, &item.ident),
        Item::Static(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    (is_public(visibility) && !is_for_tests(attributes(item))).then(|| name.to_string())
}

pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// What attributes promise: derived traits, and that more may come.
pub(crate) fn marks(attributes: &[Attribute]) -> String {
    let mut marks = String::new();
    for attribute in attributes {
        match &attribute.meta {
            Meta::List(list) if list.path.is_ident("derive") => {
                marks.push_str(&format!("#[derive({})] ", tidy(&list.tokens.to_string())));
            }
            Meta::Path(path) if path.is_ident("non_exhaustive") => {
                marks.push_str("#[non_exhaustive] ");
            }
            _ => {}
        }
    }
    marks
}

/// Source without comments and attributes, on one line.
pub(crate) fn text(part: &impl quote::ToTokens) -> String {
    tidy(&part.to_token_stream().to_string())
}

/// Tokens are printed with a space between each two.
fn tidy(tokens: &str) -> String {
    const CLOSER: [(&str, &str); 20] = [
        (" ::", "::"),
        (":: ", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (",>", ">"),
        (" :", ":"),
        ("& ", "&"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (",)", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (" ;", ";"),
        ("->", " -> "),
        ("  ", " "),
        ("? Sized", "?Sized"),
        ("(mut self", "(self"),
    ];
    let text = tokens.split_whitespace().collect::<Vec<_>>().join(" ");
    CLOSER
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}
