//! The node's configuration.

mod annotations;
mod input;
mod keys;
mod load;
mod pod_annotation;
mod types;

pub use self::{
    load::DEFAULT_CONFIG_FILE,
    pod_annotation::PodAnnotation,
    types::{
        AnnotationPolicy, CgroupMode, Config, DeviceMode, DnsMode, ImageMode, LogConfig,
        MaskConfig, NetworkMode, OverlayConfig, PolicyConfig, Privileges, RetentionConfig,
        StoreKind,
    },
};
