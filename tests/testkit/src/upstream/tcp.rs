//! The raw TCP upstream.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::Reset;
use super::record::Record;
use crate::stream::{ByteStream, End, Read, read_some};

/// What a raw TCP upstream does on each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpScript {
    /// Sent as soon as a connection is accepted.
    pub greeting: String,
    /// Send back whatever arrives.
    pub echo: bool,
    /// Sent once the other side has finished sending.
    pub farewell: String,
    /// Close after this many bytes have arrived.
    pub close_after: Option<usize>,
    /// Close with a reset instead of an orderly end.
    pub reset: bool,
    /// Milliseconds to wait before the greeting.
    pub delay_ms: u64,
}

pub(super) async fn serve(
    mut stream: impl ByteStream,
    number: usize,
    script: TcpScript,
    reset: &Reset,
    record: &Record,
) {
    tokio::time::sleep(Duration::from_millis(script.delay_ms)).await;
    // A failed write shows as the end of the next read.
    let _ = stream.write_all(script.greeting.as_bytes()).await;
    let mut received = 0;
    loop {
        if script.close_after.is_some_and(|limit| received >= limit) {
            break;
        }
        let mut bytes = Vec::new();
        match read_some(&mut stream, &mut bytes).await {
            Read::Data(count) => {
                received += count;
                record.tcp_received(number, &bytes);
                if script.echo && stream.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            Read::End(end) => {
                record.tcp_ended(number, end);
                if end == End::Closed {
                    let _ = stream.write_all(script.farewell.as_bytes()).await;
                }
                break;
            }
        }
    }
    if script.reset {
        reset.arm();
    } else {
        let _ = stream.shutdown().await;
    }
}
