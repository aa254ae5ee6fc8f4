//! Listener filters that look at the first bytes without taking them: TLS hello and HTTP.

use std::io;

use dhow_http::h1::{Beginning, Version, recognise};
use dhow_net::Transport;
use dhow_net::inspect::{Hello, HelloFault, inspect_hello};
use dhow_proxy_api::ConnectionRecord;
use dhow_stats::{Counter, Store, stat_group};

/// Most bytes that the HTTP inspector looks at.
const MAX_INSPECTED: usize = 64 * 1024;

/// The namespace of dynamic metadata where the TLS inspector says why a connection is none of TLS, and the key.
const NAMESPACE: &str = "envoy.filters.listener.tls_inspector";
const REASON: &str = "failure_reason";

/// What the first bytes told.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// They begin a TLS handshake.
    pub(crate) tls: bool,
    /// Server name of the hello, lower-case.
    pub(crate) server_name: Option<String>,
    /// Protocols offered in the hello, or what plain HTTP looks like (`http/1.1`, `h2c`).
    pub(crate) application_protocols: Vec<String>,
    /// What a PROXY protocol header told beside addresses, and what is wrong with the first bytes.
    pub(crate) record: Option<Box<ConnectionRecord>>,
}

impl Inspected {
    fn record_mut(&mut self) -> &mut ConnectionRecord {
        self.record.get_or_insert_default()
    }

    /// Notes why the connection is not one of TLS.
    fn note_failure(&mut self, reason: &str, fault: Option<HelloFault>) {
        let record = self.record_mut();
        record.dynamic_metadata.set_text(NAMESPACE, REASON, reason);
        record.inspection_failure = fault.map(|fault| fault.to_string().into());
    }
}

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    /// A TLS hello.
    pub(crate) tls: Option<TlsInspection>,
    /// HTTP.
    pub(crate) http: bool,
}

/// How to look for a TLS hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsInspection {
    /// `close_connection_on_client_hello_parsing_errors`: a connection that does not begin with one is refused.
    pub(crate) only_tls: bool,
    /// `max_client_hello_size`: the connection is refused when a hello has not ended by then.
    pub(crate) max_size: usize,
}

impl Default for TlsInspection {
    fn default() -> Self {
        Self { only_tls: false, max_size: 16 * 1024 }
    }
}

stat_group! {
    /// `tls_inspector.*`.
    struct TlsStats {
        counters {
            alpn_found, alpn_not_found, client_hello_too_large, sni_found, sni_not_found, tls_found, tls_not_found,
        }
        histograms { bytes_processed: Bytes }
    }
}

stat_group! {
    /// `http_inspector.*`. As a connection is only peeked at, `read_error` stays zero.
    struct HttpStats {
        counters { http10_found, http11_found, http2_found, http_not_found, read_error }
    }
}

/// What the inspectors of a listener count; all listeners count together.
#[derive(Debug)]
pub(crate) struct InspectionStats {
    tls: Option<TlsStats>,
    http: Option<HttpStats>,
}

impl InspectionStats {
    /// For a listener with these inspectors.
    pub(crate) fn new(store: &Store, tls: bool, http: bool) -> Self {
        Self {
            tls: tls.then(|| store.scope("tls_inspector.").group()),
            http: http.then(|| store.scope("http_inspector.").group()),
        }
    }
}

/// Peeks until the protocols asked for are recognised or ruled out, TLS before HTTP, and notes what was found.
///
/// # Errors
/// `UnexpectedEof` when the peer closed before that, `InvalidData` when the connection is refused, or what the socket reports.
pub(crate) async fn inspect(
    stream: &Transport,
    sought: Sought,
    stats: &InspectionStats,
    inspected: &mut Inspected,
) -> io::Result<()> {
    let mut first = FirstBytes { buffer: vec![0; 1024], seen: 0 };
    first.read(stream).await?;
    if let Some(tls) = sought.tls {
        let hello = loop {
            let bytes = first.bytes();
            match inspect_hello(&bytes[..bytes.len().min(tls.max_size)]) {
                Hello::Incomplete if first.seen < tls.max_size => first.read(stream).await?,
                hello => break hello,
            }
        };
        let served = take_hello(hello, tls, stats.tls.as_ref(), first.seen, inspected);
        if !served {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if inspected.tls {
            return Ok(());
        }
    }
    if !sought.http {
        return Ok(());
    }
    let beginning = loop {
        match recognise(first.bytes()) {
            Beginning::Incomplete if !first.is_all() => first.read(stream).await?,
            beginning => break beginning,
        }
    };
    if let Some(stats) = &stats.http {
        match beginning {
            Beginning::Http1(Version::Http10) => stats.http10_found().inc(),
            Beginning::Http1(Version::Http11) => stats.http11_found().inc(),
            Beginning::Http2 => stats.http2_found().inc(),
            Beginning::Incomplete | Beginning::NotHttp => stats.http_not_found().inc(),
        }
    }
    let protocol = match beginning {
        Beginning::Http1(Version::Http10) => Some("http/1.0"),
        Beginning::Http1(Version::Http11) => Some("http/1.1"),
        Beginning::Http2 => Some("h2c"),
        Beginning::Incomplete | Beginning::NotHttp => None,
    };
    inspected.application_protocols = protocol.map(Into::into).into_iter().collect();
    Ok(())
}

/// Counts and notes what the TLS inspector found after so many bytes; `false` when the connection is refused.
fn take_hello(
    hello: Hello,
    tls: TlsInspection,
    stats: Option<&TlsStats>,
    seen: usize,
    inspected: &mut Inspected,
) -> bool {
    let count = |counter: fn(&TlsStats) -> Counter| stats.into_iter().for_each(|stats| counter(stats).inc());
    if let Some(stats) = stats {
        stats.bytes_processed().record(seen.min(tls.max_size) as u64);
    }
    match hello {
        Hello::Found { server_name, application_protocols } => {
            count(TlsStats::tls_found);
            count(if server_name.is_some() { TlsStats::sni_found } else { TlsStats::sni_not_found });
            let offers = !application_protocols.is_empty();
            count(if offers { TlsStats::alpn_found } else { TlsStats::alpn_not_found });
            inspected.tls = true;
            inspected.server_name = server_name;
            inspected.application_protocols = application_protocols;
            true
        }
        Hello::NotTls(fault) if tls.only_tls && seen >= tls.max_size => {
            count(TlsStats::client_hello_too_large);
            inspected.note_failure("ClientHelloTooLarge", Some(fault));
            false
        }
        Hello::NotTls(fault) => {
            count(TlsStats::tls_not_found);
            inspected.note_failure("ClientHelloNotDetected", Some(fault));
            !tls.only_tls
        }
        Hello::TooOld => {
            count(TlsStats::sni_not_found);
            count(TlsStats::tls_not_found);
            inspected.note_failure("ClientHelloInvalidTlsVersion", Some(HelloFault::TOO_OLD));
            false
        }
        Hello::Incomplete => {
            count(TlsStats::client_hello_too_large);
            inspected.note_failure("ClientHelloTooLarge", None);
            false
        }
        Hello::Closed => false,
    }
}

/// The bytes that a connection begins with.
struct FirstBytes {
    buffer: Vec<u8>,
    seen: usize,
}

impl FirstBytes {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.seen]
    }

    /// No more of them are looked at.
    fn is_all(&self) -> bool {
        self.seen == MAX_INSPECTED
    }

    /// Looks again once there are more.
    async fn read(&mut self, stream: &Transport) -> io::Result<()> {
        if self.seen == self.buffer.len() {
            self.buffer.resize((self.buffer.len() * 4).min(MAX_INSPECTED), 0);
        }
        self.seen = stream.peek_beyond(self.seen, &mut self.buffer).await?;
        Ok(())
    }
}
