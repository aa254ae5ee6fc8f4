//! The gRPC status of a response, from its trailers, its headers or its HTTP status.

use dhow_http::{HeaderMap, KnownHeader, format_decimal};

use crate::context::{FormatContext, NumberFact};

/// How a gRPC status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcStatusStyle {
    Camel,
    Snake,
    Number,
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// The name of a gRPC status as `%GRPC_STATUS%` prints it (`DeadlineExceeded`), if it is one of the well-known ones.
pub fn grpc_status_name(status: u64) -> Option<&'static str> {
    NAMES.get(usize::try_from(status).ok()?).map(|(camel, _)| *camel)
}

/// The gRPC status that an HTTP status stands for in a response without one.
pub fn http_to_grpc_status(status: u64) -> u64 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The HTTP status that a gRPC status stands for where only those are counted.
pub fn grpc_to_http_status(status: u64) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get_known(KnownHeader::ContentType).and_then(|v| v.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+', ..]))
}

/// The status that headers name; -1 for what is no number, as in Envoy.
fn status_in(headers: Option<&HeaderMap>) -> Option<i64> {
    let value = headers?.get_known(KnownHeader::GrpcStatus).filter(|value| !value.is_empty())?;
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    Some(number.and_then(|number| i64::try_from(number).ok()).unwrap_or(-1))
}

/// The gRPC status of a response: of its trailers, its headers, or what its HTTP status stands for.
pub fn grpc_status(context: &dyn FormatContext) -> Option<i64> {
    status_in(context.response_trailers())
        .or_else(|| status_in(context.response_headers()))
        .or_else(|| context.number(NumberFact::ResponseCode).map(|code| http_to_grpc_status(code) as i64))
}

pub(crate) fn append(context: &dyn FormatContext, style: GrpcStatusStyle, out: &mut Vec<u8>) -> bool {
    if !context.request_headers().is_some_and(is_grpc) {
        return false;
    }
    let Some(status) = grpc_status(context) else { return false };
    let name = usize::try_from(status).ok().and_then(|at| NAMES.get(at));
    match (style, name) {
        (GrpcStatusStyle::Camel, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
        (GrpcStatusStyle::Snake, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
        _ => {
            if status < 0 {
                out.push(b'-');
            }
            out.extend_from_slice(format_decimal(status.unsigned_abs(), &mut [0; 20]));
        }
    }
    true
}
