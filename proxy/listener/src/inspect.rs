//! Listener filters that look at the first bytes without taking them: TLS hello and HTTP.

use std::io;

use dhow_net::Transport;
use dhow_net::inspect::{Hello, Protocol, inspect_hello, inspect_http};
use dhow_proxy_api::ConnectionRecord;

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

/// Peeks until the protocols asked for are recognised or ruled out.
///
/// # Errors
/// `UnexpectedEof` when the peer closed before that, `InvalidData` when the connection is refused, or what the socket reports.
pub(crate) async fn inspect(stream: &Transport, sought: Sought) -> io::Result<Inspected> {
    let mut buffer = vec![0; 1024];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(inspected) = recognise(&buffer[..count], sought, count == MAX_INSPECTED) {
            return inspected;
        }
        if count == buffer.len() {
            buffer.resize((buffer.len() * 4).min(MAX_INSPECTED), 0);
        } else if count == seen {
            // Peeked bytes stay readable, so readiness cannot say that more came: look again after a pause.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        seen = count;
    }
}

fn recognise(bytes: &[u8], sought: Sought, is_all: bool) -> Option<io::Result<Inspected>> {
    if sought.tls {
        match inspect_hello(bytes) {
            Hello::Incomplete if !is_all => return None,
            Hello::Incomplete | Hello::NotTls if sought.only_tls => {
                return Some(Err(io::ErrorKind::InvalidData.into()));
            }
            Hello::Incomplete | Hello::NotTls => {}
            Hello::Found { server_name, application_protocols } => {
                return Some(Ok(Inspected { tls: true, server_name, application_protocols, record: None }));
            }
        }
    }
    if sought.http {
        match inspect_http(bytes) {
            Protocol::Incomplete if !is_all => return None,
            Protocol::Http1(version) => {
                return Some(Ok(Inspected {
                    application_protocols: vec![version.into()],
                    ..Inspected::default()
                }));
            }
            Protocol::Http2 => {
                return Some(Ok(Inspected {
                    application_protocols: vec!["h2c".into()],
                    ..Inspected::default()
                }));
            }
            Protocol::Incomplete | Protocol::NotHttp => {}
        }
    }
    Some(Ok(Inspected::default()))
}
