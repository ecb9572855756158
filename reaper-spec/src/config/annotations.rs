//! What a pod may change, by annotation.

use std::{collections::BTreeMap, ffi::OsStr};

use super::{
    input::{Input, Setting, Wrong},
    keys::suggest,
    pod_annotation::PodAnnotation,
    types::Config,
};
use crate::{
    error::{Error, Invalid, Origin},
    overlay_scope::OverlayScope,
};

impl Config {
    /// Applies the `reaper.runtime/*` annotations of a pod; others are not looked at.
    ///
    /// It fails closed: an annotation that is unknown or not in
    /// [`AnnotationPolicy::allow`](crate::AnnotationPolicy::allow) is an error, because a pod
    /// that asks for something and runs without it is worse than one that doesn't run. The
    /// overlay's scope can be made more isolated, never less
    /// ([`OverlayScope::isolates_at_least`]). Naming a group, by `overlay-name: NAME` or by
    /// `overlay-scope: group:NAME`, needs `overlay-name` in the list.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use reaper_spec::{Config, OverlayScope};
    ///
    /// let pod = BTreeMap::from([("reaper.runtime/overlay-scope".into(), "pod".into())]);
    /// let mut config = Config::default();
    /// assert!(config.apply_annotations(&pod).is_err(), "the node has not allowed it");
    ///
    /// config.annotations.allow.push("overlay-scope".into());
    /// config.apply_annotations(&pod)?;
    /// assert_eq!(config.overlay.scope, OverlayScope::Pod);
    /// # Ok::<(), reaper_spec::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first annotation that cannot be honoured. Nothing was changed then.
    pub fn apply_annotations(
        &mut self,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let mut changed = self.clone();
        let (mut scope, mut group) = (None, None);
        for (name, value) in annotations {
            let Some(key) = name.strip_prefix(PodAnnotation::PREFIX) else {
                continue;
            };
            let annotation = PodAnnotation::from_key(key).ok_or_else(|| unknown(name, key))?;
            self.allowed(annotation)?;
            match annotation {
                PodAnnotation::OverlayScope => scope = Some(value.as_str()),
                PodAnnotation::OverlayName => group = Some(value.as_str()),
                PodAnnotation::DnsMode => changed.dns = read(annotation, value)?,
                PodAnnotation::Network => changed.network = read(annotation, value)?,
                PodAnnotation::Image => changed.image = read(annotation, value)?,
            }
        }
        if let Some(scope) = overlay_scope(scope, group)? {
            if matches!(scope, OverlayScope::Group(_)) {
                self.allowed(PodAnnotation::OverlayName)?;
            }
            if !scope.isolates_at_least(&self.overlay.scope) {
                return Err(Error::LessIsolation {
                    asked: scope,
                    node: self.overlay.scope.clone(),
                });
            }
            changed.overlay.scope = scope;
        }
        *self = changed;
        Ok(())
    }

    fn allowed(&self, annotation: PodAnnotation) -> Result<(), Error> {
        let key = annotation.key();
        if self.annotations.allow.iter().any(|allowed| allowed == key) {
            return Ok(());
        }
        Err(Error::AnnotationNotAllowed {
            annotation: annotation.full(),
            key: key.to_owned(),
        })
    }
}

/// The scope that the two annotations about it ask for together.
fn overlay_scope(scope: Option<&str>, group: Option<&str>) -> Result<Option<OverlayScope>, Error> {
    let named = match group {
        Some(name) => Some(OverlayScope::group(name).map_err(|error| {
            let expected = format!("the name of a group ({error})");
            wrong(
                PodAnnotation::OverlayName,
                Wrong {
                    expected: expected.into(),
                    found: found(name),
                },
            )
        })?),
        None => None,
    };
    match (scope, named) {
        (None | Some("group"), Some(named)) => Ok(Some(named)),
        (None, None) => Ok(None),
        (Some(text), named) => {
            let scope = read::<OverlayScope>(PodAnnotation::OverlayScope, text)?;
            match named {
                Some(named) if named != scope => Err(wrong(
                    PodAnnotation::OverlayScope,
                    Wrong {
                        expected: format!(
                            "group, as {} is there",
                            PodAnnotation::OverlayName.full()
                        )
                        .into(),
                        found: found(text),
                    },
                )),
                _ => Ok(Some(scope)),
            }
        }
    }
}

fn read<T: Setting>(annotation: PodAnnotation, value: &str) -> Result<T, Error> {
    Input::Text(OsStr::new(value))
        .read()
        .map_err(|problem| wrong(annotation, problem))
}

fn wrong(annotation: PodAnnotation, Wrong { expected, found }: Wrong) -> Error {
    Invalid {
        at: annotation.full(),
        expected,
        found,
    }
    .of(Origin::Annotations)
}

fn found(text: &str) -> String {
    crate::error::quoted(text)
}

fn unknown(name: &str, key: &str) -> Error {
    let keys = PodAnnotation::ALL.iter().map(|annotation| annotation.key());
    let suggestion = suggest(key, keys).map(|key| format!("{}{key}", PodAnnotation::PREFIX));
    Error::UnknownKey {
        origin: Origin::Annotations,
        key: name.to_owned(),
        suggestion,
    }
}
