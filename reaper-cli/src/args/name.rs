//! What a command line calls a container.

use std::{fmt, str::FromStr};

use reaper_spec::ContainerId;

/// A container that exists, as a command line names it.
///
/// An id has no slash, and the name of a pod has one, so one is never taken for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerName {
    Id(ContainerId),
    InPod(NameInPod),
}

/// `NAMESPACE/POD[/CONTAINER]`, by the names of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameInPod {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// Without one, the only container of the pod is meant.
    pub(crate) container: Option<String>,
}

impl FromStr for ContainerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('/') {
            let id = text.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Id(id));
        }
        let parts: Vec<_> = text.split('/').collect();
        let (namespace, pod, container) = match parts[..] {
            [namespace, pod] => (namespace, pod, None),
            [namespace, pod, container] => (namespace, pod, Some(container)),
            _ => return Err(NOT_A_NAME.to_owned()),
        };
        if parts.contains(&"") {
            return Err(NOT_A_NAME.to_owned());
        }
        Ok(Self::InPod(NameInPod {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.map(str::to_owned),
        }))
    }
}

const NOT_A_NAME: &str = "write an id, or NAMESPACE/POD or NAMESPACE/POD/CONTAINER";

impl fmt::Display for NameInPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)?;
        match &self.container {
            Some(container) => write!(f, "/{container}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pods_have_a_slash_and_ids_none() {
        let parsed = |text: &str| text.parse::<ContainerName>();
        assert_eq!(
            parsed("web-1"),
            Ok(ContainerName::Id(ContainerId::new("web-1").unwrap()))
        );
        for text in ["default/web", "default/web-0.x/app"] {
            match parsed(text).unwrap() {
                ContainerName::InPod(name) => assert_eq!(name.to_string(), text),
                ContainerName::Id(id) => panic!("{text} is not the id {id}"),
            }
        }
        for text in [
            "/", "a/", "/b", "a//c", "a/b/", "a/b/c/d", "../a/b/c", "", "-x", "a b",
        ] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
    }
}
