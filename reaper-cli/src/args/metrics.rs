//! Options of `metrics`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::Args;

/// Print figures of this machine's containers and overlays for Prometheus
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime metrics
  reaper-runtime metrics --output /var/lib/node_exporter/textfile/reaper.prom
  reaper-runtime metrics --listen 9469                   on 127.0.0.1
  reaper-runtime metrics --listen /run/reaper.sock       for root alone
  reaper-runtime metrics --listen 0.0.0.0:9469 --public

They are of all of containerd's namespaces, unless --namespace names one. What is done to containers is counted from the
first call on, and anew after a boot.")]
pub(crate) struct MetricsArgs {
    /// Replace this file, for the textfile collector of node-exporter
    #[arg(long, short, value_name = "FILE", conflicts_with = "listen")]
    pub(crate) output: Option<PathBuf>,

    /// Serve them by HTTP at /metrics: on a port of 127.0.0.1, on ADDRESS:PORT, or on a socket in the filesystem
    #[arg(long, value_name = "PORT|ADDRESS:PORT|PATH")]
    pub(crate) listen: Option<Listen>,

    /// Let other machines read them: listen on an address that is not of the loopback interface
    #[arg(long, requires = "listen")]
    pub(crate) public: bool,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Listen {
    /// Whether other machines can connect.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        if let Ok(port) = text.parse() {
            let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
            return Ok(Self::Tcp(SocketAddr::new(loopback, port)));
        }
        let address = text.parse().map_err(|_| {
            "write a port, an IP address and a port (127.0.0.1:9469, [::1]:9469), or a path with a slash"
        })?;
        Ok(Self::Tcp(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_machine() {
        let parsed = |text: &str| text.parse::<Listen>();
        assert_eq!(parsed("9469"), parsed("127.0.0.1:9469"));
        assert_eq!(parsed("./x"), Ok(Listen::Unix("./x".into())));
        for text in ["", "x", ":1", "1.2.3.4", "localhost:1", "65536", "-1"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_loopback_interface_is_not_public() {
        for (text, expected) in [
            ("9469", false),
            ("127.8.9.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("/x", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
            ("[::ffff:10.0.0.1]:1", true),
        ] {
            assert_eq!(
                text.parse::<Listen>().unwrap().is_public(),
                expected,
                "{text}"
            );
        }
    }
}
