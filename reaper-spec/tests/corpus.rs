//! What other programs write is read, whole, and as expected.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use reaper_spec::{Bundle, ContainerSpec, ContainerType, CriAnnotations};

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter(|path| !path.to_str().unwrap().ends_with(".workload.json"))
        .collect();
    files.sort();
    files
}

fn parse(file: &Path) -> ContainerSpec {
    ContainerSpec::parse(&fs::read(file).unwrap(), Path::new("/bundle")).unwrap()
}

#[test]
fn every_file_gives_the_expected_workload() {
    let files = corpus();
    assert!(files.len() >= 29, "{files:?}");
    for file in files {
        let workload = serde_json::to_string_pretty(&parse(&file)).unwrap() + "\n";
        let expected = file.with_extension("workload.json");
        if env::var_os("REAPER_UPDATE_CORPUS").is_some() {
            fs::write(&expected, &workload).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&expected).unwrap(),
            workload,
            "{}",
            file.display()
        );
    }
}

#[test]
fn every_file_is_a_whole_oci_spec() {
    for file in corpus() {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(&file, folder.path().join("config.json")).unwrap();
        let bundle = Bundle::load(folder.path()).unwrap();
        let spec = bundle
            .spec()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let process = spec.process().as_ref().unwrap();
        assert_eq!(
            process.args().as_ref(),
            Some(&bundle.container_spec().process.args)
        );
        assert!(spec.root().is_some());
    }
}

#[test]
fn cri_annotations_distinguish_container_and_sandbox() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for version in ["1.6", "1.7", "2.1"] {
        let read = |kind: &str| {
            let workload = parse(&folder.join(format!("containerd-{version}-cri-{kind}.json")));
            CriAnnotations::from_annotations(&workload.annotations)
        };
        let (container, sandbox) = (read("plain"), read("sandbox"));
        assert_eq!(sandbox.container_type, Some(ContainerType::Sandbox));
        assert_eq!(
            container.container_type,
            Some(ContainerType::Container),
            "although its image is called pause"
        );
        assert!(container.sandbox_id.is_some());
        assert_eq!(container.sandbox_id, sandbox.sandbox_id);
        assert_eq!(container.sandbox_namespace.as_deref(), Some("default"));
        assert_eq!(container.container_name.as_deref(), Some("plain"));
    }
}
