//! Imports go down.
//!
//! A crate that is one large circle cannot be read in parts, tested in parts or changed in parts.
//! So the modules of each crate lie on floors, [`CRATES`] says on which, and:
//!
//! * a module uses only what modules on lower floors define. Two modules on one floor do not use
//!   each other;
//! * a folder's own file (`lib.rs`, `main.rs`, `mod.rs`, or `a.rs` of the folder `a`) is above its
//!   modules: it declares and re-exports them, and none of them uses what it defines itself;
//! * no more than [`LARGEST_CIRCLE`] files use each other in a circle, whatever folder they are in.
//!
//! Tests in `src` obey the same rules. [`Imports`] says what counts as a use.

mod imports;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

pub use self::{
    imports::{Arrow, Imports},
    table::{CRATES, Crate, Floors},
};

/// So many files may use each other: a type and its helpers.
pub const LARGEST_CIRCLE: usize = 4;

/// What is wrong with the imports of a crate.
pub fn check(imports: &Imports, rules: &Crate) -> Vec<String> {
    let mut wrong = check_folder(imports, Path::new(""), rules.floors);
    for (folder, floors) in rules.folders {
        wrong.extend(check_folder(imports, Path::new(folder), floors));
    }
    for circle in circles(imports) {
        let files = circle.iter().map(|file| file.display().to_string());
        let files = files.collect::<Vec<_>>().join(", ");
        let arrows = imports.arrows.iter();
        let inside =
            arrows.filter(|arrow| circle.contains(&arrow.from) && circle.contains(&arrow.to));
        let arrows = inside
            .map(|arrow| format!("\n    {arrow}"))
            .collect::<String>();
        wrong.push(format!(
            "{} files are a circle: {files}{arrows}",
            circle.len()
        ));
    }
    wrong
}

/// What is wrong between the modules of the folder `folder`.
fn check_folder(imports: &Imports, folder: &Path, floors: Floors) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut floor_of = BTreeMap::new();
    for (floor, modules) in floors.iter().enumerate() {
        for module in *modules {
            if floor_of.insert((*module).to_owned(), floor).is_some() {
                wrong.push(format!("{module} is on two floors"));
            }
        }
    }
    let files = imports.files.iter();
    let modules: BTreeSet<_> = files.filter_map(|file| module_of(file, folder)).collect();
    let place = |module: &str| folder.join(module).display().to_string();
    for module in floor_of.keys().filter(|module| !modules.contains(*module)) {
        wrong.push(format!(
            "{} is on a floor and does not exist",
            place(module)
        ));
    }
    for module in modules
        .iter()
        .filter(|module| !floor_of.contains_key(*module))
    {
        wrong.push(format!(
            "{} is on no floor: put it on one in tests/src/floors/table.rs",
            place(module)
        ));
    }
    for arrow in &imports.arrows {
        let Some(from) = module_of(&arrow.from, folder) else {
            continue;
        };
        let direction = match module_of(&arrow.to, folder) {
            Some(to) if to == from => continue,
            Some(to) => match (floor_of.get(&from), floor_of.get(&to)) {
                (Some(from), Some(to)) if from < to => "up",
                (Some(from), Some(to)) if from == to => "sideways",
                _ => continue,
            },
            None if is_roof(&arrow.to, folder) => "up",
            None => continue,
        };
        wrong.push(format!("{direction}: {arrow}"));
    }
    wrong
}

/// The module of `folder` that `file` belongs to.
fn module_of(file: &Path, folder: &Path) -> Option<String> {
    let inside = file.strip_prefix(folder).ok()?;
    let first = Path::new(inside.components().next()?.as_os_str());
    let name = match first.extension() {
        Some(_) => first.file_stem()?,
        None => first.as_os_str(),
    };
    let name = name.to_str()?;
    let is_own = first == inside && ["lib", "main", "mod"].contains(&name);
    // The tests of what declares the modules, which are above them as it is.
    let are_tests = name == "tests";
    (!is_own && !are_tests).then(|| name.to_owned())
}

/// Whether `file` is the one that declares the modules of `folder`.
fn is_roof(file: &Path, folder: &Path) -> bool {
    let own = ["lib.rs", "main.rs", "mod.rs"];
    own.iter().any(|name| *file == folder.join(name)) || *file == folder.with_extension("rs")
}

/// The sets of more than [`LARGEST_CIRCLE`] files of which each uses each other, directly or not.
fn circles(imports: &Imports) -> Vec<BTreeSet<PathBuf>> {
    let mut next: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for arrow in &imports.arrows {
        next.entry(&arrow.from).or_default().push(&arrow.to);
    }
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = next
        .keys()
        .map(|&file| (file, reachable(file, &next)))
        .collect();
    let mut found = Vec::new();
    let mut placed = BTreeSet::new();
    for (&file, all) in &reached {
        let returns = |other: &&&Path| {
            let back = reached.get(**other);
            back.is_some_and(|back| back.contains(file))
        };
        let circle: BTreeSet<&Path> = all.iter().filter(returns).copied().collect();
        if circle.len() > LARGEST_CIRCLE && placed.insert(circle.clone()) {
            found.push(circle.into_iter().map(Path::to_owned).collect());
        }
    }
    found
}

/// The files that `from` uses, directly or not.
fn reachable<'a>(from: &Path, next: &BTreeMap<&'a Path, Vec<&'a Path>>) -> BTreeSet<&'a Path> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<&Path> = vec![from];
    while let Some(file) = todo.pop() {
        for &used in next.get(file).into_iter().flatten() {
            if found.insert(used) {
                todo.push(used);
            }
        }
    }
    found
}
