//! Kubernetes' manifests: read, held against Kubernetes' own types, and run by the CRI as a kubelet would.

mod pods;

use std::{fs, path::Path};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, Namespace, Pod, PodTemplateSpec, Service, ServiceAccount},
        node::v1::RuntimeClass,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

pub use self::pods::{Place, Started};

/// The runtime classes that `reaper-runtime node install` makes handlers for.
pub const CLASSES: [&str; 2] = ["reaper-v2", "reaper-v2-pod"];

/// The objects of a file in YAML, without documents that have nothing in them.
pub fn load(text: &str) -> Result<Vec<Value>, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let objects = documents.iter().filter(|it| !it.is_null());
    objects.map(json).collect()
}

/// The objects of a file. Panics with the file's name where it is no YAML.
pub fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    load(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn json(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => (*value).into(),
        Yaml::Integer(value) => (*value).into(),
        Yaml::Real(text) => text.parse::<f64>().map_err(|e| e.to_string())?.into(),
        Yaml::String(text) => text.as_str().into(),
        Yaml::Array(items) => Value::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Hash(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = key
                    .as_str()
                    .ok_or(format!("a key that is no text: {key:?}"))?;
                Ok((key.to_owned(), json(value)?))
            });
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err(format!("not read: {yaml:?}")),
    })
}

/// What is wrong with an object: a kind that is not known here, a field that Kubernetes does not know, or a value of
/// another type.
pub fn check(object: &Value) -> Result<(), String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    if object["metadata"]["name"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        return Err("it has no name".to_owned());
    }
    match (text("apiVersion"), text("kind")) {
        ("v1", "ConfigMap") => typed::<ConfigMap>(object),
        ("v1", "Namespace") => typed::<Namespace>(object),
        ("v1", "Pod") => typed::<Pod>(object),
        ("v1", "Service") => typed::<Service>(object),
        ("v1", "ServiceAccount") => typed::<ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => typed::<DaemonSet>(object),
        ("apps/v1", "Deployment") => typed::<Deployment>(object),
        ("apps/v1", "StatefulSet") => typed::<StatefulSet>(object),
        ("batch/v1", "CronJob") => typed::<CronJob>(object),
        ("batch/v1", "Job") => typed::<Job>(object),
        ("node.k8s.io/v1", "RuntimeClass") => typed::<RuntimeClass>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => typed::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            typed::<ClusterRoleBinding>(object)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => typed::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => typed::<RoleBinding>(object),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            typed::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            typed::<ValidatingAdmissionPolicyBinding>(object)
        }
        (version, kind) => Err(format!("{version} {kind} is not known here")),
    }
}

/// A field that the type does not know is skipped when it is read, and so is missing when it is written again.
fn typed<T: Serialize + DeserializeOwned>(object: &Value) -> Result<(), String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(read).map_err(|error| error.to_string())?;
    match difference(object, &written) {
        Some(path) => Err(format!("Kubernetes does not know {}", &path[1..])),
        None => Ok(()),
    }
}

/// The path of the first value that is not in `written`.
fn difference(object: &Value, written: &Value) -> Option<String> {
    match (object, written) {
        (Value::Object(entries), Value::Object(_)) => entries.iter().find_map(|(key, value)| {
            let below = difference(value, written.get(key).unwrap_or(&Value::Null))?;
            Some(format!(".{key}{below}"))
        }),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            let mut pairs = items.iter().zip(others).enumerate();
            pairs.find_map(|(at, (value, other))| {
                Some(format!("[{at}]{}", difference(value, other)?))
            })
        }
        // A quantity may be written as a number, and is a text.
        (Value::Number(number), Value::String(text)) if number.to_string() == *text => None,
        _ => (object != written).then(String::new),
    }
}

/// The pods that an object has made, if its kind makes any.
pub fn template(object: &Value) -> Option<PodTemplateSpec> {
    let template = match object["kind"].as_str()? {
        "Pod" => object,
        "DaemonSet" | "Deployment" | "StatefulSet" | "Job" => &object["spec"]["template"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    let read = serde_json::from_value(serde_json::json!({
        "metadata": template["metadata"], "spec": template["spec"],
    }));
    let mut read: PodTemplateSpec = read.expect("an object that was checked");
    let namespace = object["metadata"]["namespace"].as_str();
    read.metadata.get_or_insert_default().namespace = namespace.map(str::to_owned);
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let objects = load(text).expect("YAML");
        check(&objects[0]).expect_err("an object with a mistake")
    }

    #[test]
    fn a_mistake_is_found_where_it_is() {
        let pod =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n";
        assert_eq!(check(&load(pod).expect("YAML")[0]), Ok(()));
        let unknown = wrong(&format!("{pod}    imagePullPolice: Never\n"));
        assert_eq!(
            unknown,
            "Kubernetes does not know spec.containers[0].imagePullPolice"
        );
        let misplaced = wrong(&format!("{pod}  replicas: 3\n"));
        assert_eq!(misplaced, "Kubernetes does not know spec.replicas");
        assert!(wrong(&format!("{pod}    command: sh\n")).contains("invalid type"));
        assert!(wrong("kind: Pod\nmetadata: {name: x}\n").contains("is not known here"));
        assert_eq!(wrong("apiVersion: v1\nkind: Pod\n"), "it has no name");
    }
}
