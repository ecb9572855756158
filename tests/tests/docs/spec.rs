//! The page that says what becomes of each field of the runtime-spec.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use syn::{Attribute, Fields, GenericArgument, Item, PathArguments, Type};

use crate::pages::root;

/// A struct's fields: the name in JSON, and the type that it has or that its elements have.
type Structs = BTreeMap<String, Vec<(String, String)>>;

/// Other platforms' parts of a document, and what was never in the specification.
const NOT_LINUX: [&str; 6] = [
    "solaris",
    "windows",
    "vm",
    "zos",
    "uidMappings",
    "gidMappings",
];

/// Where the source of the types is that this repository reads a document with.
fn sources() -> PathBuf {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages
        .iter()
        .find(|package| package["name"] == "oci-spec")
        .unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.with_file_name("src/runtime")
}

fn structs() -> Structs {
    let mut found = Structs::new();
    for entry in fs::read_dir(sources()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        for item in file.items {
            let Item::Struct(item) = item else { continue };
            let Fields::Named(fields) = item.fields else {
                continue;
            };
            let fields = fields.named.iter().map(|field| {
                let own = field.ident.as_ref().unwrap().to_string();
                let name = renamed(&field.attrs).unwrap_or_else(|| camel(&own));
                (name, element(&field.ty))
            });
            found.insert(item.ident.to_string(), fields.collect());
        }
    }
    found
}

/// What serde calls a field.
fn renamed(attributes: &[Attribute]) -> Option<String> {
    let mut name = None;
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
    {
        // What has another form, such as `alias`, is of no interest here.
        let _ = attribute.parse_nested_meta(|meta| {
            if let Ok(value) = meta.value() {
                let text: syn::LitStr = value.parse()?;
                if meta.path.is_ident("rename") {
                    name = Some(text.value());
                }
            }
            Ok(())
        });
    }
    name
}

fn camel(name: &str) -> String {
    let mut parts = name.trim_start_matches("r#").split('_');
    let mut camel = parts.next().unwrap().to_owned();
    for part in parts {
        camel.push_str(&part[..1].to_uppercase());
        camel.push_str(&part[1..]);
    }
    camel
}

/// The last type that a type is made of: `T` of `Option<Vec<T>>` and of a map to `T`.
fn element(ty: &Type) -> String {
    let Type::Path(path) = ty else {
        return String::new();
    };
    let last = path.path.segments.last().unwrap();
    if let PathArguments::AngleBracketed(arguments) = &last.arguments {
        let types = arguments.args.iter().filter_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        });
        if let Some(ty) = types.last() {
            return element(ty);
        }
    }
    last.ident.to_string()
}

fn fields(structs: &Structs, name: &str, prefix: &str, found: &mut BTreeSet<String>) {
    for (field, ty) in &structs[name] {
        let path = format!("{prefix}{field}");
        if prefix.is_empty() && NOT_LINUX.contains(&field.as_str()) {
            continue;
        }
        if structs.contains_key(ty) {
            fields(structs, ty, &format!("{path}."), found);
        } else {
            found.insert(path);
        }
    }
}

/// A row of a table: the fields, what becomes of them, and the tests that show it.
struct Row {
    fields: Vec<String>,
    verdict: String,
    tests: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/spec.md")).unwrap();
    let code = |cell: &str| -> Vec<String> {
        let spans = cell.split('`').skip(1).step_by(2);
        spans.map(str::to_owned).collect()
    };
    let (text, _) = text.split_once("## In Kubernetes' words").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [fields, verdict, how, tests] = cells[..] else {
            panic!("a row has four cells: {line}");
        };
        assert!(
            verdict != "not applicable" || !how.is_empty(),
            "why? {line}"
        );
        Row {
            fields: code(fields),
            verdict: verdict.to_owned(),
            tests: code(tests),
        }
    })
    .collect()
}

#[test]
fn every_field_of_the_runtime_spec_is_in_the_table_once() {
    let mut known = BTreeSet::new();
    fields(&structs(), "Spec", "", &mut known);
    assert!(known.len() > 160, "{known:?}");
    let written: Vec<String> = rows().into_iter().flat_map(|row| row.fields).collect();
    let covers = |written: &str, field: &str| match written.strip_suffix(".*") {
        Some(tree) => field
            .strip_prefix(tree)
            .is_some_and(|rest| rest.starts_with('.')),
        None => written == field,
    };
    let mut wrong = Vec::new();
    for field in &known {
        let count = written
            .iter()
            .filter(|written| covers(written, field))
            .count();
        if count != 1 {
            wrong.push(format!("{field} has {count} rows"));
        }
    }
    for written in &written {
        if !known.iter().any(|field| covers(written, field)) {
            wrong.push(format!("{written} is no field"));
        }
    }
    assert!(wrong.is_empty(), "docs/spec.md: {}", wrong.join("\n"));
}

/// The source of all tests.
fn code() -> String {
    let mut code = String::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                code.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    code
}

#[test]
fn each_line_of_the_threat_model_is_shown_by_a_test() {
    let (code, text) = (
        code(),
        fs::read_to_string(root().join("SECURITY.md")).unwrap(),
    );
    let (_, held) = text.split_once("## What holds").unwrap();
    let (held, _) = held.split_once("\n## ").unwrap();
    let rows: Vec<&str> = held
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let shown = row.trim_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test shows: {row}");
        for test in tests {
            assert!(
                code.contains(&format!("fn {test}(")),
                "no test {test}: {row}"
            );
        }
    }
}

/// The controls of Kubernetes' Pod Security Standards, and whether they are anything that a runtime could keep.
const CONTROLS: [(&str, bool); 16] = [
    ("HostProcess", false),
    ("Host Namespaces", true),
    ("Privileged Containers", true),
    ("Capabilities", true),
    ("HostPath Volumes", true),
    ("Host Ports", false),
    ("Host Probes and Lifecycle Hooks", false),
    ("AppArmor", true),
    ("SELinux", true),
    ("`/proc` Mount Type", true),
    ("Seccomp", true),
    ("Sysctls", true),
    ("Volume Types", true),
    ("Privilege Escalation", true),
    ("Running as Non-root", true),
    ("Running as Non-root user", true),
];

#[test]
fn each_control_of_the_pod_security_standards_has_its_fields_and_a_test() {
    let (code, text) = (
        code(),
        fs::read_to_string(root().join("docs/spec.md")).unwrap(),
    );
    let (_, table) = text.split_once("### Pod Security Standards").unwrap();
    let lines = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<Vec<&str>> = lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let controls: Vec<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(controls, CONTROLS.map(|(control, _)| control));
    for (row, (control, is_kept)) in rows.iter().zip(CONTROLS) {
        let [_, fields, how, tests] = row[..] else {
            panic!("a row has four cells: {row:?}");
        };
        assert!(!fields.is_empty() && !how.is_empty(), "{control}");
        assert_eq!(!tests.is_empty(), is_kept, "{control}");
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(
                code.contains(&format!("fn {test}(")),
                "{control}: no test {test}"
            );
        }
    }
}

#[test]
fn what_is_honoured_or_refused_is_shown_by_a_test() {
    let code = code();
    for row in rows() {
        let needs_test = match row.verdict.as_str() {
            "honoured" | "refused" => true,
            "not applicable" | "ignored" => false,
            other => panic!("{:?}: what is {other:?}?", row.fields),
        };
        assert_eq!(!row.tests.is_empty(), needs_test, "{:?}", row.fields);
        for test in &row.tests {
            let definition = format!("fn {test}(");
            assert!(
                code.contains(&definition),
                "{:?}: no test {test}",
                row.fields
            );
        }
    }
}
