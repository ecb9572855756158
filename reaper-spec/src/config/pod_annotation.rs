//! The annotations of Reaper's own.

/// An annotation of Reaper's own, `reaper.runtime/KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PodAnnotation {
    /// `overlay-scope`: who shares the pod's overlay.
    OverlayScope,
    /// `overlay-name`: the group that shares the pod's overlay.
    OverlayName,
    /// `dns-mode`: whose name resolution the pod sees.
    DnsMode,
    /// `network`: whose network the pod uses.
    Network,
    /// `image`: what becomes of the image.
    Image,
}

impl PodAnnotation {
    /// What stands before the key.
    pub const PREFIX: &'static str = "reaper.runtime/";

    /// Every annotation.
    pub const ALL: &[Self] = &[
        Self::OverlayScope,
        Self::OverlayName,
        Self::DnsMode,
        Self::Network,
        Self::Image,
    ];

    /// The key, without the prefix.
    pub fn key(self) -> &'static str {
        match self {
            Self::OverlayScope => "overlay-scope",
            Self::OverlayName => "overlay-name",
            Self::DnsMode => "dns-mode",
            Self::Network => "network",
            Self::Image => "image",
        }
    }

    /// The annotation with this key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|annotation| annotation.key() == key)
    }

    /// The name, with the prefix.
    pub(super) fn full(self) -> String {
        format!("{}{}", Self::PREFIX, self.key())
    }
}
