//! Containers whose monitor does not answer.

use std::{fs, io};

use reaper_spec::{ContainerId, Exit, ExitStatus, Timestamp};

use super::{HostExecutor, link::Gone, nonsense, spawn};
use crate::{
    Error, Observation, Result, Target,
    protocol::{Answer, Call, ExitRecord},
    records,
};

impl HostExecutor {
    /// What became of a container without a monitor: its recorded end, or, if the monitor was
    /// killed, the end that is recorded now, after what it left has been ended.
    pub(super) async fn settle(&self, id: &ContainerId) -> Result<Observation> {
        let target = Target::Init(id.clone());
        let dir = self.root.container(id);
        if !dir.plan_file().exists() {
            let path = dir.exit_file();
            let record: Option<ExitRecord> = records::read(&path).map_err(|source| Error::Io {
                operation: format!("read {}", path.display()),
                source,
            })?;
            let record = record.ok_or(Error::NotFound(target))?;
            return Ok(Observation::stopped(record.exit));
        }
        let call = Call::Bury {
            id: id.clone(),
            dir: dir.path().to_owned(),
        };
        let link = self.spawn_monitor(&target)?;
        let buried = match link.call(&call, &[]).await {
            Ok(Ok(Answer::Observed(observation))) => Ok(observation),
            Ok(Ok(_)) => Err(nonsense(&target)),
            Ok(Err(failure)) => Err(failure.into_error(&target)),
            Err(Gone::Closed) => Err(Error::Monitor {
                target,
                reason: spawn::NO_ANSWER.to_owned(),
            }),
            Err(Gone::Send(source)) => Err(Error::Io {
                operation: format!("clean up after {target}"),
                source,
            }),
        };
        link.ended().await;
        if self.subreaper {
            self.children.end_orphans();
        }
        buried
    }

    /// Removes what monitors have left in a container's folder, and the folder if nothing else
    /// is in it.
    pub(super) fn remove_files(&self, id: &ContainerId) -> Result<()> {
        let dir = self.root.container(id);
        for path in [dir.exit_file(), dir.plan_file(), dir.socket()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let operation = format!("remove {}", path.display());
                    return Err(Error::Io { operation, source });
                }
                _ => {}
            }
        }
        // A store may keep its record there; whoever is last removes the folder.
        let _ = fs::remove_dir(dir.path());
        Ok(())
    }
}

/// The end of an exec that only its monitor knew.
pub(super) fn exec_exit(at: Timestamp) -> Exit {
    let reason = "the monitor that waited for it is gone".to_owned();
    Exit {
        status: ExitStatus::Lost { reason },
        at,
    }
}
