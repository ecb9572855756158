//! `version`.

use std::io::Write;

use reaper_spec::OCI_VERSION;

use super::output::print;
use crate::{error::Result, outcome::ExitAction};

/// Engines look for `version X` in the first line, and for `spec:`.
pub(crate) fn run(out: &mut dyn Write) -> Result<ExitAction> {
    let version = env!("CARGO_PKG_VERSION");
    print(
        out,
        format_args!("reaper-runtime version {version}\nspec: {OCI_VERSION}\n"),
    )?;
    Ok(ExitAction::DONE)
}
