//! What each crate brings, as `docs/dependencies.md` lists it. `REAPER_UPDATE_API=1` writes the list anew.

use std::{collections::BTreeSet, env, fs, process::Command};

use crate::root;

/// A row of the list: a crate with features, the rows whose crates are not said again, and how many
/// crates it may bring.
struct Row {
    name: &'static str,
    features: &'static str,
    beyond: &'static [&'static str],
    most: Option<usize>,
}

const fn row(
    name: &'static str,
    features: &'static str,
    beyond: &'static [&'static str],
    most: Option<usize>,
) -> Row {
    Row {
        name,
        features,
        beyond,
        most,
    }
}

const ROWS: [Row; 11] = [
    row("reaper-spec", "", &[], Some(25)),
    row("reaper-spec", "oci-spec", &["reaper-spec"], None),
    row("reaper-state", "", &["reaper-spec"], None),
    row("reaper-state", "sqlite", &["reaper-state"], None),
    row("reaper-overlay", "", &["reaper-spec"], None),
    row(
        "reaper-exec",
        "",
        &["reaper-spec", "reaper-state", "reaper-overlay"],
        Some(60),
    ),
    row("reaper-exec", "seccomp", &["reaper-exec"], None),
    row("reaper-exec", "systemd", &["reaper-exec"], None),
    row("reaper-shim", "", &["reaper-exec"], None),
    row(
        "reaper-shim",
        "seccomp,sqlite,systemd",
        &["reaper-shim"],
        None,
    ),
    row(
        "reaper-cli",
        "seccomp,sqlite,systemd",
        &["reaper-exec"],
        None,
    ),
];

const BEGIN: &str = "<!-- listed -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn what_each_crate_brings_is_as_listed() {
    let file = root().join("docs/dependencies.md");
    let page = fs::read_to_string(&file).expect("read the page");
    let (before, rest) = page.split_once(BEGIN).expect("the begin of the list");
    let (listed, after) = rest.split_once(END).expect("the end of the list");
    let found: String = ROWS.iter().map(Row::text).collect();
    let found = format!(
        "| crate, features | crates | beyond those of | which |\n|---|---|---|---|\n{found}"
    );
    if env::var_os("REAPER_UPDATE_API").is_some() {
        let page = format!("{before}{BEGIN}{found}{END}{after}");
        fs::write(&file, page).expect("write the page");
        return;
    }
    for (one, other) in listed.lines().zip(found.lines()) {
        assert_eq!(
            one, other,
            "docs/dependencies.md lists other crates than cargo; if they are wanted, run\n  \
             REAPER_UPDATE_API=1 cargo test -p reaper-tests --test api"
        );
    }
    assert_eq!(listed.lines().count(), found.lines().count());
}

#[test]
fn libraries_are_light_without_features() {
    for row in ROWS {
        let crates = row.crates("normal");
        if let Some(most) = row.most {
            let (name, count) = (row.name, crates.len());
            assert!(
                count <= most,
                "{name} brings {count} crates, more than {most}: {crates:?}"
            );
        }
    }
}

#[test]
fn libraries_have_no_c_code_without_sqlite() {
    // What builds C code, or looks for what is built already.
    const BUILDERS: [&str; 6] = [
        "bindgen",
        "cc",
        "cmake",
        "pkg-config",
        "system-deps",
        "vcpkg",
    ];
    let builds = |row: &Row| {
        let crates = row.crates("normal,build");
        crates.iter().any(|name| BUILDERS.contains(&name.as_str()))
    };
    for row in ROWS {
        let expected = row.features.contains("sqlite");
        assert_eq!(
            builds(&row),
            expected,
            "{} with {:?}",
            row.name,
            row.features
        );
    }
}

#[test]
fn crates_avoid_unneeded_dependencies() {
    let none_of = |name: &'static str, unwanted: &[&str]| {
        for dependency in row(name, "", &[], None).crates("normal") {
            assert!(
                !unwanted.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
        }
    };
    none_of(
        "reaper-spec",
        &["libc", "nix", "oci-spec", "rustix", "tokio"],
    );
    none_of("reaper-state", &["libsqlite3-sys", "mockall", "tokio"]);
    none_of("reaper-overlay", &["mockall", "tokio"]);
    none_of(
        "reaper-exec",
        &["containerd-shim-protos", "mockall", "oci-spec", "ttrpc"],
    );
}

impl Row {
    /// Its line in the page.
    fn text(&self) -> String {
        let crates = self.crates("normal");
        let mut known = BTreeSet::new();
        for name in self.beyond {
            known.extend(row(name, "", &[], None).crates("normal"));
        }
        let new: Vec<_> = crates
            .difference(&known)
            .filter(|name| *name != self.name)
            .map(String::as_str)
            .collect();
        let features = self.features.split(',').filter(|one| !one.is_empty());
        let features: String = features.map(|one| format!(", `{one}`")).collect();
        let beyond: Vec<_> = self.beyond.iter().map(|one| format!("`{one}`")).collect();
        format!(
            "| `{}`{features} | {} | {} | {} |\n",
            self.name,
            crates.len(),
            beyond.join(", "),
            new.join(", ")
        )
    }

    /// The crates that it is compiled from, itself included, each once for each of its versions.
    fn crates(&self, edges: &str) -> BTreeSet<String> {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--prefix", "none"])
            .args([
                "--target",
                "x86_64-unknown-linux-gnu",
                "--no-default-features",
            ])
            .args([
                "--edges",
                edges,
                "--package",
                self.name,
                "--features",
                self.features,
            ])
            .current_dir(root())
            .output()
            .expect("ask cargo for the dependencies");
        assert!(tree.status.success(), "{tree:?}");
        let tree = String::from_utf8(tree.stdout).expect("a text");
        let package = |line: &str| {
            let mut words = line.split(' ');
            let (name, version) = (words.next()?, words.next()?);
            Some((name.to_owned(), version.to_owned()))
        };
        let packages: BTreeSet<_> = tree.lines().filter_map(package).collect();
        // A second version is a crate more: it is said with its version.
        let twice = |name: &str| packages.iter().filter(|(other, _)| other == name).count() > 1;
        packages
            .iter()
            .map(|(name, version)| match twice(name) {
                true => format!("{name} {version}"),
                false => name.clone(),
            })
            .collect()
    }
}
