//! YAML: what is shown, and what is there to be applied.

use std::fs;

use reaper_tests::manifest::{CLASSES, check, load, template};
use serde_json::Value;

use crate::pages::{Page, files, root};

#[test]
fn every_manifest_is_valid() {
    let mut objects = 0;
    for (place, text) in texts() {
        let documents = load(&text).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert!(!documents.is_empty(), "{place}: nothing in it");
        for document in documents.iter().filter(|it| !it["kind"].is_null()) {
            objects += 1;
            check(document).unwrap_or_else(|problem| panic!("{place}: {problem}"));
            check_use(&place, document);
        }
    }
    assert!(objects >= 40, "only {objects} objects were found");
}

/// All YAML of the repository, and where it is. The chart's templates are none before they are rendered.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for path in files("yaml").iter().chain(&files("yml")) {
        if path.starts_with("examples/kubernetes/chart/templates") {
            continue;
        }
        let text = fs::read_to_string(root().join(path)).expect("read a file");
        texts.push((path.display().to_string(), text));
    }
    for page in Page::all() {
        let blocks = page.blocks.iter().filter(|block| block.language == "yaml");
        texts.extend(blocks.map(|block| (page.path.display().to_string(), block.text.clone())));
    }
    texts
}

/// What Kubernetes does not know: which classes there are, and how their pods are to be written.
fn check_use(place: &str, object: &Value) {
    if object["kind"] == "RuntimeClass" {
        let handler = object["handler"].as_str();
        assert!(
            handler.is_some_and(|handler| CLASSES.contains(&handler)),
            "{place}: {handler:?}"
        );
    }
    let spec = template(object).and_then(|template| template.spec);
    let Some(spec) = spec else {
        return;
    };
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        assert!(container.image.is_some(), "{place}: {}", container.name);
    }
    let Some(class) = spec.runtime_class_name else {
        return;
    };
    assert!(CLASSES.contains(&class.as_str()), "{place}: {class}");
    // Those who administer a node are in its network, and the pod has to say so.
    assert!(
        class != CLASSES[0] || spec.host_network == Some(true),
        "{place}: no hostNetwork"
    );
}
