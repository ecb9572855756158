//! The chart as Helm renders it: by an engine that reads Go's templates, with those of Helm's functions that the chart uses.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::PathBuf,
};

use gtmpl::{Context, FuncError, Template, Value as Field};
use reaper_tests::manifest::{check, load};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{folder, manifests};

/// The template of hooks, which are Helm's alone: without it a removal is asked for by hand.
const HOOKS: &str = "removal.yaml";
/// The one plain manifest that Helm makes by itself.
const NAMESPACES: &str = "namespaces.yaml";

/// The values of the chart.
pub(crate) fn values() -> Value {
    let text = fs::read_to_string(folder().join("chart/values.yaml")).expect("read the values");
    load(&text).expect("YAML").remove(0)
}

/// A template of the chart, rendered. A value that is not among `values` makes it panic.
pub(crate) fn render(name: &str, values: &Value) -> String {
    let path = folder().join("chart/templates").join(name);
    let text = fs::read_to_string(&path).expect("read a template");
    let mut template = Template::default();
    template.add_func("fileText", file_text);
    template.add_func("indent", indent);
    template.add_func("list", |items| Ok(Field::Array(items.to_vec())));
    template.add_func("quote", |args| {
        Ok(json!(args[0].to_string()).to_string().into())
    });
    template.add_func("sha256sum", |args| {
        let digest = Sha256::digest(args[0].to_string());
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        Ok(digits.collect::<String>().into())
    });
    template.add_func("toJson", |args| Ok(json_of(&args[0]).to_string().into()));
    // The engine calls no methods with arguments.
    let text = text.replace(".Files.Get ", "fileText ");
    let parsed = template.parse(&text);
    parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
    let context = field(&json!({
        "Values": values,
        "Release": { "Name": "reaper", "Namespace": "reaper-system" },
    }));
    let text = template.render(&Context::from(context));
    let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
    text.trim().to_owned() + "\n"
}

/// The templates of the chart.
fn templates() -> Vec<String> {
    let names = manifests("chart/templates").into_iter().map(|path| {
        let name = path.file_name().expect("a file's name");
        name.to_string_lossy().into_owned()
    });
    names.collect()
}

fn file_text(args: &[Field]) -> Result<Field, FuncError> {
    let path = folder().join("chart").join(args[0].to_string());
    let text = fs::read_to_string(path).map_err(|error| FuncError::Generic(error.to_string()))?;
    Ok(text.into())
}

fn indent(args: &[Field]) -> Result<Field, FuncError> {
    let (width, text) = (args[0].to_string(), args[1].to_string());
    let width = width.parse().expect("a number of spaces");
    let lines = text.split('\n').map(|line| format!("{:width$}{line}", ""));
    Ok(lines.collect::<Vec<_>>().join("\n").into())
}

/// Go's engine takes a missing field of a map for empty; this one refuses it.
fn field(value: &Value) -> Field {
    match value {
        Value::Null => Field::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number.as_i64().expect("a whole number").into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => Field::Array(items.iter().map(field).collect()),
        Value::Object(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), field(value)));
            Field::Object(entries.collect::<HashMap<_, _>>())
        }
    }
}

fn json_of(field: &Field) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::String(text) => text.as_str().into(),
        Field::Array(items) => items.iter().map(json_of).collect(),
        Field::Object(entries) => {
            let sorted: BTreeMap<_, _> = entries.iter().collect();
            let entries = sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), json_of(value)));
            Value::Object(entries.collect())
        }
        Field::Number(number) => number.to_string().parse::<i64>().expect("a number").into(),
        other => panic!("not of JSON: {other:?}"),
    }
}

#[test]
fn plain_manifests_are_what_the_chart_renders() {
    let is_update = env::var_os("REAPER_UPDATE_MANIFESTS").is_some();
    let install = folder().join("install");
    let mut expected = vec![install.join(NAMESPACES)];
    for name in templates().into_iter().filter(|name| name != HOOKS) {
        let rendered = render(&name, &values());
        let plain = install.join(&name);
        if is_update {
            fs::write(&plain, &rendered).expect("write a manifest");
        }
        let found = fs::read_to_string(&plain).unwrap_or_default();
        assert_eq!(
            found, rendered,
            "{plain:?}: make it anew by REAPER_UPDATE_MANIFESTS=1"
        );
        expected.push(plain);
    }
    expected.sort();
    let found: Vec<PathBuf> = manifests("install");
    assert_eq!(found, expected);
}

#[test]
fn every_template_renders_to_objects_of_kubernetes_with_other_values_too() {
    let mut other = values();
    other["image"] = "registry.example/reaper-node:7".into();
    other["imagePullSecrets"] = json!([{ "name": "pull" }]);
    other["restartCommand"] = "rc-service \"containerd\" restart".into();
    other["resources"] = json!({ "limits": { "memory": "64Mi" } });
    other["tolerations"] = json!([]);
    other["admission"]["allowed"] = json!({ "a": ["x", "y"], "b": ["*"] });
    let mut without = values();
    without["admission"]["enabled"] = false.into();
    for values in [values(), other, without] {
        for name in templates() {
            let rendered = render(&name, &values);
            let objects = load(&rendered).unwrap_or_else(|error| panic!("{name}: {error}"));
            for object in &objects {
                check(object).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            }
            let is_off = name.ends_with("policy.yaml") && values["admission"]["enabled"] == false;
            assert_eq!(objects.is_empty(), is_off, "{name}");
        }
    }
}

#[test]
fn the_chart_has_what_helm_asks_of_one() {
    let text = fs::read_to_string(folder().join("chart/Chart.yaml")).expect("read Chart.yaml");
    let chart = load(&text).expect("YAML").remove(0);
    assert_eq!(
        (&chart["apiVersion"], &chart["name"]),
        (&json!("v2"), &json!("reaper"))
    );
    let version = env!("CARGO_PKG_VERSION");
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], version, "{key}");
    }
    let image = values()["image"].as_str().map(str::to_owned);
    assert_eq!(image, Some(format!("reaper-node:{version}")));
    // Each value is used, so that none is set in vain.
    let mut templates: String = templates()
        .iter()
        .map(|name| {
            fs::read_to_string(folder().join("chart/templates").join(name))
                .expect("read a template")
        })
        .collect();
    templates.retain(|character| !character.is_whitespace());
    let values = values();
    for key in values.as_object().expect("values").keys() {
        assert!(templates.contains(&format!(".Values.{key}")), "{key}");
    }
}

#[test]
fn the_scripts_read_what_the_manifests_give_and_the_labels_are_the_same() {
    let rendered = render("daemonset.yaml", &values());
    let classes = render("runtimeclasses.yaml", &values());
    let script = fs::read_to_string(folder().join("chart/files/node.sh")).expect("read a script");
    let objects = load(&rendered).expect("YAML");
    let container = &objects[0]["spec"]["template"]["spec"]["containers"][0];
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        assert!(script.contains(&format!("${{{name}:")), "{name}");
    }
    for (text, label) in [
        (&script, "state_label=reaper.runtime/state"),
        (&rendered, "key: reaper.runtime/state"),
        (&classes, "reaper.runtime/state: ready"),
    ] {
        assert!(text.contains(label), "{label}");
    }
    let strategy = &objects[0]["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(strategy["maxUnavailable"], 1);
}
