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

/// Whether the proxy with this admin interface knows all `endpoints` (`address:port`).
pub(crate) async fn knows(admin: SocketAddr, endpoints: &[String]) -> bool {
    let clusters = tokio::time::timeout(TIMEOUT, get(admin, "/clusters")).await;
    let Ok(Ok(answer)) = clusters else { return false };
    let text = String::from_utf8_lossy(&body(&answer)).into_owned();
    endpoints.iter().all(|endpoint| text.contains(&format!("::{endpoint}::")))
}

async fn status(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let answer = get(address, path).await?;
    let code = answer
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok());
    code.ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}

/// The whole answer to a GET, as it came.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The body of an answer, out of its chunks if it has any.
fn body(answer: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let Some(end) = find(answer, b"\r\n\r\n") else { return Vec::new() };
    let (head, mut rest) = (answer[..end].to_ascii_lowercase(), &answer[end + 4..]);
    if find(&head, b"transfer-encoding: chunked").is_none() {
        return rest.to_vec();
    }
    let mut whole = Vec::with_capacity(rest.len());
    while let Some(line) = find(rest, b"\r\n") {
        let size =
            std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let chunk = size.and_then(|size| rest.get(line + 2..line + 2 + size)).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        whole.extend_from_slice(chunk);
        rest = rest.get(line + 2 + chunk.len() + 2..).unwrap_or_default();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn bodies_come_whole_and_in_chunks() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nabc"), b"abc");
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(body(chunked), b"abc0123456789");
        assert_eq!(body(&chunked[..60]), b"abc");
        assert_eq!(body(b"HTTP/1.1 200 OK"), b"");
    }

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
