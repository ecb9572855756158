//! The node's configuration.

mod annotations;
mod container;
mod document;
mod input;
mod keys;
mod load;
mod pod_annotation;
mod policy;
mod sources;
mod types;

pub use self::{
    load::DEFAULT_CONFIG_FILE,
    pod_annotation::PodAnnotation,
    sources::SettingSource,
    types::{
        AnnotationPolicy, CgroupMode, Config, DeviceMode, DnsMode, HookMode, ImageMode, LogConfig,
        MaskConfig, MonitorCgroupMode, NetworkMode, OverlayConfig, PidMode, RetentionConfig,
        StoreKind,
    },
};
