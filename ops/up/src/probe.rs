//! Asking processes whether they are ready.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How readiness shows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe {
    /// The port accepts connections.
    Accepts(SocketAddr),
    /// The admin interface answers `/ready` with 200.
    AdminReady(SocketAddr),
    /// It runs.
    Runs,
}

impl Probe {
    /// Asks once.
    pub(crate) async fn ask(self) -> bool {
        let asked = async {
            match self {
                Self::Accepts(address) => TcpStream::connect(address).await.is_ok(),
                Self::AdminReady(address) => {
                    status(address, "/ready").await.is_ok_and(|status| status == 200)
                }
                Self::Runs => true,
            }
        };
        tokio::time::timeout(TIMEOUT, asked).await.unwrap_or(false)
    }
}

/// Whether `path` is served at `address`, for a host that any route takes: neither unknown there nor broken behind it.
pub(crate) async fn is_served(address: SocketAddr, path: &str) -> bool {
    let status = tokio::time::timeout(TIMEOUT, status(address, path)).await;
    status.is_ok_and(|status| status.is_ok_and(|status| status != 404 && status < 500))
}

async fn status(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    let code =
        status.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(&rest[2..]).ok()?.parse().ok());
    code.ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn ready_is_what_answers_200() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (answer, ready) in
                [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 503 X\r\n\r\n", false), ("", false)]
            {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let server = tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = [0; 1024];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
                assert_eq!(Probe::AdminReady(address).ask().await, ready, "{answer}");
                server.await.unwrap();
                // The listener is gone with its task.
                assert!(!Probe::Accepts(address).ask().await);
            }
        });
    }
}
