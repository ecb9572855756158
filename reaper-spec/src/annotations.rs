//! The annotations that have a meaning here.

use std::collections::BTreeMap;

/// What a sandbox's or a container's CRI annotations say (`io.kubernetes.cri.*`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CriAnnotations {
    /// `container-type`.
    pub container_type: Option<ContainerType>,
    /// `sandbox-id`: the pod's sandbox.
    pub sandbox_id: Option<String>,
    /// `sandbox-namespace`: the Kubernetes namespace.
    pub sandbox_namespace: Option<String>,
    /// `sandbox-name`: the pod's name.
    pub sandbox_name: Option<String>,
    /// `sandbox-uid`: the pod's uid.
    pub sandbox_uid: Option<String>,
    /// `container-name`: the name in the pod.
    pub container_name: Option<String>,
    /// `image-name`.
    pub image_name: Option<String>,
}

/// What a bundle is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerType {
    /// The pod itself, whose process is the pause container of the image world.
    Sandbox,
    /// A container of the pod.
    Container,
}

impl CriAnnotations {
    /// Reads `annotations`; what is absent is `None`.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Self {
        let get = |key: &str| {
            annotations
                .get(&format!("io.kubernetes.cri.{key}"))
                .cloned()
        };
        Self {
            container_type: match get("container-type").as_deref() {
                Some("sandbox") => Some(ContainerType::Sandbox),
                Some("container") => Some(ContainerType::Container),
                _ => None,
            },
            sandbox_id: get("sandbox-id"),
            sandbox_namespace: get("sandbox-namespace"),
            sandbox_name: get("sandbox-name"),
            sandbox_uid: get("sandbox-uid"),
            container_name: get("container-name"),
            image_name: get("image-name"),
        }
    }
}
