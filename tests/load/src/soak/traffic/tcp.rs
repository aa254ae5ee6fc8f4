//! Bytes through the TCP listener and back.

use std::io;

use dhow_base::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ANSWER_LIMIT, Field, add};

/// Sends some bytes, reads them back, and leaves or waits for the idle timeout.
pub async fn echoed(field: &Field, rng: &mut Rng) -> io::Result<()> {
    let mut stream = TcpStream::connect(field.bytes).await?;
    add(&field.tally.tcp_connections, 1);
    let sent: Vec<u8> = (0..1 + rng.index(3000)).map(|_| rng.next_u32() as u8).collect();
    stream.write_all(&sent).await?;
    let mut back = vec![0; sent.len()];
    timeout(ANSWER_LIMIT, stream.read_exact(&mut back)).await.map_err(io::Error::other)??;
    if back != sent {
        field.tally.wrong(|| format!("{} bytes came back changed", sent.len()));
    }
    if rng.chance(1, 4) {
        let end = timeout(ANSWER_LIMIT, stream.read(&mut back)).await.map_err(io::Error::other)??;
        if end > 0 {
            field.tally.wrong(|| "bytes that nobody sent".to_owned());
        }
    }
    Ok(())
}
