//! Reads an OCI bundle, and says what it asks for or what is wrong with it:
//! `parse-bundle /run/containerd/io.containerd.runtime.v2.task/k8s.io/ID`.
//!
//! The values are validated: no argument has a NUL byte, the working directory is absolute, an
//! environment entry has a name. An error names the file and the place in it.

use std::{path::Path, process::ExitCode};

use reaper_spec::{Bundle, ContainerSpec, CriAnnotations};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: parse-bundle FOLDER");
        return ExitCode::from(2);
    };
    match Bundle::load(Path::new(&folder)) {
        Ok(bundle) => {
            describe(bundle.container_spec());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(workload: &ContainerSpec) {
    let process = &workload.process;
    println!("runs {:?} in {}", process.args, process.cwd.display());
    match &process.user {
        Some(user) => println!("as user {}, group {}", user.uid, user.gid),
        None => println!("as whoever starts it"),
    }
    for mount in workload.mounts.iter().filter(|mount| mount.is_bind()) {
        let source = mount.source.as_deref().unwrap_or(Path::new("nothing"));
        println!(
            "sees {} at {}",
            source.display(),
            mount.destination.display()
        );
    }
    // What Kubernetes says of the pod travels in annotations.
    let cri = CriAnnotations::from_annotations(&workload.annotations);
    if let (Some(namespace), Some(pod)) = (&cri.sandbox_namespace, &cri.sandbox_name) {
        println!("for the pod {namespace}/{pod}");
    }
}
