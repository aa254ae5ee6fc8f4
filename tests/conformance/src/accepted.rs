//! The differences that random cases and lists of values pass over, each with its reason. There should be few: what can be mended is mended.

/// Differences of one kind.
struct Accepted {
    /// A text that the difference contains.
    says: &'static str,
    /// Why it stays.
    why: &'static str,
}

const ACCEPTED: &[Accepted] = &[
    Accepted {
        says: "TLS 1.0 and 1.1 are not supported: the maximum must be",
        why: "TLS before 1.2 is refused on purpose",
    },
    Accepted {
        says: "client / failure\n    ours:  \"connecting: received fatal alert",
        why: "the TLS library chooses by which alert it says why a handshake failed",
    },
    Accepted {
        says: "circuit_breakers.default.remaining_cx_pools\n    ours:  0\n    envoy: 1844674407370955",
        why: "Envoy counts below 0 where it gives back more pools than it took",
    },
    Accepted {
        says: "    ours:  -\n    envoy: TLS_error:|268435589:SSL_routines:OPENSSL_internal:CONNECTION_REJECTED:TLS_error_end",
        why: "Envoy tells of an error that its TLS inspector left behind for whatever connection is closed next",
    },
    Accepted {
        says: "file name contained an unexpected NUL byte",
        why: "Envoy opens the file of the name before the NUL",
    },
    Accepted {
        says: "Not able to parse expression: INVALID_ARGUMENT",
        why: "Envoy goes on with all that its grammar would have taken",
    },
];

/// Why the difference that `text` tells is accepted, if it is.
pub fn reason(text: &str) -> Option<&'static str> {
    ACCEPTED.iter().find(|accepted| text.contains(accepted.says)).map(|accepted| accepted.why)
}
