//! Commands whose arguments choose among the values of a request: its path, its query, the name that it asked for.

use std::borrow::Cow;

use dhow_http::{HeaderMap, KnownHeader};

use crate::command::{Kind, PathChoice, append_text};
use crate::context::{FormatContext, TextFact};

/// The arguments of `%PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%`; more of them are not looked at.
pub(crate) fn path(args: &str) -> Result<Kind, String> {
    let mut args = args.split(':');
    let with_query = match args.next().unwrap_or_default() {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed")),
    };
    let choice = match args.next().unwrap_or_default() {
        "" | "ORIG_OR_PATH" => PathChoice::OriginalOrCurrent,
        "ORIG" => PathChoice::Original,
        "PATH" => PathChoice::Current,
        other => {
            return Err(format!(
                "Invalid PATH option: '{other}', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"
            ));
        }
    };
    Ok(Kind::Path { with_query, choice })
}

/// The argument of `%QUERY_PARAMS(ORIG|DECODED)%`.
pub(crate) fn decoded(args: &str) -> Result<bool, String> {
    match args {
        "" | "ORIG" => Ok(false),
        "DECODED" => Ok(true),
        other => Err(format!("Invalid QUERY_PARAMS option: '{other}', only 'ORIG'/'DECODED' are allowed")),
    }
}

/// A query of which escapes are decoded where Envoy decodes them: those of visible characters, but not of all; what begins an
/// escape and is none is left out.
pub(crate) fn visible_decoded(query: &[u8]) -> Cow<'_, [u8]> {
    if !query.contains(&b'%') {
        return Cow::Borrowed(query);
    }
    let mut out = Vec::with_capacity(query.len());
    let mut at = 0;
    while let Some(&byte) = query.get(at) {
        let Some(digits) = query.get(at + 1..at + 3).filter(|_| byte == b'%') else {
            out.push(byte);
            at += 1;
            continue;
        };
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        let decoded = digit(0).zip(digit(1)).map(|(high, low)| (high * 16 + low) as u8);
        match decoded {
            Some(decoded) if decoded.is_ascii_graphic() && !b"\"<>\\^{|}".contains(&decoded) => {
                out.push(decoded)
            }
            Some(_) => out.extend_from_slice(&query[at..at + 3]),
            None => {
                at += 1;
                continue;
            }
        }
        at += 3;
    }
    out.into()
}

/// The arguments of `%REQUESTED_SERVER_NAME(SNI_ONLY|SNI_FIRST|HOST_FIRST:ORIG_OR_HOST|HOST|ORIG)%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerNameChoice {
    order: Order,
    host: Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    SniOnly,
    SniFirst,
    HostFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    OriginalOrCurrent,
    Original,
    Current,
}

impl ServerNameChoice {
    /// Reads the arguments; more than two are not looked at.
    pub(crate) fn parse(args: &str) -> Result<Self, String> {
        let mut args = args.split(':');
        let error = |found: &str, allowed: &str| {
            Err(format!("Invalid REQUESTED_SERVER_NAME option: '{found}', only {allowed} are allowed"))
        };
        let order = match args.next().unwrap_or_default() {
            "" | "SNI_ONLY" => Order::SniOnly,
            "SNI_FIRST" => Order::SniFirst,
            "HOST_FIRST" => Order::HostFirst,
            other => return error(other, "'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST'"),
        };
        let host = match args.next().unwrap_or_default() {
            "" | "ORIG_OR_HOST" => Host::OriginalOrCurrent,
            "HOST" => Host::Current,
            "ORIG" => Host::Original,
            other => return error(other, "'ORIG_OR_HOST'/'HOST'/'ORIG'"),
        };
        Ok(Self { order, host })
    }

    /// Appends the name; false when there is none.
    pub(crate) fn append(self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        let sni = |out: &mut Vec<u8>| append_text(context, TextFact::RequestedServerName, out);
        match self.order {
            Order::SniOnly => sni(out),
            Order::SniFirst => sni(out) || self.append_host(context, out),
            Order::HostFirst => self.append_host(context, out) || sni(out),
        }
    }

    fn append_host(self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        let Some(headers) = context.request_headers() else { return false };
        let value = |name| HeaderMap::get_known(headers, name).filter(|value| !value.is_empty());
        let original = || value(KnownHeader::XEnvoyOriginalHost);
        let current = || value(KnownHeader::Authority);
        let found = match self.host {
            Host::OriginalOrCurrent => original().or_else(current),
            Host::Original => original(),
            Host::Current => current(),
        };
        out.extend_from_slice(found.unwrap_or_default());
        found.is_some()
    }
}
