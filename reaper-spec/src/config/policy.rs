//! The values of the table `[policy]`.

use std::str::FromStr;

use toml::Value;

use super::input::{Input, Wrong};
use crate::{
    overlay_scope::OverlayScope,
    policy::{HostPath, IdRange, RlimitCeiling},
    process::Capabilities,
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
    Command: "globs that an absolute path can match, without empty parts, . and .., such as \"/usr/bin/*\"",
        |text| can_match(text) && glob::Pattern::new(text).is_ok();
    Namespace: "names of Kubernetes namespaces, such as \"batch\"",
        |text| is_label(text);
    Capability: "capabilities as in capabilities(7), such as \"CAP_NET_ADMIN\"",
        |text| Capabilities::NAMES.contains(&text);
    Scope: "overlay scopes: node, namespace, pod, container, group:NAME or group:*",
        |text| text == "group:*" || text.parse::<OverlayScope>().is_ok();
}

/// Whether a path as it is compared, without `.` and `..` and doubled slashes, can match.
fn can_match(glob: &str) -> bool {
    let parts = glob.strip_prefix('/').map(|rest| rest.split('/'));
    parts.is_some_and(|mut parts| parts.all(|part| !["", ".", ".."].contains(&part)))
}

/// Whether it is a label as in RFC 1123, as Kubernetes demands of a namespace.
fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let at_ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63
        && at_ends.into_iter().all(|end| end.is_some_and(is_plain))
        && text.bytes().all(|byte| is_plain(byte) || byte == b'-')
}

pub(super) fn texts<T: Into<String>>(items: Vec<T>) -> Vec<String> {
    items.into_iter().map(Into::into).collect()
}
