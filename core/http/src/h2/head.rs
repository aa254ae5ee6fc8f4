//! Heads between header blocks and [`HeaderMap`]s: what RFC 9113 (section 8) demands of those that come, and which fields of ours
//! leave.

use super::Offence;
use super::hpack::Encoder;
use crate::h1::chars;
use crate::{HeaderMap, KnownHeader};

/// Why a head cannot be sent over HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No or an invalid `:method`.
    #[error("invalid :method")]
    Method,
    /// No or an invalid `:path`.
    #[error("invalid :path")]
    Path,
    /// An invalid `:authority`.
    #[error("invalid :authority")]
    Authority,
    /// An invalid `:scheme`.
    #[error("invalid :scheme")]
    Scheme,
    /// No or an invalid `:status`.
    #[error("invalid :status")]
    Status,
    /// A header whose name or value cannot be sent.
    #[error("invalid header")]
    Field,
}

/// Which head it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadKind {
    Request,
    Response,
    Trailers,
}

/// A head of more than so many times the allowed bytes is an attack on the connection.
pub(super) const ABUSE: usize = 4;
/// What a field counts beside its bytes (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// Makes a head of the fields of a block.
#[derive(Debug)]
pub(super) struct HeadReader {
    head: HeaderMap,
    kind: HeadKind,
    offence: Option<Offence>,
    /// A field that is no pseudo header was there.
    regular: bool,
    size: usize,
    max_size: usize,
    cookies: Vec<u8>,
    crumbs: usize,
    length: Option<u64>,
    lengths: usize,
    has_host: bool,
}

/// A head that was read.
#[derive(Debug)]
pub(super) struct ReadHead {
    /// The fields; repeats are joined.
    pub(super) head: HeaderMap,
    /// What is wrong with it, if anything is.
    pub(super) fault: Option<HeadFault>,
    /// Fields that the cookies came in.
    pub(super) crumbs: usize,
    /// `content-length`.
    pub(super) length: Option<u64>,
}

/// Why a head is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    Malformed(Offence),
    TooLarge,
    /// So large that it is no mistake.
    Abusive,
}

impl HeadReader {
    /// For a head of up to `max_size` bytes, to be read into `head`.
    pub(super) fn new(mut head: HeaderMap, kind: HeadKind, max_size: usize) -> Self {
        head.clear();
        Self {
            head,
            kind,
            offence: None,
            regular: false,
            size: 0,
            max_size,
            cookies: Vec::new(),
            crumbs: 0,
            length: None,
            lengths: 0,
            has_host: false,
        }
    }

    /// Takes the next field.
    pub(super) fn field(&mut self, known: Option<KnownHeader>, name: &[u8], value: &[u8]) {
        self.size += name.len() + value.len() + FIELD_OVERHEAD;
        if self.size >= self.max_size || self.offence.is_some() {
            return;
        }
        let valid = match known {
            Some(known) if known.is_pseudo() => self.pseudo(known, value),
            Some(known) => self.known(known, value),
            None => {
                let valid = is_field_name(name) && chars::is_plain_value(value);
                if valid {
                    self.head.append_unknown(name, value);
                }
                valid
            }
        };
        self.regular |= !known.is_some_and(KnownHeader::is_pseudo);
        if !valid {
            // Envoy's codec looks at the beginning of a path once it has the whole head.
            let is_first = !self.regular && !self.head.contains_known(KnownHeader::Path);
            let judged_late = self.kind == HeadKind::Request
                && known == Some(KnownHeader::Path)
                && is_first
                && is_visible(value)
                && !value.is_empty();
            self.offence = Some(if judged_late { Offence::Message } else { Offence::Field });
        }
    }

    fn pseudo(&mut self, known: KnownHeader, value: &[u8]) -> bool {
        let belongs = match self.kind {
            HeadKind::Request => known != KnownHeader::Status,
            HeadKind::Response => known == KnownHeader::Status,
            HeadKind::Trailers => false,
        };
        let valid = belongs
            && !self.regular
            && !self.head.contains_known(known)
            && match known {
                KnownHeader::Method => is_method(value),
                KnownHeader::Path => is_path(value),
                KnownHeader::Authority => is_authority(value),
                KnownHeader::Scheme => is_scheme(value),
                KnownHeader::Status => is_status(value),
                _ => chars::is_plain_value(value),
            };
        if valid {
            self.head.append_known(known, value);
        }
        valid
    }

    fn known(&mut self, known: KnownHeader, value: &[u8]) -> bool {
        if !chars::is_plain_value(value) {
            return false;
        }
        match known {
            KnownHeader::Connection
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection => return false,
            KnownHeader::Te if value != b"trailers" => return false,
            KnownHeader::ContentLength if self.kind != HeadKind::Trailers => {
                let length = match decimal(value) {
                    Some(length) if self.length.is_none_or(|other| other == length) => length,
                    _ => return false,
                };
                self.length = Some(length);
                self.lengths += 1;
            }
            KnownHeader::Host if self.kind == HeadKind::Request => {
                if std::mem::replace(&mut self.has_host, true) || !is_authority(value) {
                    return false;
                }
                if self.head.contains_known(KnownHeader::Authority) {
                    return true;
                }
            }
            KnownHeader::Cookie if self.kind == HeadKind::Request => {
                if self.crumbs > 0 {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                self.crumbs += 1;
                return true;
            }
            _ => {}
        }
        match self.kind {
            HeadKind::Request => self.head.append_request_known(known, value),
            HeadKind::Response => self.head.append_response_known(known, value),
            HeadKind::Trailers => self.head.append_known(known, value),
        }
        true
    }

    /// The head, once all fields were taken.
    pub(super) fn finish(mut self) -> ReadHead {
        let fault = if self.size > ABUSE * self.max_size {
            Some(HeadFault::Abusive)
        } else if self.size >= self.max_size {
            Some(HeadFault::TooLarge)
        } else {
            let incomplete = || match self.kind == HeadKind::Request && self.lengths > 1 {
                // A length that is told twice is malformed even if it says the same.
                true => Some(Offence::Field),
                false => (!self.is_complete()).then_some(Offence::Message),
            };
            self.offence.or_else(incomplete).map(HeadFault::Malformed)
        };
        if self.kind != HeadKind::Trailers {
            self.head.join_repeats();
        }
        if self.crumbs > 0 {
            // Behind all other headers, as in Envoy.
            self.head.append_known(KnownHeader::Cookie, &self.cookies);
        }
        ReadHead { head: self.head, fault, crumbs: self.crumbs, length: self.length }
    }

    fn is_complete(&self) -> bool {
        let has = |known| self.head.contains_known(known);
        match self.kind {
            HeadKind::Trailers => true,
            HeadKind::Response => has(KnownHeader::Status),
            // `host` stands for the authority where there is none.
            HeadKind::Request if !has(KnownHeader::Method) || !has(KnownHeader::Authority) => false,
            HeadKind::Request => {
                let method = self.head.method();
                match (method == b"CONNECT", has(KnownHeader::Protocol)) {
                    (true, false) => !has(KnownHeader::Scheme) && !has(KnownHeader::Path),
                    (false, true) => false,
                    _ => {
                        let is_path = self.head.path() != b"*" || method == b"OPTIONS";
                        has(KnownHeader::Scheme) && has(KnownHeader::Path) && is_path
                    }
                }
            }
        }
    }
}

/// Whether a head can be sent, which is asked before anything of it goes into the table.
pub(super) fn check(head: &HeaderMap, kind: HeadKind) -> Result<(), HeadError> {
    match kind {
        HeadKind::Request => {
            if !is_method(head.method()) {
                return Err(HeadError::Method);
            }
            let authority = head.authority();
            if !is_visible(authority) {
                return Err(HeadError::Authority);
            }
            if has_path(head) {
                if head.path().is_empty() || !is_visible(head.path()) {
                    return Err(HeadError::Path);
                }
                if !head.scheme().is_empty() && !is_scheme(head.scheme()) {
                    return Err(HeadError::Scheme);
                }
            } else if authority.is_empty() {
                return Err(HeadError::Authority);
            }
        }
        HeadKind::Response => {
            let valid = head.status().is_some_and(|status| (100..1000).contains(&status));
            if !valid {
                return Err(HeadError::Status);
            }
        }
        HeadKind::Trailers => {}
    }
    let valid = head.iter().all(|(known, name, value)| {
        known.is_some_and(KnownHeader::is_pseudo)
            || (known.is_some() || is_field_name(name)) && chars::is_plain_value(value)
    });
    if valid { Ok(()) } else { Err(HeadError::Field) }
}

/// Whether a request names a path and a scheme: all but CONNECT, and CONNECT with a protocol.
fn has_path(head: &HeaderMap) -> bool {
    head.method() != b"CONNECT" || head.contains_known(KnownHeader::Protocol)
}

/// Writes the fields of a head that was [checked](check): pseudo headers first, in their order.
pub(super) fn write(head: &HeaderMap, kind: HeadKind, encoder: &mut Encoder, out: &mut Vec<u8>) {
    match kind {
        HeadKind::Request => {
            let has_path = has_path(head);
            let mut has_scheme = false;
            for (known, name, value) in head {
                let Some(known) = known.filter(|known| known.is_pseudo()) else { continue };
                let written = match known {
                    KnownHeader::Path => has_path,
                    KnownHeader::Scheme => has_path && !value.is_empty(),
                    KnownHeader::Authority => !value.is_empty(),
                    KnownHeader::Status => false,
                    _ => true,
                };
                has_scheme |= written && known == KnownHeader::Scheme;
                if written {
                    encoder.field(Some(known), name, value, out);
                }
            }
            if has_path && !has_scheme {
                encoder.field(Some(KnownHeader::Scheme), b":scheme", b"http", out);
            }
        }
        HeadKind::Response => {
            let status = head.get_known(KnownHeader::Status).unwrap_or_default();
            encoder.field(Some(KnownHeader::Status), b":status", status, out);
        }
        HeadKind::Trailers => {}
    }
    for (known, name, value) in head {
        if !known.is_some_and(|known| known.is_pseudo() || belongs_to_http1(known)) {
            encoder.field(known, name, value, out);
        }
    }
}

/// The names that belong to one HTTP/1 connection; HTTP/2 forbids them.
fn belongs_to_http1(known: KnownHeader) -> bool {
    matches!(
        known,
        KnownHeader::Connection
            | KnownHeader::Host
            | KnownHeader::KeepAlive
            | KnownHeader::ProxyConnection
            | KnownHeader::TransferEncoding
            | KnownHeader::Upgrade
    )
}

fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| chars::is_token(*byte) && !byte.is_ascii_uppercase())
}

fn is_method(method: &[u8]) -> bool {
    !method.is_empty() && method.iter().all(|byte| chars::is_token(*byte))
}

fn is_status(status: &[u8]) -> bool {
    matches!(status, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'])
}

/// As Envoy's codec takes them: a letter, then letters, digits and three marks.
fn is_scheme(scheme: &[u8]) -> bool {
    let is_rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_rest)
}

/// As Envoy's codec takes them, which has no user information in HTTP/2.
fn is_authority(authority: &[u8]) -> bool {
    !authority.is_empty() && chars::is_authority(authority) && !authority.contains(&b'@')
}

/// As Envoy's codec takes them. A path of `*` is judged by its method.
fn is_path(path: &[u8]) -> bool {
    path == b"*" || path.first() == Some(&b'/') && is_visible(path)
}

/// Neither blanks nor control characters.
fn is_visible(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
