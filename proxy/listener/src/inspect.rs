//! Listener filters that look at the first bytes without taking them: TLS hello and HTTP.

use std::io;

use dhow_http::h1::{Beginning, Version, recognise};
use dhow_net::Transport;
use dhow_net::inspect::{Hello, inspect_hello};
use dhow_proxy_api::ConnectionRecord;
use dhow_stats::{Store, stat_group};

/// Most bytes that inspection looks at, as the TLS inspector's default `initial_read_buffer_size`.
const MAX_INSPECTED: usize = 64 * 1024;

/// What the first bytes told.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// They begin a TLS handshake.
    pub(crate) tls: bool,
    /// Server name of the hello, lower-case.
    pub(crate) server_name: Option<String>,
    /// Protocols offered in the hello, or what plain HTTP looks like (`http/1.1`, `h2c`).
    pub(crate) application_protocols: Vec<String>,
    /// What a PROXY protocol header told beside addresses.
    pub(crate) record: Option<Box<ConnectionRecord>>,
}

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    /// A TLS hello.
    pub(crate) tls: bool,
    /// Whether a connection that does not begin with one is refused.
    pub(crate) only_tls: bool,
    /// HTTP.
    pub(crate) http: bool,
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

/// Peeks until the protocols asked for are recognised or ruled out, TLS before HTTP.
///
/// # Errors
/// `UnexpectedEof` when the peer closed before that, `InvalidData` when the connection is refused, or what the socket reports.
pub(crate) async fn inspect(
    stream: &Transport,
    sought: Sought,
    stats: &InspectionStats,
) -> io::Result<Inspected> {
    let mut first = FirstBytes { buffer: vec![0; 1024], seen: 0 };
    first.read(stream).await?;
    if sought.tls {
        let hello = loop {
            match inspect_hello(first.bytes()) {
                Hello::Incomplete if !first.is_all() => first.read(stream).await?,
                hello => break hello,
            }
        };
        count_hello(&hello, stats.tls.as_ref(), first.seen);
        match hello {
            Hello::Found { server_name, application_protocols } => {
                return Ok(Inspected { tls: true, server_name, application_protocols, record: None });
            }
            Hello::Incomplete | Hello::NotTls if sought.only_tls => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Hello::Incomplete | Hello::NotTls => {}
        }
    }
    if !sought.http {
        return Ok(Inspected::default());
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
    Ok(Inspected {
        application_protocols: protocol.map(Into::into).into_iter().collect(),
        ..Inspected::default()
    })
}

fn count_hello(hello: &Hello, stats: Option<&TlsStats>, bytes: usize) {
    let Some(stats) = stats else { return };
    match hello {
        Hello::Found { server_name, application_protocols } => {
            stats.tls_found().inc();
            match server_name {
                Some(_) => stats.sni_found().inc(),
                None => stats.sni_not_found().inc(),
            }
            match application_protocols.is_empty() {
                true => stats.alpn_not_found().inc(),
                false => stats.alpn_found().inc(),
            }
        }
        Hello::NotTls => stats.tls_not_found().inc(),
        Hello::Incomplete => stats.client_hello_too_large().inc(),
    }
    stats.bytes_processed().record(bytes as u64);
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

    /// Looks again until there are more.
    async fn read(&mut self, stream: &Transport) -> io::Result<()> {
        loop {
            if self.seen == self.buffer.len() {
                self.buffer.resize((self.buffer.len() * 4).min(MAX_INSPECTED), 0);
            }
            let count = stream.peek(&mut self.buffer).await?;
            if count > self.seen {
                self.seen = count;
                return Ok(());
            }
            if count == 0 || stream.is_ended().await {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Peeked bytes stay readable, so readiness cannot say that more came: look again after a pause.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}
