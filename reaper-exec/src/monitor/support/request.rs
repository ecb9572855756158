//! Parsing requests.

use crate::{
    channel,
    protocol::{Envelope, Failure, RequestMessage, ResponseMessage, UNKNOWN_REQUEST, VERSION},
};

/// Parses a request.
///
/// # Errors
/// The response to a request that cannot be parsed, or that is of a newer version.
pub(crate) fn parse(message: &channel::Message) -> Result<RequestMessage, Box<ResponseMessage>> {
    let refuse = |serial, reason| {
        Box::new(ResponseMessage {
            serial,
            response: Err(Failure::Refused { reason }),
        })
    };
    let Envelope { version, serial } = message
        .parse()
        .map_err(|error| refuse(0, format!("the request is garbage: {error}")))?;
    if version > VERSION {
        let reason = format!(
            "the request is of protocol version {version}, this monitor speaks up to {VERSION}: \
             it was started by an older Reaper"
        );
        return Err(refuse(serial, reason));
    }
    message
        .parse()
        .map_err(|error| refuse(serial, format!("{UNKNOWN_REQUEST}: {error}")))
}
