//! What is below examples/kubernetes: the chart, the plain manifests made from it, the admission policies' expressions, the
//! script that installs nodes, and the recipes, which run on real containerds as far as no API server is needed.

mod admission;
mod api_server;
mod chart;
mod node_script;
mod overhead;
mod recipes;

use std::{
    fs,
    path::{Path, PathBuf},
};

use reaper_tests::manifest::{CLASSES, check, read, template};

/// The repository's examples/kubernetes.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes")
}

/// The YAML below a folder of it, sorted.
pub(crate) fn manifests(below: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(below)).expect("read a folder of manifests");
    let paths = entries.map(|entry| entry.expect("read an entry").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_object_is_one_of_kubernetes_and_names_a_runtime_class_that_there_is() {
    let mut objects = 0;
    for path in ["", "install", "recipes", "recipes/cluster"]
        .into_iter()
        .flat_map(manifests)
    {
        for object in read(&path) {
            check(&object).unwrap_or_else(|problem| panic!("{path:?}: {problem}"));
            objects += 1;
            let spec = template(&object).and_then(|template| template.spec);
            if let Some(class) = spec.and_then(|spec| spec.runtime_class_name) {
                assert!(CLASSES.contains(&class.as_str()), "{path:?}: {class}");
            }
        }
    }
    assert!(objects > 40, "only {objects} objects were found");
}
