//! What the source of a crate must keep to, besides its [floors](crate::floors): `unsafe` in one file, functions
//! that fit on a screen or two, and no sleep without a reason.
//!
//! All are read from the tokens, so that comments and strings do not count, and macros do.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The most lines of a function outside of tests.
pub const LONGEST_FUNCTION: usize = 80;

/// The files below `source` that have the word `unsafe`, relative to it and sorted.
///
/// # Errors
/// A file that cannot be read, or that is no Rust.
pub fn unsafe_files(source: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (file, tokens) in read(source)? {
        if is_unsafe(tokens) {
            found.push(file);
        }
    }
    Ok(found)
}

/// The functions below `source` that are longer than [`LONGEST_FUNCTION`], a line each. Modules called `tests`, in a
/// file or as one, are left out: the tables in them may be long.
///
/// # Errors
/// A file that cannot be read, or that is no Rust.
pub fn long_functions(source: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for (file, tokens) in read(source)? {
        if is_tests(&file) {
            continue;
        }
        let mut functions = Vec::new();
        measure(tokens, &mut functions);
        let long = functions
            .into_iter()
            .filter(|function| function.lines > LONGEST_FUNCTION);
        found.extend(long.map(|Function { name, lines }| {
            format!("{}: {name} has {lines} lines", file.display())
        }));
    }
    Ok(found)
}

/// The files below `source` that call a function `sleep`, relative to it and sorted. Modules called `tests` are left out.
///
/// # Errors
/// A file that cannot be read, or that is no Rust.
pub fn sleeping_files(source: &Path) -> io::Result<Vec<PathBuf>> {
    let files = read(source)?.into_iter();
    let sleeping = files.filter(|(file, tokens)| !is_tests(file) && sleeps(tokens.clone()));
    Ok(sleeping.map(|(file, _)| file).collect())
}

pub(crate) fn is_tests(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem == "tests")
}

/// Whether a function `sleep` is called, outside of a module `tests`.
fn sleeps(tokens: TokenStream) -> bool {
    let mut before: [Option<String>; 2] = [None, None];
    for token in tokens {
        let word = match token {
            TokenTree::Group(group) => {
                let is_call = group.delimiter() == Delimiter::Parenthesis;
                let [above, last] = before.each_ref().map(Option::as_deref);
                if is_call && last == Some("sleep") && above != Some("fn") {
                    return true;
                }
                if (above, last) != (Some("mod"), Some("tests")) && sleeps(group.stream()) {
                    return true;
                }
                None
            }
            TokenTree::Ident(word) => Some(word.to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => None,
        };
        before.rotate_left(1);
        before[1] = word;
    }
    false
}

struct Function {
    name: String,
    lines: usize,
}

fn is_unsafe(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "unsafe",
        TokenTree::Group(group) => is_unsafe(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// Adds the functions in `tokens`, those inside of others too.
fn measure(tokens: TokenStream, found: &mut Vec<Function>) {
    /// What was read of a function's head: `fn`, and its name.
    enum Head {
        None,
        Keyword(usize),
        Named(usize, String),
    }
    let mut head = Head::None;
    let mut is_tests = false;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        head = match (head, token) {
            (_, TokenTree::Ident(word)) if word == "fn" => Head::Keyword(word.span().start().line),
            (_, TokenTree::Ident(word)) if word == "mod" => {
                let next = tokens.peek();
                is_tests = matches!(next, Some(TokenTree::Ident(name)) if name == "tests");
                Head::None
            }
            (Head::Keyword(start), TokenTree::Ident(name)) => Head::Named(start, name.to_string()),
            // A declaration of a trait's.
            (Head::Named(..), TokenTree::Punct(mark)) if mark.as_char() == ';' => Head::None,
            (head, TokenTree::Group(group)) => {
                let is_body = group.delimiter() == Delimiter::Brace;
                if !(is_body && std::mem::take(&mut is_tests)) {
                    measure(group.stream(), found);
                }
                match head {
                    Head::Named(start, name) if is_body => {
                        let lines = group.span_close().end().line - start + 1;
                        found.push(Function { name, lines });
                        Head::None
                    }
                    // The parameters.
                    Head::Named(..) => head,
                    // The type of a pointer to a function.
                    Head::None | Head::Keyword(_) => Head::None,
                }
            }
            (Head::Keyword(_), _) => Head::None,
            (head, _) => head,
        };
    }
}

/// The tokens of the files below `folder`.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<(PathBuf, TokenStream)>> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let invalid =
                    |problem: String| io::Error::other(format!("{}: {problem}", path.display()));
                let text = fs::read_to_string(&path).map_err(|error| invalid(error.to_string()))?;
                let tokens = text.parse().map_err(|error| invalid(format!("{error}")))?;
                let inside = path.strip_prefix(folder).map_err(io::Error::other)?;
                found.push((inside.to_owned(), tokens));
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}
