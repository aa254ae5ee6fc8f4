//! The client's hello of a TLS handshake.

use std::fmt;

/// What the first bytes tell about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// They may become a hello; more bytes are needed.
    Incomplete,
    /// They do not begin a TLS handshake, or one whose hello cannot be read.
    NotTls(HelloFault),
    /// A hello of a client that knows no version since TLS 1.0.
    TooOld,
    /// The client says that it closes.
    Closed,
    /// A hello.
    Found {
        /// Name of the server that the client wants, in lower case.
        server_name: Option<String>,
        /// Protocols that the client offers by ALPN, in its order. Bytes that are not UTF-8 are replaced.
        application_protocols: Vec<String>,
    },
}

/// Why bytes are no hello, in the words of BoringSSL, which are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloFault {
    number: u32,
    name: &'static str,
}

impl HelloFault {
    /// The fault of a hello that is too old.
    pub const TOO_OLD: Self = Self::new(0x1000_0085, "CONNECTION_REJECTED");

    const CLEAR_HTTP: Self = Self::new(0x1000_009c, "HTTP_REQUEST");
    const CLEAR_PROXIED: Self = Self::new(0x1000_009b, "HTTPS_PROXY_REQUEST");
    const VERSION: Self = Self::new(0x1000_00f7, "WRONG_VERSION_NUMBER");
    const RECORD: Self = Self::new(0x1000_00e1, "UNEXPECTED_RECORD");
    const RECORD_TOO_LONG: Self = Self::new(0x1000_0092, "ENCRYPTED_LENGTH_TOO_LONG");
    const EMPTY_RECORDS: Self = Self::new(0x1000_00db, "TOO_MANY_EMPTY_FRAGMENTS");
    const ALERT: Self = Self::new(0x1000_0410, "SSLV3_ALERT_HANDSHAKE_FAILURE");
    const MESSAGE: Self = Self::new(0x1000_00df, "UNEXPECTED_MESSAGE");
    const MESSAGE_TOO_LONG: Self = Self::new(0x1000_0096, "EXCESSIVE_MESSAGE_SIZE");
    const MORE: Self = Self::new(0x1000_00ff, "EXCESS_HANDSHAKE_DATA");
    const UNREADABLE: Self = Self::new(0x1000_0083, "CLIENTHELLO_PARSE_FAILED");
    const EXTENSION: Self = Self::new(0x1000_0095, "ERROR_PARSING_EXTENSION");

    const fn new(number: u32, name: &'static str) -> Self {
        Self { number, name }
    }
}

impl fmt::Display for HelloFault {
    /// As in `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TLS_error|error:{:08x}:SSL_routines:OPENSSL_internal:{}:TLS_error_end",
            self.number, self.name
        )
    }
}

/// Content types of records: alerts, and what carries handshake messages.
const ALERT_RECORD: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAX_RECORD: usize = 16 * 1024 + 256;
const MAX_MESSAGE: usize = 16 * 1024;
/// Records without content that may follow each other.
const MAX_EMPTY_RECORDS: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_VERSIONS: u16 = 43;
/// The oldest version of TLS.
const OLDEST: u16 = 0x0301;

/// Looks for a hello at the start of a connection. It may be spread over several records.
pub fn inspect_hello(bytes: &[u8]) -> Hello {
    match read_hello(bytes) {
        Ok(hello) => hello,
        Err(fault) => Hello::NotTls(fault),
    }
}

fn read_hello(bytes: &[u8]) -> Result<Hello, HelloFault> {
    // Less than a whole record head tells nothing, not even that this is something else.
    let Some(first) = bytes.first_chunk::<5>() else { return Ok(Hello::Incomplete) };
    if let [high @ 0x80..=0xff, low, CLIENT_HELLO, 3, _] = first {
        // The hello of a client that once might have met version 2 of SSL. It can name nothing.
        let length = 2 + usize::from(u16::from_be_bytes([high & 0x7f, *low]));
        return Ok(match bytes.len() < length {
            true => Hello::Incomplete,
            false => Hello::Found { server_name: None, application_protocols: Vec::new() },
        });
    }
    match first {
        b"CONNE" => return Err(HelloFault::CLEAR_PROXIED),
        b"POST " | b"HEAD " => return Err(HelloFault::CLEAR_HTTP),
        _ if first.starts_with(b"GET ") || first.starts_with(b"PUT ") => return Err(HelloFault::CLEAR_HTTP),
        _ => {}
    }
    let mut message = Vec::new();
    let mut rest = bytes;
    let mut empty = 0;
    while let Some((kind, payload, after)) = take_record(rest)? {
        rest = after;
        match (kind, payload) {
            // A warning that is no end is passed over.
            (ALERT_RECORD, [1, 0]) => return Ok(Hello::Closed),
            (ALERT_RECORD, [1, _]) => continue,
            (ALERT_RECORD, _) => return Err(HelloFault::ALERT),
            (HANDSHAKE_RECORD, []) => {
                empty += 1;
                if empty > MAX_EMPTY_RECORDS {
                    return Err(HelloFault::EMPTY_RECORDS);
                }
                continue;
            }
            (HANDSHAKE_RECORD, _) => message.extend_from_slice(payload),
            _ => return Err(HelloFault::RECORD),
        }
        let [kind, high, middle, low, ref body @ ..] = message[..] else { continue };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > MAX_MESSAGE {
            return Err(HelloFault::MESSAGE_TOO_LONG);
        }
        let Some((body, more)) = body.split_at_checked(length) else { continue };
        if kind != CLIENT_HELLO {
            return Err(HelloFault::MESSAGE);
        }
        let hello = parse_hello(body)?;
        return if more.is_empty() { Ok(hello) } else { Err(HelloFault::MORE) };
    }
    Ok(Hello::Incomplete)
}

/// The kind of a record, its payload, and the bytes behind it.
type Record<'a> = (u8, &'a [u8], &'a [u8]);

/// The first record; `None` when it is not complete.
fn take_record(bytes: &[u8]) -> Result<Option<Record<'_>>, HelloFault> {
    let [kind, major, _, high, low, rest @ ..] = bytes else { return Ok(None) };
    if *major != 3 {
        return Err(HelloFault::VERSION);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_RECORD {
        return Err(HelloFault::RECORD_TOO_LONG);
    }
    Ok(rest.split_at_checked(length).map(|(payload, after)| (*kind, payload, after)))
}

/// Takes fields off the front of a message; every step is `None` when the message is too short for it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number8(&mut self) -> Option<usize> {
        self.take(1).map(|bytes| usize::from(bytes[0]))
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field with its length in one byte before it.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.number8()?;
        self.take(length)
    }

    /// A field with its length in two bytes before it.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

/// The parts of a hello that are asked about.
struct Parts<'a> {
    version: u16,
    server_name: Option<&'a [u8]>,
    protocols: Option<&'a [u8]>,
    versions: Option<&'a [u8]>,
}

fn parse_hello(body: &[u8]) -> Result<Hello, HelloFault> {
    let parts = take_parts(body).ok_or(HelloFault::UNREADABLE)?;
    if parts.versions.is_none() && parts.version < OLDEST {
        return Ok(Hello::TooOld);
    }
    let server_name = match parts.server_name {
        Some(data) => Some(parse_server_name(data).ok_or(HelloFault::EXTENSION)?),
        None => None,
    };
    Ok(Hello::Found {
        server_name,
        application_protocols: parts.protocols.map_or(Vec::new(), parse_protocols),
    })
}

fn take_parts(body: &[u8]) -> Option<Parts<'_>> {
    let mut fields = Fields(body);
    let version = fields.number16()?;
    let _random = fields.take(32)?;
    let _session = fields.short()?;
    let suites = fields.long()?;
    let compressions = fields.short()?;
    if suites.is_empty() || suites.len() % 2 == 1 || compressions.is_empty() {
        return None;
    }
    let mut parts = Parts { version, server_name: None, protocols: None, versions: None };
    // Old clients end here: there are no extensions.
    let mut extensions = Fields(if fields.0.is_empty() { &[] } else { fields.long()? });
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = extensions.long()?;
        match kind {
            EXTENSION_SERVER_NAME => parts.server_name = Some(data),
            EXTENSION_ALPN => parts.protocols = Some(data),
            EXTENSION_VERSIONS => parts.versions = Some(data),
            _ => {}
        }
        seen.push(kind);
    }
    seen.sort_unstable();
    (fields.0.is_empty() && seen.windows(2).all(|pair| pair[0] != pair[1])).then_some(parts)
}

/// The one name that there has to be.
fn parse_server_name(data: &[u8]) -> Option<String> {
    let mut fields = Fields(data);
    let mut names = Fields(fields.long()?);
    let is_host_name = names.number8()? == 0;
    let name = names.long()?;
    let alone = fields.0.is_empty() && names.0.is_empty();
    let fits = !name.is_empty() && name.len() < 256 && !name.contains(&0);
    (is_host_name && alone && fits).then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// The protocols; none where the list is not one, which is left to who makes the handshake.
fn parse_protocols(data: &[u8]) -> Vec<String> {
    let mut fields = Fields(data);
    let mut protocols = Vec::new();
    let mut list = Fields(fields.long().unwrap_or_default());
    while !list.0.is_empty() {
        match list.short() {
            Some(name) if !name.is_empty() => protocols.push(String::from_utf8_lossy(name).into_owned()),
            _ => return Vec::new(),
        }
    }
    if fields.0.is_empty() { protocols } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length16(data: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(data.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(data);
        out
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length16(data)].concat()
    }

    fn hello_message(extensions: Option<Vec<Vec<u8>>>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend(with_length16(&[0x13, 1, 0x13, 2]));
        body.extend([1, 0]);
        if let Some(extensions) = extensions {
            body.extend(with_length16(&extensions.concat()));
        }
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &with_length16(part)].concat()).collect()
    }

    fn usual() -> Vec<u8> {
        let name = with_length16(&[&[0][..], &with_length16(b"Reviews.Example")].concat());
        let protocols = with_length16(b"\x02h2\x08http/1.1");
        hello_message(Some(vec![extension(0, &name), extension(43, &[2, 3, 4]), extension(16, &protocols)]))
    }

    fn found(server_name: Option<&str>, protocols: &[&str]) -> Hello {
        Hello::Found {
            server_name: server_name.map(str::to_owned),
            application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
        }
    }

    #[test]
    fn name_and_protocols_are_found_however_the_records_are_cut() {
        for size in [1, 2, 5, 60, 1000] {
            let bytes = records(&usual(), size);
            assert_eq!(inspect_hello(&bytes), found(Some("reviews.example"), &["h2", "http/1.1"]), "{size}");
            for length in 0..bytes.len() {
                assert_eq!(inspect_hello(&bytes[..length]), Hello::Incomplete, "{length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_hello_may_lack_names_and_extensions() {
        assert_eq!(inspect_hello(&records(&hello_message(None), 1000)), found(None, &[]));
        assert_eq!(inspect_hello(&records(&hello_message(Some(Vec::new())), 1000)), found(None, &[]));
    }

    #[test]
    fn what_is_no_hello_is_told_in_the_words_of_envoy() {
        let record = |kind: u8, payload: &[u8]| [&[kind, 3, 1][..], &with_length16(payload)].concat();
        for (bytes, fault) in [
            (b"hello".to_vec(), "100000f7:.*:WRONG_VERSION_NUMBER"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "1000009c:.*:HTTP_REQUEST"),
            (b"POST /".to_vec(), "1000009c:.*:HTTP_REQUEST"),
            (b"CONNECT a:1".to_vec(), "1000009b:.*:HTTPS_PROXY_REQUEST"),
            (b"PRI * HTTP/2.0".to_vec(), "100000f7:.*:WRONG_VERSION_NUMBER"),
            (b"\x16\x02\x00\x00\x10".to_vec(), "100000f7:.*:WRONG_VERSION_NUMBER"),
            (record(21, &[2, 40]), "10000410:.*:SSLV3_ALERT_HANDSHAKE_FAILURE"),
            (record(23, b"data"), "100000e1:.*:UNEXPECTED_RECORD"),
            (record(22, &[]).repeat(33), "100000db:.*:TOO_MANY_EMPTY_FRAGMENTS"),
            (b"\x16\x03\x01\x7f\xff".to_vec(), "10000092:.*:ENCRYPTED_LENGTH_TOO_LONG"),
            (record(22, &[2, 0, 0, 1, 0]), "100000df:.*:UNEXPECTED_MESSAGE"),
            (record(22, &[1, 0, 0, 1, 0]), "10000083:.*:CLIENTHELLO_PARSE_FAILED"),
            (record(22, &[1, 127, 0, 0]), "10000096:.*:EXCESSIVE_MESSAGE_SIZE"),
            (record(22, &[&hello_message(None)[..], b"more"].concat()), "100000ff:.*:EXCESS_HANDSHAKE_DATA"),
        ] {
            let Hello::NotTls(found) = inspect_hello(&bytes) else { panic!("{fault}") };
            let words = fault.replace(".*", "SSL_routines:OPENSSL_internal");
            assert_eq!(found.to_string(), format!("TLS_error|error:{words}:TLS_error_end"));
        }
        assert_eq!(inspect_hello(&record(21, &[1, 0])), Hello::Closed);
        for bytes in [&b"GET "[..], &record(22, &[]), &record(22, &[2, 0, 1, 0, 0]), b"\x80\x2e\x01\x03\x01"]
        {
            assert_eq!(inspect_hello(bytes), Hello::Incomplete);
        }
        assert_eq!(inspect_hello(&[&b"\x80\x2e\x01\x03\x01"[..], &[0; 43]].concat()), found(None, &[]));
    }

    #[test]
    fn extensions_are_checked_as_far_as_they_are_read() {
        let of = |extensions| inspect_hello(&records(&hello_message(Some(extensions)), 1000));
        let name = |name: &[u8]| with_length16(&[&[0][..], &with_length16(name)].concat());
        let twice = [&[0][..], &with_length16(b"a"), &[0], &with_length16(b"b")].concat();
        for data in [name(b""), name(b"a\0b"), name(&[b'a'; 256]), with_length16(&twice), vec![0, 9, 0]] {
            assert_eq!(of(vec![extension(0, &data)]), Hello::NotTls(HelloFault::EXTENSION));
        }
        assert_eq!(of(vec![extension(43, &[]), extension(43, &[])]), Hello::NotTls(HelloFault::UNREADABLE));
        assert_eq!(
            of(vec![extension(16, &[0, 5, 2, b'h', b'2'])]),
            found(None, &[]),
            "left to the handshake"
        );
        let mut old = hello_message(None);
        old[5] = 0;
        assert_eq!(inspect_hello(&records(&old, 1000)), Hello::TooOld);
    }

    #[test]
    fn lengths_that_lie_are_noticed() {
        let message = usual();
        for at in 4..message.len() {
            let mut damaged = message.clone();
            damaged[at] = 0xff;
            // Whatever it is taken for, it is answered without a panic.
            let _ = inspect_hello(&records(&damaged, 1000));
        }
        let name_too_long = hello_message(Some(vec![extension(0, &[0, 9, 0, 0, 200, b'a', b'b'])]));
        assert_eq!(inspect_hello(&records(&name_too_long, 1000)), Hello::NotTls(HelloFault::EXTENSION));
    }
}
