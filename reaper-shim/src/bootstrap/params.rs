//! What containerd tells `start`, in each of its ways.

use std::io::{self, IsTerminal, Read};

use containerd_shim::Flags;
use containerd_shim_protos::{
    TASK_API_VERSION,
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::{Message, well_known_types::any::Any},
};

use crate::{Error, Result, service::options};

/// The most that is read from standard input. Options are a few hundred bytes.
const INPUT_LIMIT: u64 = 1 << 20;

/// What containerd tells `start`.
#[derive(Debug, PartialEq)]
pub(super) struct Params {
    /// containerd's own socket: it tells one containerd from another on the same node.
    pub(super) address: String,
    /// Where events go.
    pub(super) events: String,
    /// Where containerd wants the shim's socket.
    pub(super) socket_dir: Option<String>,
    /// Log more.
    pub(super) debug: bool,
    /// The options of the runtime in containerd's configuration.
    pub(super) options: Option<Any>,
    /// How to answer.
    reply: Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// The bare address: every containerd reads it.
    Bare,
    /// The message of those who sent [`BootstrapParams`].
    Message,
}

impl Params {
    /// Puts together what flags, environment and standard input say.
    pub(super) fn read(flags: &Flags) -> Result<Self> {
        let mut input = Vec::new();
        // On a terminal this would wait for the user to type.
        if !io::stdin().is_terminal() {
            io::stdin()
                .take(INPUT_LIMIT)
                .read_to_end(&mut input)
                .map_err(|source| Error::System {
                    operation: "read standard input",
                    source,
                })?;
        }
        Ok(Self::from_parts(flags, &input, |name| {
            std::env::var(name).ok()
        }))
    }

    fn from_parts(flags: &Flags, input: &[u8], env: impl Fn(&str) -> Option<String>) -> Self {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let sent = bootstrap_params(flags, input);
        let reply = if sent.is_some() {
            Reply::Message
        } else {
            Reply::Bare
        };
        let options = match &sent {
            Some(sent) => {
                let mut values = sent.extensions.iter().filter_map(|one| one.value.as_ref());
                values.find(|value| options::is_known(value)).cloned()
            }
            None => Any::parse_from_bytes(input).ok(),
        };
        let sent = sent.unwrap_or_default();
        let address = given(sent.containerd_grpc_address)
            .or_else(|| given(flags.address.clone()))
            .or_else(|| env("GRPC_ADDRESS"))
            .unwrap_or_default();
        let events = given(sent.containerd_ttrpc_address)
            .or_else(|| env("TTRPC_ADDRESS").and_then(given))
            .unwrap_or_else(|| format!("{address}.ttrpc"));
        let debug = flags.debug || reply == Reply::Message && sent.log_level.value() < 0;
        Self {
            address,
            events,
            socket_dir: sent.socket_dir.and_then(given),
            debug,
            options,
            reply,
        }
    }

    /// The answer to containerd, that the shim serves at `address`.
    pub(super) fn answer(&self, address: &str) -> Result<Vec<u8>> {
        match self.reply {
            Reply::Bare => Ok(address.as_bytes().to_vec()),
            Reply::Message => BootstrapResult {
                version: TASK_API_VERSION,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()
            .map_err(|source| Error::Encode {
                message: "the bootstrap result",
                source,
            }),
        }
    }
}

/// The parameters of containerd 2.3 and later. Its predecessors send the runtime's options, which
/// may well decode as parameters; but not as those of this very container.
fn bootstrap_params(flags: &Flags, input: &[u8]) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(input).ok()?;
    (!input.is_empty() && params.instance_id == flags.id && params.namespace == flags.namespace)
        .then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "web".into(),
            namespace: "k8s.io".into(),
            address: "/run/c/c.sock".into(),
            ..Flags::default()
        }
    }

    fn sent() -> BootstrapParams {
        BootstrapParams {
            instance_id: "web".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c/events".into(),
            containerd_grpc_address: "/run/c/other.sock".into(),
            socket_dir: Some("/run/c/s".into()),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn containerd_without_bootstrap_parameters_gets_bare_address() {
        let options = Any {
            type_url: "containerd.runc.v1.Options".into(),
            ..Any::default()
        };
        for input in [vec![], options.write_to_bytes().unwrap(), vec![0xff, 0x01]] {
            let params = Params::from_parts(&flags(), &input, |name| {
                (name == "TTRPC_ADDRESS").then(|| "/run/c/c.sock.ttrpc".to_owned())
            });
            assert_eq!(params.address, "/run/c/c.sock");
            assert_eq!(params.events, "/run/c/c.sock.ttrpc");
            assert_eq!(params.answer("unix:///s").unwrap(), b"unix:///s");
        }
    }

    #[test]
    fn containerd_with_bootstrap_parameters_gets_message() {
        let input = sent().write_to_bytes().unwrap();
        let params = Params::from_parts(&flags(), &input, |_| None);
        assert_eq!(params.address, "/run/c/other.sock");
        assert_eq!(params.events, "/run/c/events");
        assert_eq!(params.socket_dir.as_deref(), Some("/run/c/s"));
        let answer =
            BootstrapResult::parse_from_bytes(&params.answer("unix:///s").unwrap()).unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (3, "unix:///s"));
    }

    #[test]
    fn bootstrap_parameters_of_another_container_are_ignored() {
        let other = BootstrapParams {
            instance_id: "db".into(),
            ..sent()
        };
        let params = Params::from_parts(&flags(), &other.write_to_bytes().unwrap(), |_| None);
        assert_eq!(params.answer("unix:///s").unwrap(), b"unix:///s");
        assert_eq!(
            params.events, "/run/c/c.sock.ttrpc",
            "beside containerd's own socket"
        );
    }
}
