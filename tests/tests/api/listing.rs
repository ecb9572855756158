//! What can be reached from outside of a crate, a line each.
//!
//! It is read from the syntax, with the crate's own macros expanded: what derives and the macros of
//! other crates generate is not seen, but for the names in `#[derive(…)]`. Types are written as they
//! are in the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::{Fields, ImplItem, Item, ItemImpl, ItemTrait, TraitItem, Type, UseTree};

use crate::{
    source::{Module, feature, is_for_tests, is_public},
    text::{attributes, marks, public_name, text},
};

/// The listing of a crate.
pub(crate) fn of(name: &str, lib: &Path) -> String {
    let krate = Module::read(lib);
    let mut listing = Listing {
        krate: &krate,
        lines: BTreeSet::new(),
        types: BTreeMap::new(),
    };
    let root = name.replace('-', "_");
    listing.module(&krate, &[], &root, None);
    listing.macros(&root);
    listing.implementations();
    listing.lines.into_iter().collect()
}

struct Listing<'a> {
    krate: &'a Module,
    lines: BTreeSet<String>,
    /// The types and traits by their own names: the modules that they are in, and where they are
    /// found from outside.
    types: BTreeMap<String, Vec<(Vec<String>, String)>>,
}

impl<'a> Listing<'a> {
    fn line(&mut self, path: &str, text: &str, feature: Option<&str>) {
        let feature = feature.map_or(String::new(), |name| format!(" [feature {name}]"));
        self.lines.insert(format!("{path}: {text}{feature}\n"));
    }

    /// All that a module offers, under its path from outside.
    fn module(&mut self, module: &'a Module, inner: &[String], path: &str, needs: Option<&str>) {
        for item in &module.items {
            if let Item::Use(item) = item {
                if is_public(&item.vis) && !is_for_tests(&item.attrs) {
                    let own = feature(&item.attrs);
                    let needs = own.as_deref().or(needs);
                    self.reexport(&item.tree, &mut Vec::new(), inner, path, needs);
                }
            } else if let Some(name) = public_name(item) {
                self.item(item, inner, &name, path, needs);
            }
        }
        for (name, child) in &module.modules {
            if child.public {
                let path = format!("{path}::{name}");
                let inner = [inner, std::slice::from_ref(name)].concat();
                let needs = child.feature.as_deref().or(needs);
                self.line(&path, "pub mod", needs);
                self.module(&child.module, &inner, &path, needs);
            }
        }
    }

    /// What `pub use` offers.
    fn reexport(
        &mut self,
        tree: &UseTree,
        prefix: &mut Vec<String>,
        inner: &[String],
        path: &str,
        needs: Option<&str>,
    ) {
        match tree {
            UseTree::Path(part) => {
                prefix.push(part.ident.to_string());
                self.reexport(&part.tree, prefix, inner, path, needs);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.reexport(tree, prefix, inner, path, needs);
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.named(&name, &name, prefix, inner, path, needs);
            }
            UseTree::Rename(renamed) => {
                let (name, as_name) = (renamed.ident.to_string(), renamed.rename.to_string());
                self.named(&name, &as_name, prefix, inner, path, needs);
            }
            UseTree::Glob(_) => {
                let target = absolute(prefix, inner);
                if let Some(module) = self.krate.find(&target) {
                    self.module(module, &target, path, needs);
                } else {
                    let text = format!("pub use {}::*", prefix.join("::"));
                    self.line(path, &text, needs);
                }
            }
        }
    }

    fn named(
        &mut self,
        name: &str,
        as_name: &str,
        prefix: &[String],
        inner: &[String],
        path: &str,
        needs: Option<&str>,
    ) {
        let target = absolute(prefix, inner);
        let found = self.krate.find(&target).and_then(|module| {
            let named = |item: &&Item| public_name(item).as_deref() == Some(name);
            Some((module, module.items.iter().find(named)?))
        });
        if let Some((_, item)) = found {
            self.item(item, &target, as_name, path, needs);
            return;
        }
        let module = [&target[..], &[name.to_owned()]].concat();
        if let Some(found) = self.krate.find(&module) {
            let path = format!("{path}::{as_name}");
            self.line(&path, "pub mod", needs);
            self.module(found, &module, &path, needs);
            return;
        }
        // It may be offered there by another `pub use`.
        let again = self
            .krate
            .find(&target)
            .into_iter()
            .flat_map(|module| &module.items);
        for item in again {
            if let Item::Use(item) = item
                && let Some(mut prefix) = leads_to(&item.tree, name)
            {
                let real = prefix.pop().unwrap_or_default();
                self.named(&real, as_name, &prefix, &target, path, needs);
                return;
            }
        }
        let from = [prefix, &[name.to_owned()]].concat().join("::");
        self.line(
            &format!("{path}::{as_name}"),
            &format!("pub use {from}"),
            needs,
        );
    }

    fn item(&mut self, item: &Item, inner: &[String], name: &str, path: &str, needs: Option<&str>) {
        let needs = feature(attributes(item)).or(needs.map(str::to_owned));
        let needs = needs.as_deref();
        let here = format!("{path}::{name}");
        match item {
            Item::Struct(item) => {
                let hidden = item.fields.iter().any(|field| !is_public(&field.vis));
                let shape = if hidden { " { .. }" } else { "" };
                let generics = text(&item.generics);
                let marks = marks(&item.attrs);
                self.line(
                    &here,
                    &format!("{marks}pub struct {name}{generics}{shape}"),
                    needs,
                );
                self.fields(&here, &item.fields, needs);
            }
            Item::Enum(item) => {
                let generics = text(&item.generics);
                let marks = marks(&item.attrs);
                self.line(&here, &format!("{marks}pub enum {name}{generics}"), needs);
                for variant in &item.variants {
                    let fields = variant.fields.iter().map(|field| {
                        let name = field.ident.as_ref().map(|name| format!("{name}: "));
                        format!("{}{}", name.unwrap_or_default(), text(&field.ty))
                    });
                    let fields = fields.collect::<Vec<_>>().join(", ");
                    let fields = match &variant.fields {
                        Fields::Named(_) => format!(" {{ {fields} }}"),
                        Fields::Unnamed(_) => format!("({fields})"),
                        Fields::Unit => String::new(),
                    };
                    self.line(&here, &format!("{}{fields}", variant.ident), needs);
                }
            }
            Item::Trait(item) => self.definition(item, &here, needs),
            Item::Fn(item) => self.line(&here, &format!("pub {}", text(&item.sig)), needs),
            Item::Const(item) => {
                self.line(&here, &format!("pub const: {}", text(&item.ty)), needs);
            }
            Item::Static(item) => {
                self.line(&here, &format!("pub static: {}", text(&item.ty)), needs);
            }
            Item::Type(item) => {
                let generics = text(&item.generics);
                self.line(
                    &here,
                    &format!("pub type {name}{generics} = {}", text(&item.ty)),
                    needs,
                );
            }
            other => panic!(
                "{here}: an item of a kind that is not listed: {}",
                text(other)
            ),
        }
        let own = public_name(item).expect("a public item");
        let places = self.types.entry(own).or_default();
        // The first path is the shortest: a module is walked before those in it.
        if !places.iter().any(|(module, _)| module == inner) {
            places.push((inner.to_vec(), here));
        }
    }

    fn fields(&mut self, path: &str, fields: &Fields, needs: Option<&str>) {
        for (number, field) in fields.iter().enumerate() {
            if is_public(&field.vis) {
                let name = field
                    .ident
                    .as_ref()
                    .map_or(number.to_string(), ToString::to_string);
                self.line(path, &format!("pub {name}: {}", text(&field.ty)), needs);
            }
        }
    }

    fn definition(&mut self, item: &ItemTrait, path: &str, needs: Option<&str>) {
        let parents = text(&item.supertraits);
        let parents = if parents.is_empty() {
            parents
        } else {
            format!(": {parents}")
        };
        let (name, generics) = (&item.ident, text(&item.generics));
        self.line(path, &format!("pub trait {name}{generics}{parents}"), needs);
        for inner in &item.items {
            let line = match inner {
                TraitItem::Fn(method) => {
                    let given = if method.default.is_some() {
                        " { .. }"
                    } else {
                        ""
                    };
                    format!("{}{given}", text(&method.sig))
                }
                other => text(other),
            };
            self.line(path, &line, needs);
        }
    }

    /// Macros are at the root, wherever they are defined.
    fn macros(&mut self, root: &str) {
        for (_, module) in self.krate.all() {
            for item in &module.items {
                if let Item::Macro(item) = item
                    && let Some(name) = &item.ident
                    && item.attrs.iter().any(|a| a.path().is_ident("macro_export"))
                {
                    self.line(&format!("{root}::{name}!"), "macro", None);
                }
            }
        }
    }

    /// What is implemented for the types that are listed.
    fn implementations(&mut self) {
        for (place, module) in self.krate.all() {
            for item in &module.items {
                if let Item::Impl(item) = item
                    && !is_for_tests(&item.attrs)
                {
                    self.implementation(item, &place);
                }
            }
        }
    }

    /// Where a type of this name is found from outside. Where there are several, an implementation
    /// is of the one that is nearest to it.
    fn nearest(&self, name: &str, place: &[String]) -> Option<String> {
        let places = self.types.get(name)?.iter().rev();
        let (_, path) = places.max_by_key(|(module, _)| common(module, place))?;
        Some(path.clone())
    }

    fn implementation(&mut self, item: &ItemImpl, place: &[String]) {
        let mut of = &*item.self_ty;
        while let Type::Reference(reference) = of {
            of = &reference.elem;
        }
        let Type::Path(of) = of else {
            return;
        };
        let Some(name) = of.path.segments.last().map(|part| part.ident.to_string()) else {
            return;
        };
        // `impl Trait for Arc<T>` belongs to the trait.
        let implemented = item
            .trait_
            .as_ref()
            .and_then(|(_, path, _)| path.segments.last());
        let implemented = implemented.map(|part| part.ident.to_string());
        // A trait that is not seen from outside.
        if let Some(implemented) = &implemented
            && self.nearest(implemented, place).is_none()
            && self.krate.defines(implemented)
        {
            return;
        }
        let path = match self.nearest(&name, place) {
            Some(path) => path,
            // Of a type that nobody sees.
            None if self.krate.defines(&name) => return,
            None => {
                let implemented = implemented.and_then(|name| self.nearest(&name, place));
                let Some(path) = implemented else {
                    return;
                };
                path
            }
        };
        let needs = feature(&item.attrs);
        if let Some((_, implemented, _)) = &item.trait_ {
            let types = item.items.iter().filter_map(|inner| match inner {
                ImplItem::Type(inner) => Some(text(inner)),
                _ => None,
            });
            let types: Vec<_> = types.collect();
            let types = match types.is_empty() {
                true => String::new(),
                false => format!(" {{ {} }}", types.join(" ")),
            };
            let header = format!(
                "impl{} {} for {}{}{types}",
                text(&item.generics),
                text(implemented),
                text(&item.self_ty),
                text(&item.generics.where_clause)
            );
            self.line(&path, &header, needs.as_deref());
            return;
        }
        for inner in &item.items {
            match inner {
                ImplItem::Fn(method) if is_public(&method.vis) && !is_for_tests(&method.attrs) => {
                    self.line(
                        &path,
                        &format!("pub {}", text(&method.sig)),
                        needs.as_deref(),
                    );
                }
                ImplItem::Const(constant) if is_public(&constant.vis) => {
                    let line = format!("pub const {}: {}", constant.ident, text(&constant.ty));
                    self.line(&path, &line, needs.as_deref());
                }
                _ => {}
            }
        }
    }
}

/// How many modules two paths have in common.
fn common(one: &[String], other: &[String]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// The path of a module from the root of the crate, as a `use` in `inner` names it.
fn absolute(prefix: &[String], inner: &[String]) -> Vec<String> {
    let mut path = inner.to_vec();
    for part in prefix {
        match part.as_str() {
            "crate" => path.clear(),
            "super" => drop(path.pop()),
            "self" => {}
            name => path.push(name.to_owned()),
        }
    }
    path
}

/// The path by which a `use` brings in a name, the real name last.
fn leads_to(tree: &UseTree, name: &str) -> Option<Vec<String>> {
    match tree {
        UseTree::Path(part) => {
            let mut path = leads_to(&part.tree, name)?;
            path.insert(0, part.ident.to_string());
            Some(path)
        }
        UseTree::Group(group) => group.items.iter().find_map(|tree| leads_to(tree, name)),
        UseTree::Name(found) => (found.ident == name).then(|| vec![name.to_owned()]),
        UseTree::Rename(found) => (found.rename == name).then(|| vec![found.ident.to_string()]),
        UseTree::Glob(_) => None,
    }
}
