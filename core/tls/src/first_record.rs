//! The first record of a client: what of it is refused before anything is made of a hello, in the words of BoringSSL, and the alert
//! that goes back.

use rustls::{AlertDescription, Error};

use crate::failure::TlsFailure;

/// Bytes of a record's header.
pub(crate) const HEADER: usize = 5;
/// Bytes of a record that tell what it is: the header, and of a hello type, length and version.
pub(crate) const REMEMBERED: usize = HEADER + 6;
/// The longest record, what encryption adds included.
const LONGEST: u16 = 16384 + 320;
/// Types of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// The type of a handshake message that a client begins with.
const CLIENT_HELLO: u8 = 1;
/// The level of an alert that ends a connection.
const FATAL: u8 = 2;

/// Why a client is not understood.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) failure: TlsFailure,
    /// What the client is told; nothing if it does not speak TLS or has given up itself.
    alert: Option<AlertDescription>,
}

impl Refusal {
    /// What is wrong with a connection that begins so; `complete` says whether the whole record is there, `first` its [first
    /// bytes](REMEMBERED), as many as came.
    pub(crate) fn of(first: &[u8], complete: bool) -> Option<Self> {
        let (&[kind, major, _, high, low], body) = first.split_first_chunk::<HEADER>()?;
        if let Some(failure) = TlsFailure::of_clear_text(first) {
            return Some(Self { failure, alert: None });
        }
        if major != 3 {
            return Some(Self::named(268_435_703, "WRONG_VERSION_NUMBER", AlertDescription::ProtocolVersion));
        }
        if u16::from_be_bytes([high, low]) > LONGEST {
            let alert = AlertDescription::RecordOverflow;
            return Some(Self::named(268_435_602, "ENCRYPTED_LENGTH_TOO_LONG", alert));
        }
        if !complete {
            return None;
        }
        match (kind, body) {
            // The version behind type and length, where a hello from TLS 1.2 on has that of TLS 1.2.
            (HANDSHAKE, [CLIENT_HELLO, _, _, _, 3, ..=2, ..]) => {
                Some(Self::named(268_435_696, "UNSUPPORTED_PROTOCOL", AlertDescription::ProtocolVersion))
            }
            (HANDSHAKE, [CLIENT_HELLO, ..] | []) => None,
            (HANDSHAKE, _) => {
                Some(Self::named(268_435_679, "UNEXPECTED_MESSAGE", AlertDescription::UnexpectedMessage))
            }
            (ALERT, [FATAL, description, ..]) => {
                let failure = Error::AlertReceived(AlertDescription::from(*description)).into();
                Some(Self { failure, alert: None })
            }
            _ => Some(Self::named(268_435_681, "UNEXPECTED_RECORD", AlertDescription::UnexpectedMessage)),
        }
    }

    /// The hello cannot be read.
    pub(crate) fn unparsable() -> Self {
        Self::named(268_435_587, "CLIENTHELLO_PARSE_FAILED", AlertDescription::DecodeError)
    }

    fn named(number: u32, name: &'static str, alert: AlertDescription) -> Self {
        Self { failure: TlsFailure::named(number, name), alert: Some(alert) }
    }

    /// The record of the alert: of a version that was not agreed on yet.
    pub(crate) fn alert(&self) -> Option<[u8; 7]> {
        self.alert.map(|alert| [ALERT, 3, 1, 0, 2, FATAL, alert.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(first: &[u8], complete: bool) -> Option<(String, Option<u8>)> {
        let refusal = Refusal::of(first, complete)?;
        Some((refusal.failure.to_string(), refusal.alert().map(|alert| alert[6])))
    }

    #[test]
    fn what_is_wrong_has_the_names_of_boringssl() {
        for (first, name, alert) in [
            (&b"hello"[..], "|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:", Some(70)),
            (b"GET /", "HTTP_REQUEST", None),
            (b"\x16\x03\x01\xff\xff", "ENCRYPTED_LENGTH_TOO_LONG", Some(22)),
            (b"\x16\x03\x01\x00\x05\x02\x00", "UNEXPECTED_MESSAGE", Some(10)),
            (b"\x17\x03\x01\x00\x05\x02\x00", "UNEXPECTED_RECORD", Some(10)),
            (b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x02", "UNSUPPORTED_PROTOCOL", Some(70)),
            (b"\x15\x03\x01\x00\x02\x02\x28", "SSLV3_ALERT_HANDSHAKE_FAILURE", None),
        ] {
            let (text, sent) = refused(first, true).expect(name);
            assert!(text.contains(name) && sent == alert, "{text} {sent:?}");
        }
        assert!(refused(b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03", true).is_none());
    }

    #[test]
    fn what_is_not_known_yet_is_awaited() {
        assert!(refused(b"hell", true).is_none());
        assert!(refused(b"\x17\x03\x01\x00\x05", false).is_none());
    }
}
