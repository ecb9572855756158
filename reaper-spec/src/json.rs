//! Reading a JSON document by hand, with errors that name the place.
//!
//! serde's derived readers say what is wrong but not where, refuse the `null` that Go writes for
//! an empty list, and can't tell a missing value from a wrong one in their messages.

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use serde_json::{Map, Value};

use crate::error::{Error, Invalid, Origin, quoted};

type Result<T, E = Invalid> = std::result::Result<T, E>;

/// Parses a whole document.
pub(crate) fn parse(json: &[u8], origin: &Origin) -> Result<Value, Error> {
    serde_json::from_slice(json).map_err(|error| {
        let mut problem = error.to_string();
        if let Some(place) = problem.strip_prefix("recursion limit exceeded") {
            problem = format!("it is nested too deeply{place}");
        }
        Error::Syntax {
            origin: origin.clone(),
            format: "JSON",
            problem,
        }
    })
}

/// A place in a document. A chain on the stack, so that naming places costs nothing until
/// something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> At<'a> {
        At::Key(self, key)
    }

    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        At::Index(self, index)
    }

    pub(crate) fn invalid(
        self,
        expected: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
    ) -> Invalid {
        let at = match self {
            At::Root => "the document".to_owned(),
            _ => self.to_string(),
        };
        Invalid {
            at,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Key(parent, key) => {
                parent.fmt(f)?;
                let plain = key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                match (plain && !key.is_empty(), parent) {
                    (true, At::Root) => f.write_str(key),
                    (true, _) => write!(f, ".{key}"),
                    (false, _) => write!(f, "[{key:?}]"),
                }
            }
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A value at its place. `None` is a value that is not there; `null` counts as one too, except in
/// messages.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) at: At<'a>,
    value: Option<&'a Value>,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            at: At::Root,
            value: Some(value),
        }
    }

    pub(crate) fn object(&self, expected: &'static str) -> Result<&'a Map<String, Value>> {
        match self.value {
            Some(Value::Object(map)) => Ok(map),
            _ => Err(self.invalid(expected)),
        }
    }

    /// The member `key` of an object; of something absent it is absent too.
    pub(crate) fn get<'b>(&'b self, key: &'b str) -> Result<Node<'b>> {
        let value = match self.present() {
            None => None,
            Some(_) => self.object("an object")?.get(key),
        };
        Ok(Node {
            at: self.at.key(key),
            value,
        })
    }

    pub(crate) fn present(&self) -> Option<Self> {
        self.value.filter(|value| !value.is_null()).map(|_| *self)
    }

    /// The value, `null` if it is absent.
    pub(crate) fn value(&self) -> &'a Value {
        self.value.unwrap_or(&Value::Null)
    }

    /// Reads it if it is there.
    pub(crate) fn opt<T>(&self, read: impl FnOnce(&Self) -> Result<T>) -> Result<Option<T>> {
        self.present().map(|node| read(&node)).transpose()
    }

    /// A string without NUL bytes: nothing that goes to the kernel may have one.
    pub(crate) fn string(&self) -> Result<&'a str> {
        match self.value {
            Some(Value::String(text)) => {
                check_nul(text.as_bytes(), self.at)?;
                Ok(text)
            }
            _ => Err(self.invalid("a string")),
        }
    }

    pub(crate) fn owned(&self) -> Result<String> {
        self.string().map(str::to_owned)
    }

    /// A text that may be absent or empty, which is the same: Go leaves out what is empty.
    pub(crate) fn text(&self) -> Result<Option<String>> {
        let text = self.opt(Self::owned)?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    pub(crate) fn boolean(&self) -> Result<bool> {
        self.value
            .and_then(Value::as_bool)
            .ok_or_else(|| self.invalid("true or false"))
    }

    /// An integer in `range`.
    pub(crate) fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T>
    where
        T: TryFrom<i128> + PartialOrd + fmt::Display,
    {
        let number = match self.value {
            Some(Value::Number(number)) => number
                .as_u64()
                .map(i128::from)
                .or_else(|| number.as_i64().map(i128::from)),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.invalid(format!(
                    "an integer from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// The elements of an array; none if it is absent.
    pub(crate) fn items<T>(
        &self,
        expected: &'static str,
        read: impl Fn(&Node<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let items = match self.value {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.invalid(expected)),
        };
        let node = |(index, value)| Node {
            at: self.at.index(index),
            value: Some(value),
        };
        items
            .iter()
            .enumerate()
            .map(|item| read(&node(item)))
            .collect()
    }

    pub(crate) fn invalid(&self, expected: impl Into<Cow<'static, str>>) -> Invalid {
        let found = match self.value {
            None => "nothing".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Number(number)) => format!("the number {number}"),
            Some(Value::String(text)) => format!("the string {}", quoted(text)),
            Some(Value::Array(_)) => "an array".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
        };
        self.at.invalid(expected, found)
    }
}

/// Refuses a NUL byte, naming its place.
pub(crate) fn check_nul(bytes: &[u8], at: At<'_>) -> Result<()> {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(offset) => Err(at.invalid("text without NUL", format!("NUL at byte {offset}"))),
        None => Ok(()),
    }
}
