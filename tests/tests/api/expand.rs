//! Items that the crate's own `macro_rules!` make of an invocation.
//!
//! It is as much of macros by example as the crates use: fragments, groups, repetitions of one level
//! in another, and `$crate`. What it cannot expand stays unseen, as the macros of other crates do.

use std::collections::BTreeMap;

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Expr, Item, ItemMacro, Meta, Type,
    parse::{Parse, ParseStream, Parser as _},
};

/// A rule of a macro: what it takes, and what becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pattern: Vec<TokenTree>,
    template: Vec<TokenTree>,
}

/// What a name of a pattern was found to be.
#[derive(Debug, Clone)]
enum Bound {
    One(TokenStream),
    Many(Vec<Bound>),
}

type Bindings = BTreeMap<String, Bound>;

/// The rules of a `macro_rules!`.
pub(crate) fn rules(definition: &ItemMacro) -> Vec<Rule> {
    let tokens: Vec<_> = definition.mac.tokens.clone().into_iter().collect();
    let groups = tokens.into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(group.stream().into_iter().collect()),
        _ => None,
    });
    let groups: Vec<Vec<_>> = groups.collect();
    let rule = |pair: &[Vec<TokenTree>]| Rule {
        pattern: pair[0].clone(),
        template: pair[1].clone(),
    };
    groups.chunks_exact(2).map(rule).collect()
}

/// The items that the first rule that matches makes of `tokens`.
pub(crate) fn expand(rules: &[Rule], tokens: &TokenStream) -> Option<Vec<Item>> {
    let input: Vec<_> = tokens.clone().into_iter().collect();
    rules.iter().find_map(|rule| {
        let mut bindings = Bindings::new();
        let used = matched(&rule.pattern, &input, &mut bindings)?;
        if used != input.len() {
            return None;
        }
        let expanded = transcribe(&rule.template, &bindings);
        syn::parse2::<syn::File>(expanded)
            .ok()
            .map(|file| file.items)
    })
}

/// A part of a pattern or of a template that begins with `$`.
enum Dollar<'a> {
    /// `$name:kind`, in a pattern.
    Fragment(String, String),
    /// `$name`, in a template.
    Name(String),
    /// `$(…)`, what is between two, and whether it may be absent or occur once only.
    Repeated(&'a Group, Option<TokenTree>, char),
}

/// What `tokens` begins with after its `$`, and how many tokens it has with that.
fn dollar(tokens: &[TokenTree]) -> Option<(Dollar<'_>, usize)> {
    let is = |token: Option<&TokenTree>, wanted: &str| matches!(token, Some(TokenTree::Punct(punct)) if wanted.contains(punct.as_char()));
    if !is(tokens.first(), "$") {
        return None;
    }
    match tokens.get(1)? {
        TokenTree::Group(group) => {
            let separated = !is(tokens.get(2), "*+?");
            let separator = separated.then(|| tokens.get(2).cloned()).flatten();
            let at = 2 + usize::from(separated);
            let TokenTree::Punct(operator) = tokens.get(at)? else {
                return None;
            };
            Some((
                Dollar::Repeated(group, separator, operator.as_char()),
                at + 1,
            ))
        }
        TokenTree::Ident(name) => {
            if is(tokens.get(2), ":")
                && let Some(TokenTree::Ident(kind)) = tokens.get(3)
            {
                return Some((Dollar::Fragment(name.to_string(), kind.to_string()), 4));
            }
            Some((Dollar::Name(name.to_string()), 2))
        }
        _ => None,
    }
}

/// How many tokens of `input` match the whole of `pattern`.
fn matched(pattern: &[TokenTree], input: &[TokenTree], bindings: &mut Bindings) -> Option<usize> {
    let (mut at, mut used) = (0, 0);
    while let Some(token) = pattern.get(at) {
        let rest = &input[used..];
        match dollar(&pattern[at..]) {
            Some((Dollar::Fragment(name, kind), length)) => {
                let (found, count) = fragment(&kind, rest)?;
                bindings.insert(name, Bound::One(found));
                used += count;
                at += length;
            }
            Some((Dollar::Repeated(group, separator, operator), length)) => {
                let most = if operator == '?' { 1 } else { usize::MAX };
                used += repeated(group, separator.as_ref(), most, rest, bindings);
                at += length;
            }
            Some((Dollar::Name(_), _)) => return None,
            None => {
                match (token, rest.first()?) {
                    (TokenTree::Group(one), TokenTree::Group(other)) => {
                        let inner: Vec<_> = other.stream().into_iter().collect();
                        let wanted: Vec<_> = one.stream().into_iter().collect();
                        let same = one.delimiter() == other.delimiter();
                        let all = matched(&wanted, &inner, bindings)? == inner.len();
                        if !same || !all {
                            return None;
                        }
                    }
                    (one, other) if one.to_string() == other.to_string() => {}
                    _ => return None,
                }
                used += 1;
                at += 1;
            }
        }
    }
    Some(used)
}

/// How many tokens of `input` a repetition takes.
fn repeated(
    group: &Group,
    separator: Option<&TokenTree>,
    most: usize,
    input: &[TokenTree],
    bindings: &mut Bindings,
) -> usize {
    let pattern: Vec<_> = group.stream().into_iter().collect();
    let mut found: BTreeMap<String, Vec<Bound>> = names(&pattern)
        .into_iter()
        .map(|name| (name, Vec::new()))
        .collect();
    let (mut used, mut count) = (0, 0);
    while count < most && used < input.len() {
        let mut at = used;
        if let Some(separator) = separator.filter(|_| count > 0) {
            if input[at].to_string() != separator.to_string() {
                break;
            }
            at += 1;
        }
        let mut inner = Bindings::new();
        let Some(taken) = matched(&pattern, &input[at..], &mut inner).filter(|taken| *taken > 0)
        else {
            break;
        };
        for (name, bound) in inner {
            found.entry(name).or_default().push(bound);
        }
        used = at + taken;
        count += 1;
    }
    bindings.extend(
        found
            .into_iter()
            .map(|(name, all)| (name, Bound::Many(all))),
    );
    used
}

/// The names that a pattern or a template has.
fn names(tokens: &[TokenTree]) -> Vec<String> {
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match (token, dollar(&tokens[at..])) {
            (_, Some((Dollar::Fragment(name, _) | Dollar::Name(name), _))) => names.push(name),
            (TokenTree::Group(group), _) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                names.extend(self::names(&inner));
            }
            _ => {}
        }
    }
    names
}

/// What a fragment of this kind takes of `input`.
fn fragment(kind: &str, input: &[TokenTree]) -> Option<(TokenStream, usize)> {
    let first = input.first()?;
    let one = || Some((first.to_token_stream(), 1));
    match (kind, first) {
        ("ident", TokenTree::Ident(_)) | ("literal", TokenTree::Literal(_)) | ("tt", _) => one(),
        ("ty", _) => parsed::<Type>(input),
        ("expr", _) => parsed::<Expr>(input),
        ("meta", _) => parsed::<Meta>(input),
        _ => None,
    }
}

/// What a `T` takes of `input`.
fn parsed<T: Parse + ToTokens>(input: &[TokenTree]) -> Option<(TokenStream, usize)> {
    let parser = |stream: ParseStream<'_>| {
        let found = stream.parse::<T>()?.into_token_stream();
        let rest: TokenStream = stream.parse()?;
        Ok((found, rest.into_iter().count()))
    };
    let (found, rest) = parser.parse2(input.iter().cloned().collect()).ok()?;
    Some((found, input.len() - rest))
}

fn transcribe(template: &[TokenTree], bindings: &Bindings) -> TokenStream {
    let mut out = TokenStream::new();
    let mut at = 0;
    while let Some(token) = template.get(at) {
        match dollar(&template[at..]) {
            Some((Dollar::Name(name), length)) => {
                match bindings.get(&name) {
                    Some(Bound::One(tokens)) => out.extend(tokens.clone()),
                    // `$crate`, and what was repeated and is not here.
                    _ => out.extend([TokenTree::Ident(Ident::new(&name, Span::call_site()))]),
                }
                at += length;
            }
            // `$name:` in a template, before a type for example.
            Some((Dollar::Fragment(name, _), _)) => {
                if let Some(Bound::One(tokens)) = bindings.get(&name) {
                    out.extend(tokens.clone());
                }
                at += 2;
            }
            Some((Dollar::Repeated(group, separator, _), length)) => {
                out.extend(transcribe_repeated(group, separator, bindings));
                at += length;
            }
            None => {
                match token {
                    TokenTree::Group(group) => {
                        let inner: Vec<_> = group.stream().into_iter().collect();
                        let inner = transcribe(&inner, bindings);
                        out.extend([TokenTree::Group(Group::new(group.delimiter(), inner))]);
                    }
                    other => out.extend([other.clone()]),
                }
                at += 1;
            }
        }
    }
    out
}

fn transcribe_repeated(
    group: &Group,
    separator: Option<TokenTree>,
    bindings: &Bindings,
) -> TokenStream {
    let template: Vec<_> = group.stream().into_iter().collect();
    let used = names(&template);
    let times = used.iter().filter_map(|name| match bindings.get(name) {
        Some(Bound::Many(all)) => Some(all.len()),
        _ => None,
    });
    let mut out = TokenStream::new();
    for turn in 0..times.max().unwrap_or(0) {
        let mut inner = bindings.clone();
        for name in &used {
            if let Some(Bound::Many(all)) = bindings.get(name)
                && let Some(bound) = all.get(turn)
            {
                inner.insert(name.clone(), bound.clone());
            }
        }
        if turn > 0 {
            out.extend(separator.clone());
        }
        out.extend(transcribe(&template, &inner));
    }
    out
}

#[test]
fn macros_are_expanded_with_their_repetitions() {
    let definition: ItemMacro = syn::parse_quote! {
        macro_rules! words {
            ($(#[$doc:meta])* $type:ident { $($variant:ident = $name:literal,)* }) => {
                $(#[$doc])*
                pub enum $type { $($variant,)* }
                impl From<$type> for $crate::Text { }
            };
            ($($pointer:ty),+) => { $(impl<T: ?Sized> Store for $pointer {})+ };
        }
    };
    let rules = rules(&definition);
    let expanded = |text: &str| {
        let items = expand(&rules, &text.parse().expect("tokens"))?;
        let text = |item: &Item| crate::text::text(item);
        Some(items.iter().map(text).collect::<Vec<_>>())
    };
    let words = expanded("/// Doc.\n Class { One = \"1\", Two = \"2\", }").expect("a rule");
    assert!(
        words[0].ends_with("pub enum Class { One, Two, }"),
        "{words:?}"
    );
    assert_eq!(words[1], "impl From<Class> for crate::Text { }");
    let pointers = expanded("&T, Box<T>").expect("a rule");
    assert_eq!(pointers.len(), 2, "{pointers:?}");
    assert_eq!(expanded("1 + 1"), None);
}
