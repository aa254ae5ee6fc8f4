//! Headers without which a message cannot be sent, and the answers in place of one that filters removed them from.

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::LocalReply;

/// What a request cannot be sent upstream without and does not have, because filters removed it.
pub(crate) fn missing_header(request: &HeaderMap) -> Option<&'static str> {
    let target = match request.get_known(KnownHeader::Method) {
        None => return Some(":method"),
        Some(b"CONNECT") => KnownHeader::Authority,
        Some(_) => KnownHeader::Path,
    };
    (!request.contains_known(target)).then_some(target.as_str())
}

/// The answer to a request that filters left without the header of this name.
#[cold]
pub(crate) fn incomplete_request(missing: &str) -> LocalReply {
    let details = format!("filter_removed_required_request_headers{{missing_required_header:_{missing}}}");
    LocalReply::new(503, format!("missing required header: {missing}").into_bytes(), details)
        .flag(ResponseFlag::DownstreamProtocolError)
}

/// The answer in place of a response that filters left without its status.
#[cold]
pub(crate) fn incomplete_response() -> LocalReply {
    let details = "filter_removed_required_response_headers{missing_required_header:_:status}";
    LocalReply::new(502, &b"missing required header: :status"[..], details)
}
