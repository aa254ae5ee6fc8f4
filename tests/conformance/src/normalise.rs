//! The one place where volatile parts of an outcome are replaced, so that two runs can be compared.
//!
//! | part | becomes |
//! |---|---|
//! | ports of the scenario | `{{port.NAME}}`, `{{upstream.NAME}}` |
//! | other ports of 127.0.0.1 | `<port>` |
//! | base64 with an address of 127.0.0.1 in it (sessions) | `<session HOST>` |
//! | this machine's own addresses other than loopback | `<local-ip>` |
//! | the scenario's folder | `{{dir}}` |
//! | UUIDs (request ids) | `<uuid>` |
//! | `date` | `<date>` when it is one |
//! | `x-envoy-upstream-service-time`, with another prefix too | `<ms>` when it is a number |
//! | `x-envoy-expected-rq-timeout-ms` | rounded up to a multiple of 100, of 1000 beyond five seconds: waiting before a retry shortens it |
//! | certificate hashes of `x-forwarded-client-cert` | `<hash>` |
//! | time, duration and service time of a default access log line | `<time>`, `<ms>` |
//! | times of JSON events | `<time>`, `<s>` |
//! | bodies over 2 KiB | their length and a hash |
//!
//! Everything else is compared as it is.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Bodies above this many bytes are recorded by length and hash.
const LONG_BODY: usize = 2048;

/// A literal pattern of this file. They are exercised by the tests below.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a literal of this file and compiles")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
static PORT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(127\.0\.0\.1:|127\.0\.0\.1_|\[::1\]:|localhost:|:)([0-9]{4,5})(?-u:\b)"));
static BASE64: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9+/]{15,}={0,2}"));
static SESSION_HOST: LazyLock<Regex> = LazyLock::new(|| pattern(r"127\.0\.0\.1:[0-9]+"));
static CERT_HASH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bHash=[0-9a-f]{64}\b"));
static CERTIFICATE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\b[0-9a-f]{40}\b|\b[0-9a-f]{64}\b|(-----BEGIN%20CERTIFICATE-----%0A)(?:[A-Za-z0-9]|%2B|%2F|%0A|%3D)+",
    )
});
static DATE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$")
});
static LOG_LINE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] ("[^"]*" \d+ \S+ \d+ \d+) \d+ (\d+|-) (.*)$"#)
});
static EVENT_PORT: LazyLock<Regex> = LazyLock::new(|| pattern(r#""port_value":(\d+)"#));
static PROXY_LINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(PROXY TCP[46] \S+ \S+ )(\d+) (\d+)"));
static EVENT_TIME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#""(timestamp)":"\d{4}-\d\d-\d\dT[0-9:.]+Z"|"(secs_since_last_action)":"\d+""#)
});

/// What a PROXY protocol header of version 2 begins with.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What is volatile in one run.
#[derive(Debug, Default, Clone)]
pub struct Normaliser {
    ports: HashMap<u16, String>,
    dir: String,
    local_ip: Option<IpAddr>,
}

impl Normaliser {
    /// Knows the scenario's ports, by their placeholder names, and its folder.
    pub fn new(ports: HashMap<u16, String>, dir: String) -> Self {
        Self { ports, dir, local_ip: local_ip() }
    }

    /// Replaces what can occur in any text.
    pub fn text(&self, text: &str) -> String {
        let text = text.replace(&self.dir, "{{dir}}");
        let text = UUID.replace_all(&text, "<uuid>");
        let text = PORT.replace_all(&text, |found: &Captures<'_>| {
            let host = &found[1];
            match found[2].parse().ok().and_then(|port| self.port(port)) {
                Some(name) => format!("{host}{name}"),
                None if host == "127.0.0.1:" => format!("{host}<port>"),
                None => found[0].to_owned(),
            }
        });
        let text = BASE64.replace_all(&text, |found: &Captures<'_>| self.session(&found[0]));
        match self.local_ip {
            Some(ip) => text.replace(&ip.to_string(), "<local-ip>"),
            None => text.into_owned(),
        }
    }

    /// A word in base64 that names a host: which one.
    fn session(&self, word: &str) -> String {
        let decoded = dhow_base::base64::decode(word).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded);
        match SESSION_HOST.find(&decoded) {
            Some(host) => format!("<session {}>", self.text(host.as_str())),
            None => word.to_owned(),
        }
    }

    /// The name of a port, if it is one of the scenario's.
    pub fn port(&self, port: u64) -> Option<String> {
        let name = u16::try_from(port).ok().and_then(|port| self.ports.get(&port))?;
        Some(format!("{{{{{name}}}}}"))
    }

    /// Replaces what is volatile in one header.
    pub fn header(&self, name: &str, value: &str) -> (String, String) {
        let number = value.parse::<u64>().ok();
        let value = match (name.to_ascii_lowercase().as_str(), number) {
            ("date", _) if DATE.is_match(value) => "<date>".to_owned(),
            (name, Some(_)) if name.ends_with("-upstream-service-time") => "<ms>".to_owned(),
            (name, Some(ms)) if name.ends_with("-expected-rq-timeout-ms") => {
                ms.next_multiple_of(if ms > 5000 { 1000 } else { 100 }).to_string()
            }
            ("x-forwarded-port", Some(port)) => self.port(port).unwrap_or_else(|| value.to_owned()),
            ("x-forwarded-client-cert", _) => {
                CERT_HASH.replace_all(&self.text(value), "Hash=<hash>").into_owned()
            }
            _ => self.text(value),
        };
        (name.to_owned(), value)
    }

    /// Replaces what is volatile in a header list.
    pub fn headers(&self, headers: &[(String, String)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| self.header(name, value)).collect()
    }

    /// A body as text, or its length and hash when it is long.
    pub fn body(&self, body: &[u8]) -> String {
        if body.len() <= LONG_BODY {
            return self.text(&String::from_utf8_lossy(body));
        }
        // FNV-1a: enough to notice a difference, and the same in every run.
        let hash = body
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        format!("<{} bytes, hash {hash:016x}>", body.len())
    }

    /// Bytes as they were on the wire, with the volatile headers of messages in them replaced; line ends stay as they are.
    pub fn wire(&self, bytes: &[u8]) -> String {
        let text = self.text(&String::from_utf8_lossy(bytes));
        let lines = text.split('\n').map(|line| match line.split_once(": ") {
            Some((
                name @ ("date" | "x-envoy-upstream-service-time" | "x-envoy-expected-rq-timeout-ms"),
                value,
            )) => {
                let (value, end) = value.strip_suffix('\r').map_or((value, ""), |value| (value, "\r"));
                format!("{name}: {}{end}", self.header(name, value).1)
            }
            _ => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        if text.len() <= LONG_BODY { text } else { self.body(text.as_bytes()) }
    }

    /// Bytes behind a PROXY protocol header, whose ports are those of one run; version 2 becomes words.
    pub fn proxied(&self, bytes: &[u8]) -> String {
        if let Some(header) = bytes.strip_prefix(PROXY_SIGNATURE)
            && let [kind, family, high, low, rest @ ..] = header
            && let length = usize::from(u16::from_be_bytes([*high, *low]))
            && let Some((header, rest)) = rest.split_at_checked(length)
        {
            let sizes = match family >> 4 {
                1 => Some((4, 12)),
                2 => Some((16, 36)),
                _ => None,
            };
            let addresses = sizes.and_then(|(ip, all)| Some((header.get(..ip * 2)?, header.get(all..)?)));
            let (addresses, more) = addresses.unwrap_or((&[], header));
            return format!("<PROXY {kind:x} {family:x} {addresses:?} {more:?}>{}", self.body(rest));
        }
        let text = String::from_utf8_lossy(bytes);
        let text = PROXY_LINE.replace(&text, |found: &Captures<'_>| {
            let port = |at: usize| found[at].parse().ok().and_then(|port| self.port(port));
            let port = |at| port(at).unwrap_or_else(|| "<port>".to_owned());
            format!("{}{} {}", &found[1], port(2), port(3))
        });
        self.body(text.as_bytes())
    }

    /// One access log line.
    pub fn log_line(&self, line: &str) -> String {
        match LOG_LINE.captures(line) {
            Some(found) => {
                let service_time = if &found[2] == "-" { "-" } else { "<ms>" };
                self.text(&format!("[<time>] {} <ms> {service_time} {}", &found[1], &found[3]))
            }
            None => {
                let line = CERTIFICATE.replace_all(line, |found: &Captures<'_>| match found.get(1) {
                    Some(begin) => format!("{}<pem>", begin.as_str()),
                    None => format!("<{} hex digits>", found[0].len()),
                });
                let line = EVENT_TIME.replace_all(&line, |found: &Captures<'_>| match found.get(1) {
                    Some(name) => format!("\"{}\":\"<time>\"", name.as_str()),
                    None => format!("\"{}\":\"<s>\"", &found[2]),
                });
                self.text(&EVENT_PORT.replace_all(&line, |found: &Captures<'_>| {
                    let port = found[1].parse().ok().and_then(|port| self.port(port));
                    format!("\"port_value\":{}", port.as_deref().unwrap_or(&found[1]))
                }))
            }
        }
    }
}

/// The address that this machine would use towards others, which Envoy writes where the peer is loopback.
fn local_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a UDP socket sends nothing; it only makes the kernel choose a source address.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normaliser() -> Normaliser {
        let ports = HashMap::from([(10101, "port.http".to_owned()), (10102, "upstream.one".to_owned())]);
        Normaliser { ports, dir: "/tmp/dhow-x".into(), local_ip: Some([10, 1, 2, 3].into()) }
    }

    #[test]
    fn ports_get_their_names_and_strangers_a_common_one() {
        let text = normaliser().text(
            "127.0.0.1:10102 localhost:10101 127.0.0.1:33333 example.test:8080 a:10101 127.0.0.1_10101",
        );
        assert_eq!(
            text,
            "127.0.0.1:{{upstream.one}} localhost:{{port.http}} 127.0.0.1:<port> example.test:8080 a:{{port.http}} 127.0.0.1_{{port.http}}"
        );
    }

    #[test]
    fn sessions_are_named_by_their_host() {
        let of_header = dhow_base::base64::encode(b"127.0.0.1:10102");
        let of_cookie = dhow_base::base64::encode(b"\n\x0f127.0.0.1:10102\x10\x05");
        let text = normaliser()
            .text(&format!("{of_header};UV:dG9rZW4= sid=\"{of_cookie}\" QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(
            text,
            "<session 127.0.0.1:{{upstream.one}}>;UV:dG9rZW4= \
             sid=\"<session 127.0.0.1:{{upstream.one}}>\" QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }

    #[test]
    fn headers_lose_only_what_is_volatile() {
        let n = normaliser();
        let value = |name: &str, value: &str| n.header(name, value).1;
        assert_eq!(value("date", "Sat, 21 Nov 2026 09:02:39 GMT"), "<date>");
        assert_eq!(value("date", "yesterday"), "yesterday");
        assert_eq!(value("X-Envoy-Upstream-Service-Time", "3"), "<ms>");
        assert_eq!(value("x-envoy-expected-rq-timeout-ms", "14050"), "15000");
        assert_eq!(value("x-envoy-expected-rq-timeout-ms", "777"), "800");
        assert_eq!(value("x-envoy-expected-rq-timeout-ms", "15000"), "15000");
        assert_eq!(value("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"), "<uuid>");
        assert_eq!(value("x-forwarded-for", "1.2.3.4,10.1.2.3"), "1.2.3.4,<local-ip>");
    }

    #[test]
    fn a_default_access_log_line_loses_its_times() {
        let line = r#"[2026-11-21T09:02:39.123Z] "GET / HTTP/1.1" 200 - 0 3 12 11 "-" "-" "0f8fad5b-d9cb-469f-a165-70867728950e" "h" "127.0.0.1:10102""#;
        assert_eq!(
            normaliser().log_line(line),
            r#"[<time>] "GET / HTTP/1.1" 200 - 0 3 <ms> <ms> "-" "-" "<uuid>" "h" "127.0.0.1:{{upstream.one}}""#
        );
        assert_eq!(normaliser().log_line("own format 5"), "own format 5");
        let serial = "1b8b0f8ece2733024bfb7ebf7e5b240be4b6edc9";
        assert_eq!(normaliser().log_line(serial), "<40 hex digits>");
        let certificate = "-----BEGIN%20CERTIFICATE-----%0AMIIB%2Fx%3D%0A-----END%20CERTIFICATE-----%0A";
        let known = "-----BEGIN%20CERTIFICATE-----%0A<pem>-----END%20CERTIFICATE-----%0A";
        assert_eq!(normaliser().log_line(certificate), known);
    }

    #[test]
    fn ports_of_proxied_clients_are_those_of_one_run() {
        let line = b"PROXY TCP4 127.1.0.3 127.0.0.1 40000 10101\r\nhello";
        assert_eq!(
            normaliser().proxied(line),
            "PROXY TCP4 127.1.0.3 127.0.0.1 <port> {{port.http}}\r\nhello"
        );
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0e\x7f\x01\0\x03\x7f\0\0\x01\x9c\x40\0\x50\x01\x02hi";
        assert_eq!(normaliser().proxied(binary), "<PROXY 21 11 [127, 1, 0, 3, 127, 0, 0, 1] [1, 2]>hi");
    }

    #[test]
    fn bytes_keep_their_line_ends() {
        let wire = normaliser()
            .wire(b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 09:02:39 GMT\r\nx: y\n\r\n127.0.0.1:10102");
        assert_eq!(wire, "HTTP/1.1 200 OK\r\ndate: <date>\r\nx: y\n\r\n127.0.0.1:{{upstream.one}}");
    }

    #[test]
    fn a_long_body_is_recorded_by_length_and_hash() {
        let body = normaliser().body(&[b'x'; 5000]);
        assert!(body.starts_with("<5000 bytes, hash "), "{body}");
        assert_ne!(body, normaliser().body(&[b'y'; 5000]));
    }
}
