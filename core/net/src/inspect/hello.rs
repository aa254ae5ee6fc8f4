//! The client's hello of a TLS handshake.

/// What the first bytes tell about TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// They may become a hello; more bytes are needed.
    Incomplete,
    /// They do not begin a TLS handshake.
    NotTls,
    /// A hello.
    Found {
        /// Name of the server that the client wants, in lower case.
        server_name: Option<String>,
        /// Protocols that the client offers by ALPN, in its order. Bytes that are not UTF-8 are replaced.
        application_protocols: Vec<String>,
    },
}

/// Content type of a record that carries handshake messages.
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAX_RECORD: usize = 16 * 1024 + 256;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// Looks for a hello at the start of a connection. It may be spread over several records.
pub fn inspect_hello(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let record = match take_record(rest) {
            Ok(Some((payload, after))) => {
                rest = after;
                payload
            }
            Ok(None) => return Hello::Incomplete,
            Err(NotTls) => return Hello::NotTls,
        };
        message.extend_from_slice(record);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Hello::NotTls;
        }
        let [_, high, middle, low, ref body @ ..] = message[..] else { continue };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if let Some(body) = body.get(..length) {
            return parse_hello(body).unwrap_or(Hello::NotTls);
        }
    }
}

/// The bytes cannot be a TLS handshake.
struct NotTls;

/// The payload of a record, and the bytes behind it.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The first record; `None` when it is not complete.
fn take_record(bytes: &[u8]) -> Result<Option<Record<'_>>, NotTls> {
    // Less than a whole record head tells nothing, not even that this is something else.
    let [kind, major, _, high, low, rest @ ..] = bytes else { return Ok(None) };
    if *kind != HANDSHAKE_RECORD || *major != 3 {
        return Err(NotTls);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > MAX_RECORD {
        return Err(NotTls);
    }
    Ok(rest.split_at_checked(length))
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

fn parse_hello(body: &[u8]) -> Option<Hello> {
    let mut fields = Fields(body);
    let _version_and_random = fields.take(2 + 32)?;
    let _session = fields.short()?;
    let _suites = fields.long()?;
    let _compressions = fields.short()?;
    let mut server_name = None;
    let mut application_protocols = Vec::new();
    // Old clients end here: there are no extensions.
    let mut extensions = Fields(if fields.0.is_empty() { &[] } else { fields.long()? });
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = extensions.long()?;
        match kind {
            EXTENSION_SERVER_NAME => server_name = parse_server_name(data)?,
            EXTENSION_ALPN => application_protocols = parse_protocols(data)?,
            _ => {}
        }
    }
    Some(Hello::Found { server_name, application_protocols })
}

fn parse_server_name(data: &[u8]) -> Option<Option<String>> {
    let mut names = Fields(Fields(data).long()?);
    while !names.0.is_empty() {
        let is_host_name = names.number8()? == 0;
        let name = names.long()?;
        if is_host_name {
            return Some(Some(String::from_utf8_lossy(name).to_ascii_lowercase()));
        }
    }
    Some(None)
}

fn parse_protocols(data: &[u8]) -> Option<Vec<String>> {
    let mut list = Fields(Fields(data).long()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(String::from_utf8_lossy(list.short()?).into_owned());
    }
    Some(protocols)
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
    fn other_protocols_are_told_at_once() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0", b"\x16\x02\x00\x00\x10", b"\x16\x03\x01\x00\x00"]
        {
            assert_eq!(inspect_hello(bytes), Hello::NotTls);
        }
        assert_eq!(inspect_hello(b"GET "), Hello::Incomplete);
        assert_eq!(inspect_hello(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"), Hello::NotTls);
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
        assert_eq!(inspect_hello(&records(&name_too_long, 1000)), Hello::NotTls);
    }
}
