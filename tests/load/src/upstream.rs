//! A small upstream that answers every request with the same bytes, for machines without nginx.

use anyhow::Result;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where to listen and what to answer.
#[derive(Args, Debug)]
pub struct UpstreamArgs {
    /// Port of 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Bytes of the body.
    #[arg(long)]
    body: usize,
}

/// Serves until killed.
pub fn serve(args: &UpstreamArgs) -> Result<()> {
    let body = "x".repeat(args.body);
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", args.body);
    let response: &'static [u8] = response.into_bytes().leak();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream, response));
        }
    })
}

async fn answer(mut stream: TcpStream, response: &'static [u8]) {
    let mut buffer = Vec::with_capacity(4096);
    let _ = stream.set_nodelay(true);
    loop {
        while let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            if stream.write_all(response).await.is_err() {
                return;
            }
        }
        if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
            return;
        }
    }
}
