//! Which file of a crate uses which, read from the tokens of its source.
//!
//! Tokens and not syntax trees: a path in the arguments of a macro is a use like any other, and a
//! path in a comment or a string is none. A path leads to the file that *defines* what it names. So
//! a module that declares and re-exports others is used by none of them, unless they use what it
//! defines itself.
//!
//! What it cannot see are methods and fields of types that are not named, and what a macro makes.

mod names;
mod tokens;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use self::{names::Modules, tokens::Scanner};

/// The files of one crate, and the uses among them.
#[derive(Debug, Default)]
pub struct Imports {
    /// The files, relative to the source folder.
    pub files: BTreeSet<PathBuf>,
    /// The uses, each once with the first line that has it.
    pub arrows: BTreeSet<Arrow>,
}

/// A use of something that another file defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    /// The file that uses it.
    pub from: PathBuf,
    /// The file that defines it.
    pub to: PathBuf,
    /// The line in `from`.
    pub line: usize,
    /// The path as it is written there.
    pub path: String,
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            line,
            path,
        } = self;
        write!(
            f,
            "{}:{line} uses {path} of {}",
            from.display(),
            to.display()
        )
    }
}

impl Imports {
    /// Reads the crates of a source folder: `lib.rs` and `main.rs`, whichever there are.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no Rust.
    pub fn read(source: &Path) -> io::Result<Self> {
        let mut imports = Self::default();
        for root in ["lib.rs", "main.rs"] {
            if source.join(root).exists() {
                let mut modules = Modules::default();
                read_module(&mut modules, None, source, Path::new(root))?;
                imports.add(&modules);
            }
        }
        Ok(imports)
    }

    fn add(&mut self, modules: &Modules) {
        let files = modules.all.iter().map(|module| module.file.clone());
        self.files.extend(files);
        for used in &modules.uses {
            let Some(to) = modules.definition(used.module, &used.path) else {
                continue;
            };
            let from = &modules.all[used.module].file;
            let known = |arrow: &Arrow| arrow.from == *from && arrow.to == to;
            if from != to && !self.arrows.iter().any(known) {
                self.arrows.insert(Arrow {
                    from: from.clone(),
                    to: to.to_owned(),
                    line: used.line,
                    path: used.path.join("::"),
                });
            }
        }
    }
}

/// Reads the module in `file`, and those that it declares; returns its number.
fn read_module(
    modules: &mut Modules,
    parent: Option<usize>,
    source: &Path,
    file: &Path,
) -> io::Result<usize> {
    let invalid =
        |problem: String| io::Error::other(format!("{}: {problem}", source.join(file).display()));
    let text = fs::read_to_string(source.join(file)).map_err(|error| invalid(error.to_string()))?;
    let tokens = tokens::parse(&text).map_err(|error| invalid(error.to_string()))?;
    let number = modules.add(parent, file);
    let declared = Scanner::new(modules).file(number, &tokens);
    for child in declared {
        // A file `a.rs` has its modules in `a`, a `mod.rs` and a crate's root beside it.
        let mut folder = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") | None => file.with_file_name(""),
            Some(_) => file.with_extension(""),
        };
        folder.extend(&child.inline);
        let beside = folder.join(format!("{}.rs", child.name));
        let inside = folder.join(&child.name).join("mod.rs");
        let found = [beside, inside]
            .into_iter()
            .find(|path| source.join(path).exists())
            .ok_or_else(|| invalid(format!("no file of its module {}", child.name)))?;
        let module = read_module(modules, Some(child.parent), source, &found)?;
        modules.declare(child.parent, child.name, module);
    }
    Ok(number)
}
