//! Reading the JSON of records and messages, with errors that name the place in it.

use std::io;

use serde::de::DeserializeOwned;
use serde_json::Deserializer;

/// Parses a whole document.
///
/// # Errors
/// It is not JSON, or not of the type: then the place is named, as in `view.mounts[2].options`, unless
/// it is the document.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> io::Result<T> {
    let mut document = Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let place = error.path().to_string();
        let error = io::Error::from(error.into_inner());
        match place.as_str() {
            "." => error,
            _ => io::Error::new(error.kind(), format!("{place}: {error}")),
        }
    })?;
    document.end()?;
    Ok(value)
}
