//! What a file declares, defines and uses.

use proc_macro2::{Delimiter, LexError, TokenStream, TokenTree};

use super::names::{Modules, Use};

/// The words behind which something gets its name.
const ITEMS: [&str; 8] = [
    "struct", "enum", "union", "trait", "fn", "type", "const", "static",
];

/// The tokens of a file.
pub(super) fn parse(text: &str) -> Result<Vec<TokenTree>, LexError> {
    Ok(text.parse::<TokenStream>()?.into_iter().collect())
}

/// A module that is in a file of its own.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) parent: usize,
    /// The modules with a body that the declaration is in.
    pub(super) inline: Vec<String>,
}

/// Notes down what tokens say, in the modules.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    modules: &'a mut Modules,
    inline: Vec<String>,
    declared: Vec<Declared>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(modules: &'a mut Modules) -> Self {
        Self {
            modules,
            inline: Vec::new(),
            declared: Vec::new(),
        }
    }

    /// Scans a file, which is the module `module`; returns what it declares.
    pub(super) fn file(mut self, module: usize, tokens: &[TokenTree]) -> Vec<Declared> {
        self.scan(module, tokens, true);
        self.declared
    }

    /// Scans tokens in `module`; those at its `top` make its names.
    fn scan(&mut self, module: usize, tokens: &[TokenTree], top: bool) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += match token {
                TokenTree::Group(_) if is_visibility(tokens, at) => 1,
                TokenTree::Group(group) => {
                    self.scan(module, &inside(group.stream()), false);
                    1
                }
                TokenTree::Ident(word) => self.word(module, tokens, at, &word.to_string(), top),
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
            };
        }
    }

    /// Scans from the word at `at` on; returns how many tokens it was.
    fn word(
        &mut self,
        module: usize,
        tokens: &[TokenTree],
        at: usize,
        word: &str,
        top: bool,
    ) -> usize {
        let next = tokens.get(at + 1);
        match (word, ident(next)) {
            ("mod", Some(name)) => self.module(module, name, tokens.get(at + 2)),
            // Not the `use<…>` of a type.
            ("use", _) if !is_punct(next, '<') => 1 + self.import(module, &tokens[at + 1..]),
            ("macro_rules", None) => {
                if let Some(name) = ident(tokens.get(at + 2)) {
                    self.modules.define_macro(module, name);
                }
                3
            }
            (item, Some(name)) if top && ITEMS.contains(&item) => {
                self.modules.define(module, name);
                // The name is looked at again, for it is one of these words in `const fn`.
                1
            }
            _ => self.path(module, tokens, at),
        }
    }

    fn module(&mut self, parent: usize, name: String, body: Option<&TokenTree>) -> usize {
        match body {
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
                let file = self.modules.all[parent].file.clone();
                let module = self.modules.add(Some(parent), &file);
                self.modules.declare(parent, name.clone(), module);
                self.inline.push(name);
                self.scan(module, &inside(body.stream()), true);
                self.inline.pop();
                3
            }
            Some(TokenTree::Punct(end)) if end.as_char() == ';' => {
                self.declared.push(Declared {
                    name,
                    parent,
                    inline: self.inline.clone(),
                });
                3
            }
            _ => 1,
        }
    }

    /// Scans what follows a `use`, up to its semicolon; returns how many tokens it was.
    fn import(&mut self, module: usize, tokens: &[TokenTree]) -> usize {
        let is_end = |token: &TokenTree| is_punct(Some(token), ';');
        let end = tokens.iter().position(is_end).unwrap_or(tokens.len());
        self.tree(module, &[], &tokens[..end]);
        end
    }

    /// Scans `a::{b, c as d, e::*}`, below `prefix`.
    fn tree(&mut self, module: usize, prefix: &[String], tokens: &[TokenTree]) {
        for tokens in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut path = prefix.to_vec();
            let mut name = None;
            for (at, token) in tokens.iter().enumerate() {
                match token {
                    TokenTree::Group(group) => {
                        self.tree(module, &path, &inside(group.stream()));
                        path.clear();
                    }
                    TokenTree::Ident(word) if *word == "as" => {
                        name = ident(tokens.get(at + 1));
                        break;
                    }
                    // `a::{self, b}`.
                    TokenTree::Ident(word) if *word == "self" && !path.is_empty() => {}
                    TokenTree::Ident(word) => path.push(word.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".to_owned()),
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            let (Some(last), Some(first)) = (path.last().cloned(), tokens.first()) else {
                continue;
            };
            self.used(module, &path, first);
            if last == "*" {
                path.pop();
                self.modules.import_all(module, path);
            } else {
                self.modules.import(module, name.unwrap_or(last), path);
            }
        }
    }

    /// Scans a path that begins at `at`; returns how many tokens it was.
    fn path(&mut self, module: usize, tokens: &[TokenTree], at: usize) -> usize {
        let mut path = Vec::new();
        let mut end = at;
        while let Some(word) = ident(tokens.get(end)) {
            path.push(word);
            end += 1;
            if !is_colons(tokens, end) || ident(tokens.get(end + 2)).is_none() {
                break;
            }
            end += 2;
        }
        // What follows a type in brackets, and fields and methods.
        let is_rest = at >= 2 && is_colons(tokens, at - 2);
        let is_field = at >= 1 && is_punct(tokens.get(at - 1), '.');
        if path.len() > 1 && !is_rest && !is_field {
            self.used(module, &path, &tokens[at]);
        }
        end - at
    }

    fn used(&mut self, module: usize, path: &[String], token: &TokenTree) {
        self.modules.uses.push(Use {
            module,
            path: path.to_vec(),
            line: token.span().start().line,
        });
    }
}

/// Whether the group at `at` belongs to a `pub`: what it names is not used.
fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    let (Some(TokenTree::Group(group)), Some(before)) = (tokens.get(at), at.checked_sub(1)) else {
        return false;
    };
    let first = ident(inside(group.stream()).first());
    ident(tokens.get(before)).is_some_and(|word| word == "pub")
        && group.delimiter() == Delimiter::Parenthesis
        && first.is_some_and(|word| ["crate", "super", "self", "in"].contains(&&*word))
}

fn inside(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: Option<&TokenTree>, expected: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}
