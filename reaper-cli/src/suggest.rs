//! What a mistyped name was probably meant to be.

use reaper_exec::engine::Error as EngineError;
use reaper_state::{Error as StoreError, StateStore};

use crate::error::Error;

/// An error about a container that does not exist, with the one that was probably meant.
pub(crate) fn explain(error: Error, store: &dyn StateStore) -> Error {
    let Error::Engine(EngineError::Store(StoreError::NotFound { id })) = &error else {
        return error;
    };
    let known = store.list().unwrap_or_default();
    match closest(id.as_str(), &known) {
        Some(meant) => Error::Unknown {
            id: id.clone(),
            meant: meant.clone(),
        },
        None => error,
    }
}

/// The only one that begins so, or the one with the fewest differences, if they are few.
pub(crate) fn closest<'a, T: AsRef<str>>(name: &str, known: &'a [T]) -> Option<&'a T> {
    let mut begins = known
        .iter()
        .filter(|other| other.as_ref().starts_with(name));
    if let (Some(only), None) = (begins.next(), begins.next()) {
        return Some(only);
    }
    let tolerated = (name.len() / 3).clamp(1, 3);
    known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(name, other.as_ref()), other))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use reaper_spec::ContainerId;

    use super::*;

    #[test]
    fn suggestion_is_closest_unambiguous_name() {
        let known =
            ["web-1", "web-2", "database-of-shop", "x"].map(|id| ContainerId::new(id).unwrap());
        let meant = |id: &str| closest(id, &known).map(ContainerId::as_str);
        assert_eq!(meant("wbe-1"), Some("web-1"));
        assert_eq!(meant("web_2"), Some("web-2"));
        assert_eq!(meant("data"), Some("database-of-shop"));
        assert_eq!(meant("databse-of-shop"), Some("database-of-shop"));
        assert_eq!(meant("mail"), None);
        assert_eq!(meant("web"), None, "it could be either");
    }
}
