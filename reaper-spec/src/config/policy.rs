//! The values of the table `[policy]`.

use std::str::FromStr;

use toml::Value;

use super::input::{Input, Wrong};
use crate::{
    overlay_scope::OverlayScope,
    policy::{HostPath, IdRange, RlimitCeiling},
};

/// The table's name.
pub(super) const POLICY: &str = "policy";

/// What lists of a policy have in them.
pub(super) trait Item: Sized {
    /// A noun for messages.
    const EXPECTED: &'static str;

    fn read(text: &str) -> Option<Self>;
}

/// A list, of which each item is named that is wrong. Numbers are items too.
pub(super) fn items<T: Item>(input: Input<'_>) -> Result<Option<Vec<T>>, Wrong> {
    let wrong = |expected: &'static str, found: String| Wrong {
        expected: expected.into(),
        found,
    };
    let Input::Toml(Value::Array(values)) = input else {
        return Err(wrong("a list", input.describe()));
    };
    let item = |value: &Value| {
        let read = match value {
            Value::String(text) => T::read(text),
            Value::Integer(number) => T::read(&number.to_string()),
            _ => None,
        };
        read.ok_or_else(|| wrong(T::EXPECTED, Input::Toml(value).describe()))
    };
    values.iter().map(item).collect::<Result<_, _>>().map(Some)
}

macro_rules! parsed {
    ($($type:ty: $expected:literal)*) => {$(
        impl Item for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                Self::from_str(text).ok()
            }
        }
    )*};
}

parsed! {
    IdRange: "ids such as 0 and \"1000-1999\""
    HostPath: "absolute paths, with :ro behind those that may only be read"
    RlimitCeiling: "limits such as \"RLIMIT_NOFILE=65536\""
}

/// A text that was checked.
macro_rules! checked {
    ($($name:ident: $expected:literal, |$text:ident| $check:expr;)*) => {$(
        pub(super) struct $name(String);

        impl Item for $name {
            const EXPECTED: &'static str = $expected;

            fn read($text: &str) -> Option<Self> {
                $check.then(|| Self($text.to_owned()))
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> Self {
                checked.0
            }
        }
    )*};
}

checked! {
    Command: "globs of absolute paths, such as \"/usr/bin/*\"",
        |text| text.starts_with('/') && glob::Pattern::new(text).is_ok();
    Capability: "capabilities such as \"CAP_NET_ADMIN\"",
        |text| text.strip_prefix("CAP_").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        });
    Scope: "overlay scopes: node, namespace, pod, container, group:NAME or group:*",
        |text| text == "group:*" || text.parse::<OverlayScope>().is_ok();
}

pub(super) fn texts<T: Into<String>>(items: Vec<T>) -> Vec<String> {
    items.into_iter().map(Into::into).collect()
}
