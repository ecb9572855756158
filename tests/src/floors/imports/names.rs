//! What a path names.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) all: Vec<Module>,
    pub(super) uses: Vec<Use>,
    /// The macros, with their modules: an exported one is found at the root, wherever it is.
    macros: HashMap<String, usize>,
}

/// A module: a file, or a `mod` with a body in one.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    defined: HashSet<String>,
    /// The names that `use` brings in, with what they stand for.
    imported: HashMap<String, Vec<String>>,
    /// The modules of which `use` brings in all.
    globs: Vec<Vec<String>>,
}

/// A path, and where it is written.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) module: usize,
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
}

/// The names that were looked up on the way: `use` can lead in a circle.
type Seen = HashSet<(usize, String)>;

impl Modules {
    pub(super) fn add(&mut self, parent: Option<usize>, file: &Path) -> usize {
        self.all.push(Module {
            file: file.to_owned(),
            parent,
            children: HashMap::new(),
            defined: HashSet::new(),
            imported: HashMap::new(),
            globs: Vec::new(),
        });
        self.all.len() - 1
    }

    pub(super) fn declare(&mut self, parent: usize, name: String, child: usize) {
        self.all[parent].children.insert(name, child);
    }

    pub(super) fn define(&mut self, module: usize, name: String) {
        self.all[module].defined.insert(name);
    }

    pub(super) fn define_macro(&mut self, module: usize, name: String) {
        self.macros.insert(name, module);
    }

    /// The first one counts, should functions have others of the same name.
    pub(super) fn import(&mut self, module: usize, name: String, path: Vec<String>) {
        self.all[module].imported.entry(name).or_insert(path);
    }

    pub(super) fn import_all(&mut self, module: usize, path: Vec<String>) {
        self.all[module].globs.push(path);
    }

    /// The file that defines what `path` names in `module`. None for what other crates define, and
    /// for a module as such: what is then used of it has a path as well.
    pub(super) fn definition(&self, module: usize, path: &[String]) -> Option<&Path> {
        let all_of = match path.split_last() {
            Some((last, rest)) if last == "*" => Some(rest),
            _ => None,
        };
        let found = self.resolve(module, all_of.unwrap_or(path), &mut Seen::new())?;
        match found {
            Found::Module(_) if all_of.is_none() => None,
            Found::Module(found) | Found::Item(found) => Some(&self.all[found].file),
        }
    }

    fn resolve(&self, module: usize, path: &[String], seen: &mut Seen) -> Option<Found> {
        let (first, mut rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(0),
            "self" => Found::Module(module),
            "super" => Found::Module(self.all[module].parent?),
            name => self.lookup(module, name, seen)?,
        };
        while let (Found::Module(at), Some((name, after))) = (found, rest.split_first()) {
            found = match name.as_str() {
                "super" => Found::Module(self.all[at].parent?),
                // What a macro makes is where the macro is called.
                name => self.lookup(at, name, seen).unwrap_or(Found::Item(at)),
            };
            rest = after;
        }
        Some(found)
    }

    /// What `name` is in `module`.
    fn lookup(&self, module: usize, name: &str, seen: &mut Seen) -> Option<Found> {
        let here = &self.all[module];
        if let Some(&child) = here.children.get(name) {
            return Some(Found::Module(child));
        }
        if here.defined.contains(name) {
            return Some(Found::Item(module));
        }
        if !seen.insert((module, name.to_owned())) {
            return None;
        }
        if let Some(path) = here.imported.get(name) {
            return self.resolve(module, path, seen);
        }
        let globbed = here.globs.iter().find_map(|path| {
            match self.resolve(module, path, seen)? {
                Found::Module(all_of) => self.lookup(all_of, name, seen),
                // The variants of an enum.
                Found::Item(_) => None,
            }
        });
        let exported = self.macros.get(name).filter(|_| module == 0);
        globbed.or_else(|| exported.map(|&module| Found::Item(module)))
    }
}
