//! What a container is doing, and what may follow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a container is doing. Names and meaning are the OCI runtime-spec's, plus `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Its id is taken, its process not made yet.
    Creating,
    /// Its process exists, gated in front of the user's program.
    Created,
    /// The user's program was executed and has not ended.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended, or was never made.
    Stopped,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transition {
    /// Its gated process was made.
    Create,
    /// The gate was opened and the program executed.
    Start,
    /// Its processes were frozen.
    Pause,
    /// Its processes were thawed.
    Resume,
    /// Its process ended, or could not be made or executed.
    Exit,
}

/// A transition that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {transition} a container that is {from}")]
#[non_exhaustive]
pub struct InvalidTransition {
    /// Where the container is.
    pub from: Status,
    /// What was asked.
    pub transition: Transition,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Creating,
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Stopped,
    ];

    /// The status after `transition`: the whole table of a container's life.
    ///
    /// A paused process can be killed, so `Exit` is valid there too.
    ///
    /// # Errors
    /// The transition is not in the table. `Stopped` is final.
    pub fn after(self, transition: Transition) -> Result<Self, InvalidTransition> {
        match (self, transition) {
            (Self::Creating, Transition::Create) => Ok(Self::Created),
            (Self::Created, Transition::Start) => Ok(Self::Running),
            (Self::Running, Transition::Pause) => Ok(Self::Paused),
            (Self::Paused, Transition::Resume) => Ok(Self::Running),
            (Self::Creating | Self::Created | Self::Running | Self::Paused, Transition::Exit) => {
                Ok(Self::Stopped)
            }
            (from, transition) => Err(InvalidTransition { from, transition }),
        }
    }

    /// Whether there is a process: created, running or paused.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused)
    }

    /// The status as OCI writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Exit => "end",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_transitions_are_valid() {
        use Status::{Created, Creating, Paused, Running, Stopped};
        use Transition::{Create, Exit, Pause, Resume, Start};
        let valid = [
            (Creating, Create, Created),
            (Created, Start, Running),
            (Running, Pause, Paused),
            (Paused, Resume, Running),
            (Creating, Exit, Stopped),
            (Created, Exit, Stopped),
            (Running, Exit, Stopped),
            (Paused, Exit, Stopped),
        ];
        for from in Status::ALL {
            for transition in [Create, Start, Pause, Resume, Exit] {
                let expected = valid
                    .iter()
                    .find(|(status, step, _)| (*status, *step) == (from, transition))
                    .map(|(_, _, to)| *to);
                assert_eq!(from.after(transition).ok(), expected, "{from} {transition}");
            }
        }
    }

    #[test]
    fn refused_transition_names_action_and_status() {
        let error = Status::Running.after(Transition::Start).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot start a container that is running"
        );
    }

    #[test]
    fn the_names_are_those_of_oci_in_text_and_in_json() {
        for status in Status::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(status.to_string(), status.as_str());
        }
    }
}
