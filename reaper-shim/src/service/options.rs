//! The options that containerd's configuration has for this runtime.

use std::path::Path;

use containerd_shim_protos::protobuf::{CodedInputStream, well_known_types::any::Any};
use reaper_spec::Config;

use crate::{Error, Result};

/// The message in which the CRI passes on the `options` of a runtime that it doesn't know, and
/// its fields.
const MESSAGE: &str = "runtimeoptions.v1.Options";
const CONFIG_PATH: u32 = 2;
const CONFIG_BODY: u32 = 3;

/// Applies the options to the node's configuration. Options of other runtimes, as `ctr` sends
/// them unasked, have no meaning here.
pub(crate) fn apply(config: &mut Config, options: &Any) -> Result<()> {
    if !is_known(options) {
        return Ok(());
    }
    let options = read(&options.value).map_err(|error| Error::Field {
        field: "the runtime's options",
        reason: error.to_string(),
    })?;
    if !options.path.is_empty() {
        config.apply_file(Path::new(&options.path))?;
    }
    if !options.body.is_empty() {
        let text = String::from_utf8(options.body).map_err(|error| Error::Field {
            field: "the runtime's options",
            reason: error.to_string(),
        })?;
        config.apply_options(&text)?;
    }
    Ok(())
}

/// Whether these are options of the kind that has a meaning here.
pub(crate) fn is_known(options: &Any) -> bool {
    options.type_url.ends_with(MESSAGE)
}

#[derive(Default)]
struct Options {
    path: String,
    body: Vec<u8>,
}

fn read(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<Options> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut options = Options::default();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let (field, wire) = (tag >> 3, tag & 7);
        match (field, wire) {
            (CONFIG_PATH, 2) => options.path = input.read_string()?,
            (CONFIG_BODY, 2) => options.body = input.read_bytes()?,
            _ => skip(&mut input, wire)?,
        }
    }
    Ok(options)
}

fn skip(
    input: &mut CodedInputStream<'_>,
    wire: u32,
) -> containerd_shim_protos::protobuf::Result<()> {
    match containerd_shim_protos::protobuf::rt::WireType::new(wire) {
        Some(wire) => input.skip_field(wire),
        None => Err(std::io::Error::other(format!("unknown wire type {wire}")).into()),
    }
}
