//! Words of the specification.

/// An enumeration whose values are written as the specification names them, and read with an error
/// that lists them.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs, reason = "the names are the specification's")]
        pub enum $type {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl $type {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the specification.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            pub(crate) fn read(
                node: &$crate::json::Node<'_>,
            ) -> std::result::Result<Self, $crate::error::Invalid> {
                let text = node.string()?;
                let mut all = Self::ALL.iter().copied();
                all.find(|one| one.as_str() == text).ok_or_else(|| {
                    let names = [$($name),*];
                    node.invalid(format!("one of {}", names.join(", ")))
                })
            }
        }
    };
}
pub(crate) use words;
