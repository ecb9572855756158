//! YAML: what is shown, and what is there to be applied.

use std::fs;

use yaml_rust2::{Yaml, YamlLoader};

use crate::pages::{Page, files, root};

#[test]
fn every_manifest_is_valid() {
    let mut objects = 0;
    for (place, text) in texts() {
        let documents = YamlLoader::load_from_str(&text);
        let documents = documents.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(!documents.is_empty(), "{place}: nothing in it");
        for document in &documents {
            if !document["kind"].is_badvalue() {
                objects += 1;
                check(&place, document);
            }
        }
    }
    assert!(objects >= 5, "only {objects} objects were found");
}

/// All YAML of the repository, and where it is.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in files("yaml").iter().chain(&files("yml")) {
        let text = fs::read_to_string(root().join(path)).expect("read a file");
        texts.push((path.display().to_string(), text));
    }
    for page in Page::all() {
        let blocks = page.blocks.iter().filter(|block| block.language == "yaml");
        texts.extend(blocks.map(|block| (page.path.display().to_string(), block.text.clone())));
    }
    texts
}

/// What every object has, and what one that Reaper runs needs.
fn check(place: &str, object: &Yaml) {
    let kind = object["kind"].as_str().expect(place);
    assert!(object["apiVersion"].as_str().is_some(), "{place}: {kind}");
    let name = object["metadata"]["name"].as_str();
    assert!(name.is_some_and(|name| !name.is_empty()), "{place}: {kind}");
    if kind == "RuntimeClass" {
        let handler = object["handler"].as_str();
        assert!(
            matches!(handler, Some("reaper-v2" | "reaper-v2-pod")),
            "{place}: {handler:?}"
        );
        return;
    }
    let pod = match kind {
        "Pod" => &object["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    assert_eq!(
        pod["runtimeClassName"].as_str(),
        Some("reaper-v2"),
        "{place}: {kind}"
    );
    // Workloads have the node's network, and the pod has to say so.
    assert_eq!(pod["hostNetwork"].as_bool(), Some(true), "{place}: {kind}");
    let containers = pod["containers"].as_vec().expect(place);
    assert!(!containers.is_empty(), "{place}: {kind}");
    for container in containers {
        for key in ["name", "image"] {
            assert!(container[key].as_str().is_some(), "{place}: {kind}: {key}");
        }
    }
}
