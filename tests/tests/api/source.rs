//! The modules of a crate, as they are written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Item, ItemMod, Meta, Visibility};

use crate::expand::{self, Rule};

/// A module: its items, and the modules in it.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) items: Vec<Item>,
    pub(crate) modules: BTreeMap<String, Child>,
}

/// A module in another.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) public: bool,
    pub(crate) feature: Option<String>,
    pub(crate) module: Module,
}

impl Module {
    /// Reads a crate from its `lib.rs`.
    pub(crate) fn read(lib: &Path) -> Self {
        let folder = lib.parent().expect("a source folder");
        let mut krate = Self::parse(lib, folder);
        let macros = krate.macros();
        krate.expand(&macros);
        krate
    }

    /// The rules of all `macro_rules!`, by their names.
    fn macros(&self) -> BTreeMap<String, Vec<Vec<Rule>>> {
        let mut macros = BTreeMap::<_, Vec<_>>::new();
        for (_, module) in self.all() {
            for item in &module.items {
                if let Item::Macro(item) = item
                    && let Some(name) = &item.ident
                {
                    macros
                        .entry(name.to_string())
                        .or_default()
                        .push(expand::rules(item));
                }
            }
        }
        macros
    }

    /// Adds the items that invocations of these macros make. Of those of one name it is the first that
    /// takes what is said.
    fn expand(&mut self, macros: &BTreeMap<String, Vec<Vec<Rule>>>) {
        let invoked = |item: &Item| {
            let Item::Macro(item) = item else {
                return None;
            };
            let name = item.mac.path.get_ident()?.to_string();
            let named = macros.get(&name)?;
            named
                .iter()
                .find_map(|rules| expand::expand(rules, &item.mac.tokens))
        };
        let made: Vec<_> = self.items.iter().filter_map(invoked).flatten().collect();
        self.items.extend(made);
        for child in self.modules.values_mut() {
            child.module.expand(macros);
        }
    }

    fn parse(file: &Path, folder: &Path) -> Self {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self::of(parsed.items, folder)
    }

    fn of(items: Vec<Item>, folder: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for item in &items {
            if let Item::Mod(item) = item
                && !is_for_tests(&item.attrs)
            {
                modules.insert(item.ident.to_string(), Child::of(item, folder));
            }
        }
        Self { items, modules }
    }

    /// The module that a path leads to.
    pub(crate) fn find(&self, path: &[String]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |module, name| Some(&module.modules.get(name)?.module))
    }

    /// This module, and all in it, with their paths.
    pub(crate) fn all(&self) -> Vec<(Vec<String>, &Self)> {
        let inner = self.modules.iter().flat_map(|(name, child)| {
            child.module.all().into_iter().map(move |(path, module)| {
                let path = [std::slice::from_ref(name), &path].concat();
                (path, module)
            })
        });
        std::iter::once((Vec::new(), self)).chain(inner).collect()
    }

    /// Whether it, or a module in it, has a type or a trait of this name.
    pub(crate) fn defines(&self, name: &str) -> bool {
        let defined = |item: &Item| match item {
            Item::Struct(item) => item.ident == name,
            Item::Enum(item) => item.ident == name,
            Item::Trait(item) => item.ident == name,
            _ => false,
        };
        self.items.iter().any(defined)
            || self
                .modules
                .values()
                .any(|child| child.module.defines(name))
    }
}

impl Child {
    fn of(item: &ItemMod, folder: &Path) -> Self {
        let name = item.ident.to_string();
        let inner = folder.join(&name);
        let module = match &item.content {
            Some((_, items)) => Module::of(items.clone(), &inner),
            None => Module::parse(&file_of(folder, &name), &inner),
        };
        Self {
            public: is_public(&item.vis),
            feature: feature(&item.attrs),
            module,
        }
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    if file.exists() {
        file
    } else {
        folder.join(name).join("mod.rs")
    }
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The conditions of `#[cfg(…)]`.
fn conditions(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::List(list) if list.path.is_ident("cfg") => Some(list.tokens.to_string()),
            _ => None,
        })
}

/// Whether only tests see it.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    conditions(attributes).any(|condition| condition == "test" || condition.contains("doctest"))
}

/// The feature that it needs.
pub(crate) fn feature(attributes: &[Attribute]) -> Option<String> {
    conditions(attributes).find_map(|condition| {
        let rest = condition.strip_prefix("feature = \"")?;
        Some(rest.strip_suffix('"')?.to_owned())
    })
}
