//! What the container of a trial is to be.

use std::{
    env, fs,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use reaper_exec::{
    ContainerConfig, ExecRequest,
    io::{StdioFds, StdioRequest, Streams},
};
use reaper_spec::{Config, ContainerId, Mount, ProcessSpec};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;

use super::{
    place::Place,
    process::{ARGUMENT, CONTENT},
    steps::Failure,
};
use crate::{container, error::Error};

/// Where the container of an OCI runtime has this program and the volume.
const PROGRAM_INSIDE: &str = "/reaper-doctor";
const VOLUME_INSIDE: &str = "/volume";

/// What is to be known of a container that runs this program.
pub(super) struct Plan {
    /// The other end of the program's input: it ends when this does.
    _input: OwnedFd,
    pub(super) output: File,
    /// A file that init writes in the view, and that must not appear on the node.
    pub(super) written: Option<PathBuf>,
    program: String,
    /// Where the read-only volume is in the view.
    volume: Option<PathBuf>,
}

impl Plan {
    /// A container with the node's configuration. `with_runtime` says that an OCI runtime makes it.
    pub(super) fn make(
        config: &Config,
        place: &Place,
        with_runtime: bool,
    ) -> Result<(ContainerConfig, Self), Failure> {
        let id = ContainerId::new(place.id.as_str()).map_err(|error| Error::Option {
            option: "doctor",
            problem: error.to_string(),
        })?;
        make_dir(&place.state())?;
        make_dir(&place.volume())?;
        write(&place.volume().join("file"), CONTENT)?;
        let program =
            env::current_exe().map_err(|error| Failure::io("find this program", &error))?;
        let (mut new, plan) = if with_runtime {
            runtime_plan(config, place, id, &program)?
        } else {
            host_plan(config, place, id, &program)?
        };
        let (stdio, input, output) = pipes()?;
        new.stdio = stdio;
        let (written, volume, program) = plan;
        let plan = Self {
            _input: input,
            output,
            written,
            program,
            volume,
        };
        Ok((new, plan))
    }

    /// A second process, which looks at what the first one and the volume are.
    pub(super) fn exec(&self) -> Result<(ExecRequest, File), Failure> {
        let shown = |path: &Option<PathBuf>| {
            let path = path.as_deref().unwrap_or(Path::new(""));
            path.to_string_lossy().into_owned()
        };
        let (stdio, _, output) = pipes()?;
        let args = [
            self.program.clone(),
            ARGUMENT.to_owned(),
            "exec".to_owned(),
            shown(&self.written),
            shown(&self.volume),
        ];
        let request = ExecRequest::new(ProcessSpec::new(args, "/")?)
            .with_stdio(stdio)
            .with_kill_on_disconnect(true);
        Ok((request, output))
    }
}

/// A container, the file that it writes, its volume, and the program in its view.
type Parts = (ContainerConfig, (Option<PathBuf>, Option<PathBuf>, String));

/// A container over an overlay, or on the node itself.
fn host_plan(
    config: &Config,
    place: &Place,
    id: ContainerId,
    program: &Path,
) -> Result<Parts, Failure> {
    let enabled = config.overlay.enabled;
    let written = enabled.then(|| PathBuf::from(format!("/.{id}-written")));
    // Without root some volumes cannot be had, and no container needs one.
    let volume = nix::unistd::geteuid().is_root().then(|| {
        if enabled {
            PathBuf::from(format!("/.{id}-volume"))
        } else {
            place.mount_point()
        }
    });
    let program = program.to_string_lossy().into_owned();
    let file = written
        .iter()
        .map(|path| path.to_string_lossy().into_owned());
    let args = [program.clone(), ARGUMENT.to_owned(), "init".to_owned()];
    let process = ProcessSpec::new(args.into_iter().chain(file), "/")?;
    let mut new = container::of_process(config, id, &place.bundle(), process)?;
    if let Some(destination) = &volume {
        make_dir(&place.mount_point())?;
        new.view.mounts.push(Mount {
            destination: destination.clone(),
            typ: Some("bind".to_owned()),
            source: Some(place.volume()),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
        });
    }
    Ok((new, (written, volume, program)))
}

/// A container of an OCI runtime's, with this program and the volume in an empty root.
fn runtime_plan(
    config: &Config,
    place: &Place,
    id: ContainerId,
    program: &Path,
) -> Result<Parts, Failure> {
    let bundle = place.bundle();
    make_dir(&bundle.join("rootfs"))?;
    let bind = |destination: &str, source: &Path| {
        json!({
            "destination": destination,
            "type": "bind",
            "source": source,
            "options": ["rbind", "ro"],
        })
    };
    let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    let document = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": [PROGRAM_INSIDE, ARGUMENT, "init"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            bind(PROGRAM_INSIDE, program),
            bind(VOLUME_INSIDE, &place.volume()),
        ],
        "linux": { "namespaces": namespaces, "cgroupsPath": format!("/reaper/{id}") },
    });
    write(&bundle.join("config.json"), &document.to_string())?;
    let new = container::of_bundle(config, id, &bundle)?;
    let volume = Some(PathBuf::from(VOLUME_INSIDE));
    Ok((new, (None, volume, PROGRAM_INSIDE.to_owned())))
}

/// Streams for a process: what it gets, the end that keeps its input open, and its output.
fn pipes() -> Result<(StdioRequest, OwnedFd, File), Failure> {
    let pipe =
        || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::io("make a pipe", &errno.into()));
    let ((stdin, input), (output, stdout)) = (pipe()?, pipe()?);
    let stderr = stdout
        .try_clone()
        .map_err(|error| Failure::io("duplicate a pipe", &error))?;
    let stdio =
        StdioRequest::new(Streams::inherited()).with_attachments(StdioFds::new().with_inherited([
            Some(stdin),
            Some(stdout),
            Some(stderr),
        ]));
    Ok((stdio, input, File::from(output)))
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path)
        .map_err(|error| Failure::io(&format!("make {}", path.display()), &error))
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    fs::write(path, content)
        .map_err(|error| Failure::io(&format!("write {}", path.display()), &error))
}
