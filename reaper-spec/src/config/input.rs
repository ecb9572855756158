//! Values of settings, as files and as environment variables write them.

use std::{borrow::Cow, ffi::OsStr, path::PathBuf, time::Duration};

use toml::Value;

use super::{
    pod_annotation::PodAnnotation,
    types::{
        CgroupMode, DeviceMode, DnsMode, HookMode, ImageMode, MonitorCgroupMode, NetworkMode,
        PidMode, StoreKind,
    },
};
use crate::{error::quoted, overlay_scope::OverlayScope, policy::Privileges};

/// How many items of a list a message shows.
const LONGEST_LIST: usize = 8;

/// A setting's value before it is understood.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Toml(&'a Value),
    Text(&'a OsStr),
}

/// What would have been right, and what is there.
pub(super) struct Wrong {
    pub(super) expected: Cow<'static, str>,
    pub(super) found: String,
}

impl Input<'_> {
    pub(super) fn read<T: Setting>(self) -> Result<T, Wrong> {
        let value = match self {
            Input::Toml(value) => T::from_toml(value),
            Input::Text(text) => T::from_text(text),
        };
        value.ok_or_else(|| Wrong {
            expected: T::EXPECTED.into(),
            found: self.describe(),
        })
    }

    /// The value in words.
    pub(super) fn describe(self) -> String {
        match self {
            Input::Text(text) => quoted(&text.to_string_lossy()),
            Input::Toml(Value::String(text)) => quoted(text),
            Input::Toml(Value::Integer(number)) => format!("the number {number}"),
            Input::Toml(Value::Float(number)) => format!("the number {number}"),
            Input::Toml(Value::Boolean(value)) => value.to_string(),
            Input::Toml(Value::Datetime(_)) => "a date".to_owned(),
            Input::Toml(Value::Array(items)) => {
                let shown = items
                    .iter()
                    .take(LONGEST_LIST)
                    .map(|item| Input::Toml(item).describe());
                let more = if items.len() > LONGEST_LIST {
                    ", …"
                } else {
                    ""
                };
                format!("[{}{more}]", shown.collect::<Vec<_>>().join(", "))
            }
            Input::Toml(Value::Table(_)) => "a table".to_owned(),
        }
    }
}

/// A type of settings.
pub(super) trait Setting: Sized {
    /// A noun for messages.
    const EXPECTED: &'static str;

    fn from_text(text: &OsStr) -> Option<Self>;

    fn from_toml(value: &Value) -> Option<Self> {
        Self::from_text(value.as_str()?.as_ref())
    }
}

impl<T: Setting> Setting for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_text(text: &OsStr) -> Option<Self> {
        T::from_text(text).map(Some)
    }

    fn from_toml(value: &Value) -> Option<Self> {
        T::from_toml(value).map(Some)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &OsStr) -> Option<Self> {
        match text.to_str()?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "an absolute path";

    fn from_text(text: &OsStr) -> Option<Self> {
        let path = PathBuf::from(text);
        let nul = text.as_encoded_bytes().contains(&0);
        (path.is_absolute() && !nul).then_some(path)
    }
}

/// A program: an absolute path, or a name that is looked up in `PATH`.
pub(super) struct Program(pub(super) PathBuf);

impl Setting for Program {
    const EXPECTED: &'static str = "an absolute path, or the name of a program in PATH";

    fn from_text(text: &OsStr) -> Option<Self> {
        let bytes = text.as_encoded_bytes();
        let name = !bytes.is_empty() && !bytes.contains(&b'/') && !bytes.contains(&0);
        if name {
            Some(Self(text.into()))
        } else {
            PathBuf::from_text(text).map(Self)
        }
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &OsStr) -> Option<Self> {
        text.to_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }
}

/// A number of bytes.
pub(super) struct Size(pub(super) u64);

impl Setting for Size {
    const EXPECTED: &'static str = "a size such as \"512MiB\", or a number of bytes above 0";

    fn from_text(text: &OsStr) -> Option<Self> {
        let text = text.to_str()?.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" | "Ki" => 1 << 10,
            "MiB" | "Mi" => 1 << 20,
            "GiB" | "Gi" => 1 << 30,
            "TiB" | "Ti" => 1 << 40,
            "kB" | "k" => 1000,
            "MB" | "M" => 1000_u64.pow(2),
            "GB" | "G" => 1000_u64.pow(3),
            "TB" | "T" => 1000_u64.pow(4),
            _ => return None,
        };
        let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
        (bytes > 0).then_some(Self(bytes))
    }

    fn from_toml(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(bytes) => u64::try_from(*bytes)
                .ok()
                .filter(|bytes| *bytes > 0)
                .map(Self),
            value => Self::from_text(value.as_str()?.as_ref()),
        }
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a number, 0 or more";

    fn from_text(text: &OsStr) -> Option<Self> {
        text.to_str()?.trim().parse().ok()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }
}

/// A length of time. A bare number is refused, since it has no unit.
pub(super) struct Age(pub(super) Duration);

impl Setting for Age {
    const EXPECTED: &'static str = "a time such as \"7d\" or \"12h 30m\"";

    fn from_text(text: &OsStr) -> Option<Self> {
        let text = text.to_str()?;
        let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        let age = humantime::parse_duration(text).ok()?;
        has_unit.then_some(Self(age))
    }
}

impl Setting for Vec<PathBuf> {
    const EXPECTED: &'static str = "a list of absolute paths";

    /// Separated by commas.
    fn from_text(text: &OsStr) -> Option<Self> {
        let items = Vec::<String>::from_text(text)?;
        let item = |item: &String| PathBuf::from_text(item.as_ref());
        items.iter().map(item).collect()
    }

    fn from_toml(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(PathBuf::from_toml).collect()
    }
}

impl Setting for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";

    /// Separated by commas.
    fn from_text(text: &OsStr) -> Option<Self> {
        let items = text.to_str()?.split(',').map(str::trim);
        Some(
            items
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn from_toml(value: &Value) -> Option<Self> {
        let item = |item: &Value| String::from_toml(item);
        value.as_array()?.iter().map(item).collect()
    }
}

/// The keys of annotations that pods may use.
pub(super) struct AllowedAnnotations(pub(super) Vec<String>);

impl Setting for AllowedAnnotations {
    const EXPECTED: &'static str =
        "a list of overlay-scope, overlay-name, dns-mode, network and image";

    fn from_text(text: &OsStr) -> Option<Self> {
        Vec::from_text(text).and_then(Self::known)
    }

    fn from_toml(value: &Value) -> Option<Self> {
        Vec::from_toml(value).and_then(Self::known)
    }
}

impl AllowedAnnotations {
    fn known(keys: Vec<String>) -> Option<Self> {
        keys.iter()
            .all(|key| PodAnnotation::from_key(key).is_some())
            .then_some(Self(keys))
    }
}

impl Setting for OverlayScope {
    const EXPECTED: &'static str = "node, namespace, pod, container or group:NAME";

    fn from_text(text: &OsStr) -> Option<Self> {
        text.to_str()?.parse().ok()
    }
}

/// `true` and `false` are what the setting took before it had words.
impl Setting for CgroupMode {
    const EXPECTED: &'static str = "enforce, track or off";

    fn from_text(text: &OsStr) -> Option<Self> {
        match text.to_str()? {
            "enforce" => Some(Self::Enforce),
            "track" => Some(Self::Track),
            _ => bool::from_text(text).map(Self::from_switch),
        }
    }

    fn from_toml(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(on) => Some(Self::from_switch(*on)),
            _ => Self::from_text(value.as_str()?.as_ref()),
        }
    }
}

impl CgroupMode {
    fn from_switch(on: bool) -> Self {
        if on { Self::Enforce } else { Self::Off }
    }
}

macro_rules! words {
    ($type:ident, $expected:literal, $($word:literal => $variant:ident),+) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &OsStr) -> Option<Self> {
                match text.to_str()? {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

words!(StoreKind, "file or sqlite", "file" => File, "sqlite" => Sqlite);
words!(DeviceMode, "spec or node", "spec" => Spec, "node" => Node);
words!(DnsMode, "spec, pod or host", "spec" => Spec, "pod" => Spec, "host" => Host);
words!(HookMode, "spec or off", "spec" => Spec, "off" => Off);
words!(MonitorCgroupMode, "node or pod", "node" => Node, "pod" => Pod);
words!(NetworkMode, "spec or host", "spec" => Spec, "host" => Host);
words!(PidMode, "host or private", "host" => Host, "private" => Private);
words!(Privileges, "spec or node", "spec" => Spec, "node" => Node);
words!(ImageMode, "ignore, beneath or at", "ignore" => None, "beneath" => Lower, "at" => MountAt);
