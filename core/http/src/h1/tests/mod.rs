//! Cases measured on Envoy 1.40.0, and properties that hold for any input.

mod bodies;
mod pieces;
mod requests;
mod responses;
mod writing;

use super::*;
use crate::HeaderMap;

/// Parses a complete buffer as a request head.
fn request(raw: &[u8]) -> Result<(RequestInfo, HeaderMap, usize), RequestError> {
    request_with(raw, &RequestOptions::default())
}

fn request_with(
    raw: &[u8],
    options: &RequestOptions,
) -> Result<(RequestInfo, HeaderMap, usize), RequestError> {
    let mut head = HeaderMap::new();
    match parse_request(raw, &mut HeadProgress::default(), options, &mut head)? {
        Parsed::Complete { consumed, info } => Ok((info, head, consumed)),
        Parsed::Partial => panic!("incomplete: {}", raw.escape_ascii()),
    }
}

fn response(raw: &[u8], answering: Answering) -> Result<(ResponseInfo, HeaderMap, usize), ResponseError> {
    let mut head = HeaderMap::new();
    let options = ResponseOptions::default();
    match parse_response(raw, &mut HeadProgress::default(), answering, &options, &mut head)? {
        Parsed::Complete { consumed, info } => Ok((info, head, consumed)),
        Parsed::Partial => panic!("incomplete: {}", raw.escape_ascii()),
    }
}

/// The entries as `name: value` lines, joined by `|`, control and high bytes escaped.
fn text(head: &HeaderMap) -> String {
    let line =
        |(_, name, value): (_, &[u8], &[u8])| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    head.iter().map(line).collect::<Vec<_>>().join("|")
}
