//! Imports go down, in every crate and between them; and imports that don't are found. `unsafe` is in one file of a
//! crate, functions are short, and sleeps have a reason.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use reaper_tests::{
    floors::{CRATES, Crate, Floors, Imports, check},
    paths::{BY_PATH, files_by_path},
    source::{LONGEST_FUNCTION, long_functions, sleeping_files, unsafe_files},
};

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the workspace").to_owned()
}

fn imports(name: &str) -> Imports {
    Imports::read(&root().join(name).join("src")).expect("read the source")
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for rules in CRATES
        .iter()
        .copied()
        .flatten()
        .filter(|rules| rules.enforced)
    {
        let found = check(&imports(rules.name), rules);
        wrong.extend(
            found
                .into_iter()
                .map(|line| format!("{}: {line}", rules.name)),
        );
    }
    assert!(
        wrong.is_empty(),
        "imports that do not go down (CONTRIBUTING.md says how to read and mend this):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn unenforced_crate_still_has_wrong_imports() {
    for rules in CRATES
        .iter()
        .copied()
        .flatten()
        .filter(|rules| !rules.enforced)
    {
        let wrong = check(&imports(rules.name), rules);
        assert!(
            !wrong.is_empty(),
            "{} has no wrong import any more: set `enforced: true` in tests/src/floors/table.rs",
            rules.name
        );
    }
}

#[test]
fn crates_depend_on_lower_floors() {
    let names = |crates: &[Crate]| crates.iter().map(|rules| rules.name).collect::<Vec<_>>();
    let mut lower: Vec<&str> = Vec::new();
    for floor in CRATES {
        for name in names(floor) {
            let manifest = fs::read_to_string(root().join(name).join("Cargo.toml"));
            let manifest: toml::Table = manifest.expect("read a manifest").parse().expect(name);
            let used = manifest["dependencies"].as_table().expect(name).keys();
            for used in used.filter(|used| used.starts_with("reaper-")) {
                assert!(lower.contains(&used.as_str()), "{name} depends on {used}");
            }
        }
        lower.extend(names(floor));
    }
    let mut members = fs::read_dir(root())
        .expect("list the workspace")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.starts_with("reaper-"));
    assert!(
        members.all(|name| lower.contains(&name.as_str())),
        "{lower:?}"
    );
}

/// A source folder of the files in `tree`, and what is wrong with it under `floors`.
fn wrong(tree: &[(&str, &str)], floors: Floors) -> Vec<String> {
    wrong_in(tree, floors, &[])
}

fn wrong_in(
    tree: &[(&str, &str)],
    floors: Floors,
    folders: &'static [(&'static str, Floors)],
) -> Vec<String> {
    let source = source(tree);
    let rules = Crate {
        name: "made-up",
        enforced: true,
        floors,
        folders,
    };
    check(
        &Imports::read(source.path()).expect("read the source"),
        &rules,
    )
}

fn source(tree: &[(&str, &str)]) -> tempfile::TempDir {
    let source = tempfile::tempdir().expect("make a folder");
    for (file, text) in tree {
        let path = source.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).expect("write a file");
    }
    source
}

const TWO: Floors = &[&["low"], &["high", "other"]];
const LIB: &str = "mod low; mod high; mod other; pub use high::High; pub use low::*;";
const LOW: &str = "pub struct Low; pub fn low() {}";
const HIGH: &str = "use crate::low::Low; pub struct High(Low); pub fn high() {}";
const OTHER: &str = "pub struct Other;";

/// The tree of two floors in which `file` has `text`.
fn two_floors(file: &str, text: &str) -> Vec<String> {
    let mut tree = BTreeMap::from([
        ("lib.rs", LIB),
        ("low.rs", LOW),
        ("high.rs", HIGH),
        ("other.rs", OTHER),
    ]);
    tree.insert(file, text);
    wrong(&tree.into_iter().collect::<Vec<_>>(), TWO)
}

#[test]
fn imports_that_go_down_are_right() {
    assert_eq!(two_floors("low.rs", LOW), Vec::<String>::new());
    // What the root re-exports is used of the file that defines it.
    assert_eq!(
        two_floors("high.rs", "use crate::Low; pub struct High;"),
        Vec::<String>::new()
    );
    for text in [
        "// use crate::high::High;\npub struct Low;",
        "/// [`High`](crate::high::High)\npub struct Low;",
        "pub const TEXT: &str = \"use crate::high::High;\";",
        "pub(crate) struct Low; pub(super) struct Two; mod inner { pub(in crate::low) struct Three; }",
        "use std::high::High;",
        "fn f(x: X) { x.high::<u8>(); x.high.other() }",
        "mod high { pub fn f() {} } fn f() { high::f(); self::high::f() }",
    ] {
        assert_eq!(two_floors("low.rs", text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn an_import_that_goes_up_is_found_however_it_is_written() {
    for (text, path, line) in [
        ("use crate::high::High;", "crate::high::High", 1),
        ("use super::high::High;", "super::high::High", 1),
        (
            "use crate::{low::x, high::{self, High}};",
            "crate::high::High",
            1,
        ),
        ("use crate::high::{High as Tall};", "crate::high::High", 1),
        ("use crate::high::*;", "crate::high::*", 1),
        // By a re-export of the root's.
        ("use crate::High;", "crate::High", 1),
        ("\n\nfn f() { crate::high::high() }", "crate::high::high", 3),
        ("use crate::high;\nfn f() { high::high() }", "high::high", 2),
        (
            "use crate::high as tall;\nfn f() { tall::high() }",
            "tall::high",
            2,
        ),
        (
            "fn f() { let _: Vec<super::high::High>; }",
            "super::high::High",
            1,
        ),
        (
            "fn f() { <crate::high::High as X>::f() }",
            "crate::high::High",
            1,
        ),
        (
            "fn f() { println!(\"{}\", crate::high::high()) }",
            "crate::high::high",
            1,
        ),
        (
            "macro_rules! m { () => { $crate::high::high() } }",
            "crate::high::high",
            1,
        ),
        (
            "mod inner { use super::super::high::High; }",
            "super::super::high::High",
            1,
        ),
        (
            "#[cfg(test)] mod tests { use crate::high::High; }",
            "crate::high::High",
            1,
        ),
        (
            "pub struct Low(pub crate::high::High);",
            "crate::high::High",
            1,
        ),
        ("fn f() { use crate::high::High; }", "crate::high::High", 1),
    ] {
        let expected = format!("up: low.rs:{line} uses {path} of high.rs");
        assert_eq!(two_floors("low.rs", text), [expected], "{text}");
    }
}

#[test]
fn an_import_that_goes_sideways_is_found() {
    let text = "pub struct High; fn f() { super::other::Other; }";
    let expected = "sideways: high.rs:1 uses super::other::Other of other.rs";
    assert_eq!(two_floors("high.rs", text), [expected]);
}

#[test]
fn items_of_crate_root_are_above_all_floors() {
    let lib = &format!("{LIB} pub struct Own;");
    let tree = [
        ("lib.rs", lib.as_str()),
        ("low.rs", "use crate::Own;"),
        ("high.rs", "pub struct High;"),
        ("other.rs", OTHER),
    ];
    assert_eq!(
        wrong(&tree, TWO),
        ["up: low.rs:1 uses crate::Own of lib.rs"]
    );
}

#[test]
fn folders_are_read_with_all_their_files() {
    let tree = [
        ("lib.rs", "mod low; mod high; mod other;"),
        ("low/mod.rs", "mod deep; mod inline { mod file; }"),
        ("low/deep.rs", "mod deeper; use crate::high::High;"),
        (
            "low/deep/deeper.rs",
            "use crate::{other::Other, low::inline};",
        ),
        ("low/inline/file.rs", "use crate::high::High;"),
        ("high.rs", "mod inner; pub use inner::High;"),
        ("high/inner.rs", "pub struct High;"),
        ("other.rs", OTHER),
    ];
    assert_eq!(
        wrong(&tree, TWO),
        [
            "up: low/deep/deeper.rs:1 uses crate::other::Other of other.rs",
            "up: low/deep.rs:1 uses crate::high::High of high/inner.rs",
            "up: low/inline/file.rs:1 uses crate::high::High of high/inner.rs",
        ]
    );
    let missing = Imports::read(source(&[("lib.rs", "mod low;")]).path()).unwrap_err();
    assert!(
        missing
            .to_string()
            .ends_with("lib.rs: no file of its module low"),
        "{missing}"
    );
    let broken = Imports::read(source(&[("lib.rs", "mod low {")]).path()).unwrap_err();
    assert!(broken.to_string().contains("lib.rs: "), "{broken}");
}

#[test]
fn nested_floors_apply_inside_a_folder() {
    let tree = [
        ("main.rs", "mod house;"),
        (
            "house.rs",
            "mod cellar; mod roof; pub struct House; pub use roof::Roof;",
        ),
        (
            "house/cellar.rs",
            "use super::House; use crate::house::Roof;",
        ),
        ("house/roof.rs", "pub struct Roof;"),
    ];
    let floors: &[(&str, Floors)] = &[("house", &[&["cellar"], &["roof"]])];
    assert_eq!(
        wrong_in(&tree, &[&["house"]], floors),
        [
            "up: house/cellar.rs:1 uses crate::house::Roof of house/roof.rs",
            "up: house/cellar.rs:1 uses super::House of house.rs",
        ]
    );
}

#[test]
fn the_table_has_each_module_once() {
    let tree = [
        ("lib.rs", "mod low; mod new;"),
        ("low.rs", ""),
        ("new.rs", ""),
    ];
    assert_eq!(
        wrong(&tree, &[&["low", "old"], &["low"]]),
        [
            "low is on two floors",
            "old is on a floor and does not exist",
            "new is on no floor: put it on one in tests/src/floors/table.rs",
        ]
    );
}

#[test]
fn an_exported_macro_is_where_it_is_defined() {
    let low = "#[macro_export] macro_rules! low { () => {} }";
    let tree = [
        ("lib.rs", "mod low; mod high; mod other;"),
        ("low.rs", low),
        ("high.rs", "fn f() { crate::low!() }"),
        ("other.rs", ""),
    ];
    assert_eq!(wrong(&tree, TWO), Vec::<String>::new());
}

/// A circle of `count` files in one folder.
fn circle(count: usize) -> Vec<String> {
    let mut tree = vec![("lib.rs".to_owned(), "mod ring;".to_owned())];
    let modules: String = (0..count).map(|at| format!("mod f{at};")).collect();
    tree.push(("ring.rs".to_owned(), modules));
    for at in 0..count {
        let next = (at + 1) % count;
        let text = format!("pub struct S{at}(super::f{next}::S{next});");
        tree.push((format!("ring/f{at}.rs"), text));
    }
    // A tail that leads into the circle is no part of it.
    tree.push(("tail.rs".to_owned(), "use crate::ring::f0::S0;".to_owned()));
    tree[0].1.push_str("mod tail;");
    let tree: Vec<_> = tree
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    wrong(&tree, &[&["ring"], &["tail"]])
}

#[test]
fn cycle_of_more_than_four_files_is_found() {
    assert_eq!(circle(4), Vec::<String>::new());
    let found = circle(5);
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    let mut lines = found.lines();
    assert_eq!(
        lines.next(),
        Some("5 files are a circle: ring/f0.rs, ring/f1.rs, ring/f2.rs, ring/f3.rs, ring/f4.rs")
    );
    assert_eq!(
        lines.next(),
        Some("    ring/f0.rs:1 uses super::f1::S1 of ring/f1.rs")
    );
    assert_eq!(lines.count(), 4);
}

#[test]
fn a_folder_that_re_exports_its_files_is_no_circle() {
    let mut tree = vec![
        ("lib.rs".to_owned(), "mod facade;".to_owned()),
        (
            "facade/contract.rs".to_owned(),
            "pub trait Contract {}".to_owned(),
        ),
    ];
    let mut facade = "mod contract; pub use contract::Contract;".to_owned();
    for at in 0..6 {
        facade.push_str(&format!("mod f{at}; pub use f{at}::F{at};"));
        let text = format!("use super::Contract; pub struct F{at};");
        tree.push((format!("facade/f{at}.rs"), text));
    }
    tree.push(("facade/mod.rs".to_owned(), facade));
    let tree: Vec<_> = tree
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    assert_eq!(wrong(&tree, &[&["facade"]]), Vec::<String>::new());
}

fn sources() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let crates = CRATES.iter().copied().flatten();
    crates.map(|rules| (rules.name, root().join(rules.name).join("src")))
}

#[test]
fn unsafe_code_is_in_one_file_of_a_crate() {
    for (name, source) in sources() {
        let found = unsafe_files(&source).expect("read the source");
        assert!(
            found.len() <= 1,
            "{name} has unsafe code in several files: {found:?}"
        );
    }
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for (name, source) in sources() {
        let found = long_functions(&source).expect("read the source");
        long.extend(found.into_iter().map(|line| format!("{name}/src/{line}")));
    }
    assert!(
        long.is_empty(),
        "functions of more than {LONGEST_FUNCTION} lines, give their steps names:\n{}",
        long.join("\n")
    );
}

#[test]
fn sleeps_are_those_that_the_decisions_explain() {
    let page = fs::read_to_string(root().join("docs/decisions.md")).expect("read the decisions");
    let mut sections = page.split("\n## ");
    let section = sections.find(|section| section.starts_with("No polling"));
    let rows = section.expect("the section").lines();
    let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let mut explained: Vec<_> = cells
        .flat_map(|cell| cell.split(", "))
        .map(|place| place.trim_matches('`').to_owned())
        .collect();
    explained.sort();
    let mut found = Vec::new();
    for (name, source) in sources() {
        let files = sleeping_files(&source).expect("read the source");
        found.extend(
            files
                .iter()
                .map(|file| format!("{name}/src/{}", file.display())),
        );
    }
    found.sort();
    assert_eq!(found, explained, "the table in docs/decisions.md");
}

#[test]
fn paths_are_followed_where_the_table_says_that_no_container_decides_on_them() {
    let known: Vec<&str> = BY_PATH
        .iter()
        .flat_map(|(_, files)| *files)
        .copied()
        .collect();
    let covers = |known: &str, file: &str| match known.ends_with('/') {
        true => file.starts_with(known),
        false => file == known,
    };
    let mut found = Vec::new();
    for (name, source) in sources() {
        let files = files_by_path(&source).expect("read the source");
        let files = files.into_iter();
        found.extend(files.map(|(file, calls)| (format!("{name}/src/{}", file.display()), calls)));
    }
    let unknown: Vec<String> = found
        .iter()
        .filter(|(file, _)| !known.iter().any(|known| covers(known, file)))
        .map(|(file, calls)| format!("{file}: {}", calls.join(", ")))
        .collect();
    assert!(
        unknown.is_empty(),
        "files that follow a path by themselves; a container's is for reaper-overlay/src/linux/resolve.rs, others \
         are in the table of tests/src/paths.rs with a reason:\n{}",
        unknown.join("\n")
    );
    let stale = known
        .iter()
        .filter(|known| !found.iter().any(|(file, _)| covers(known, file)));
    let stale: Vec<_> = stale.collect();
    assert!(stale.is_empty(), "files without such a call: {stale:?}");
    let mut once = known.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), known.len(), "a file is twice in the table");
}

#[test]
fn calls_with_a_path_are_found_and_those_with_a_descriptor_are_not() {
    for (text, calls) in [
        (
            "fn f() { fs::read(path); std::fs::write(path, x) }",
            &["read", "write"][..],
        ),
        (
            "fn f() { File::open(path)?; Handle::of(&path) }",
            &["of", "open"],
        ),
        (
            "fn f() { File::options().open(path); DirBuilder::new(); path.exists() }",
            &["exists", "new", "options"],
        ),
        (
            "fn f() { openat(CWD, path, flags); open(\"/\", flags) }",
            &["open", "openat"],
        ),
        (
            "fn f() { if x { g(rustix::mount::unmount(path, flags)) } }",
            &["unmount"],
        ),
        ("fn f() { m!(fs::metadata(path)) }", &["metadata"]),
        (
            "fn f() { handle.open(); fs::write(fd_link(&file), x); unmount(place.link(), x) }",
            &[],
        ),
        (
            "use std::fs::read; fn open(path: &Path) { mount(); dir.metadata() }",
            &[],
        ),
        (
            "fn f() { openat(dir, name, flags); Journal::open(path) }",
            &[],
        ),
        (
            "mod tests { fn f() { fs::read(path) } } // fs::read(path)",
            &[],
        ),
    ] {
        let source = source(&[
            ("file.rs", text),
            ("tests.rs", text),
            ("tests/file.rs", text),
        ]);
        let found = files_by_path(source.path()).expect("read the source");
        let found: Vec<_> = found.into_iter().flat_map(|(_, calls)| calls).collect();
        assert_eq!(found, calls, "{text}");
    }
}

#[test]
fn sleeps_are_found_outside_of_tests() {
    let tree = [
        ("call.rs", "fn f() { thread::sleep(pause); }"),
        (
            "nested.rs",
            "async fn f() { loop { if x { g(sleep(pause)).await } } }",
        ),
        // None of these counts.
        (
            "definition.rs",
            "fn sleep(pause: u8) {} use std::thread::sleep;",
        ),
        ("word.rs", "// sleep(1)\nfn f() { g(\"sleep(1)\", sleep) }"),
        (
            "tested.rs",
            "#[cfg(test)] mod tests { fn f() { sleep(1) } }",
        ),
        ("tests.rs", "fn f() { sleep(1) }"),
    ];
    let source = source(&tree);
    let found = sleeping_files(source.path()).expect("read the source");
    assert_eq!(found, ["call.rs", "nested.rs"].map(PathBuf::from));
}

#[test]
fn unsafe_code_is_found_in_all_its_forms_and_nowhere_else() {
    let tree = [
        ("block.rs", "fn f() { unsafe { g() } }"),
        ("function.rs", "unsafe fn f() {}"),
        (
            "inner/macro.rs",
            "macro_rules! m { () => { unsafe { f() } } }",
        ),
        ("attribute.rs", "#[unsafe(no_mangle)] fn f() {}"),
        // None of these is.
        (
            "allowed.rs",
            "#![allow(unsafe_code)]\nfn unsafe_looking() {}",
        ),
        (
            "comment.rs",
            "// unsafe { f() }\n/// unsafe\nfn f() { \"unsafe { g() }\"; }",
        ),
    ];
    let source = source(&tree);
    let found = unsafe_files(source.path()).expect("read the source");
    let expected = ["attribute.rs", "block.rs", "function.rs", "inner/macro.rs"];
    assert_eq!(found, expected.map(PathBuf::from));
}

#[test]
fn functions_that_are_too_long_are_found_wherever_they_are() {
    // With the lines of its head and its end.
    let body = |lines: usize| "    g();\n".repeat(lines - 2);
    let function = |head: &str, lines: usize| format!("{head} {{\n{}}}\n", body(lines));
    let long = LONGEST_FUNCTION + 1;
    let texts = [
        ("as_long_as_may_be.rs", function("fn f()", LONGEST_FUNCTION)),
        (
            "long.rs",
            function("pub async fn f<T>(g: fn(u8) -> T)", long),
        ),
        (
            "method.rs",
            format!("trait T {{ fn g(); {} }}", function("fn f(&self)", long)),
        ),
        (
            "inner.rs",
            function(
                &format!("mod m {{ {} }}\nfn f()", function("fn f()", long)),
                2,
            ),
        ),
        (
            "tested.rs",
            format!("#[cfg(test)] mod tests {{ {} }}", function("fn f()", long)),
        ),
        ("tests.rs", function("fn f()", long)),
        (
            "many.rs",
            function("fn f()", 50)
                + &function("fn g()", 50)
                + "struct S { a: fn() }\n"
                + &function("impl S", long),
        ),
    ];
    let tree: Vec<_> = texts
        .iter()
        .map(|(file, text)| (*file, text.as_str()))
        .collect();
    let source = source(&tree);
    let found = long_functions(source.path()).expect("read the source");
    let expected = ["inner.rs", "long.rs", "method.rs"];
    assert_eq!(
        found,
        expected.map(|file| format!("{file}: f has {long} lines"))
    );
}
