//! A client that sends frames as it is told.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::observe::Observed;
use super::script::FrameScript;
use super::{encode, flag, kind};
use crate::client::{TlsOptions, connect};
use crate::stream::{ByteStream, Read, end_of, read_some};

/// How long to look for more frames after everything that was waited for is there.
const QUIET: Duration = Duration::from_millis(30);

/// A connection on which frames are sent as they are written down.
pub struct FrameClient {
    stream: Box<dyn ByteStream>,
    buffer: Vec<u8>,
    observed: Observed,
    pings: usize,
    limit: Duration,
}

impl FrameClient {
    /// Connects and sends nothing yet. Each wait of a script takes at most `limit`.
    pub async fn connect(address: SocketAddr, tls: Option<&TlsOptions>, limit: Duration) -> io::Result<Self> {
        let (stream, _) = connect(address, tls).await?;
        Ok(Self { stream, buffer: Vec::new(), observed: Observed::default(), pings: 0, limit })
    }

    /// Sends the scripts in turn, acknowledging SETTINGS meanwhile where `polite`; what came back until then.
    ///
    /// At the end a PING asks the other side whether it has read everything, unless it has given up the connection.
    ///
    /// # Errors
    /// A script that cannot be encoded.
    pub async fn run(mut self, scripts: &[FrameScript], polite: bool) -> Result<Observed, String> {
        for script in scripts {
            match script {
                FrameScript::Answered(streams) => {
                    self.read_until(polite, |seen, _| {
                        streams.iter().all(|id| seen.streams.get(id).is_some_and(|s| s.is_complete()))
                    })
                    .await;
                }
                FrameScript::Ponged => self.read_until(polite, |seen, pings| seen.pongs >= pings).await,
                script => {
                    let mut bytes = Vec::new();
                    encode(script, 0, &mut bytes)?;
                    self.pings += pings(script);
                    self.send(&bytes, polite).await;
                }
            }
            if self.observed.is_over() {
                break;
            }
        }
        if !self.observed.is_over() && self.observed.settings.is_empty() {
            // Without settings of the other side it does not speak the protocol, and a PING would say nothing.
            self.read_until(polite, |seen, _| !seen.settings.is_empty()).await;
        }
        if !self.observed.is_over() {
            let mut bytes = Vec::new();
            encode(&FrameScript::Ping, 0, &mut bytes)?;
            self.pings += 1;
            self.send(&bytes, polite).await;
            self.read_until(polite, |seen, pings| seen.pongs >= pings).await;
            self.read_for(QUIET, polite).await;
        }
        Ok(self.observed)
    }

    /// Sends, and reads meanwhile so that neither side waits for the other.
    async fn send(&mut self, bytes: &[u8], polite: bool) {
        let mut rest = bytes;
        while !rest.is_empty() && self.observed.end.is_none() {
            let mut read = Vec::new();
            let piece = &rest[..rest.len().min(64 * 1024)];
            let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
            let written = tokio::select! {
                biased;
                written = writer.write(piece) => Some(written),
                got = read_some(&mut reader, &mut read) => {
                    self.buffer.append(&mut read);
                    if let Read::End(end) = got {
                        self.observed.end = Some(end);
                    }
                    None
                }
            };
            match written {
                Some(Ok(count)) => rest = &rest[count..],
                Some(Err(error)) => {
                    // What the other side said before it closed is still to be read.
                    let closed = end_of(&error);
                    self.read_for(QUIET, false).await;
                    self.observed.end.get_or_insert(closed);
                }
                None => self.take(polite).await,
            }
        }
        // A flush that fails shows as the end of the next read.
        let _ = self.stream.flush().await;
    }

    async fn read_until(&mut self, polite: bool, done: impl Fn(&Observed, usize) -> bool) {
        let deadline = Instant::now() + self.limit;
        while !done(&self.observed, self.pings) && !self.observed.is_over() {
            match timeout_at(deadline, read_some(&mut self.stream, &mut self.buffer)).await {
                Ok(Read::Data(_)) => self.take(polite).await,
                Ok(Read::End(end)) => self.observed.end = Some(end),
                Err(_) => return,
            }
        }
    }

    async fn read_for(&mut self, time: Duration, polite: bool) {
        let deadline = Instant::now() + time;
        while self.observed.end.is_none() {
            match timeout_at(deadline, read_some(&mut self.stream, &mut self.buffer)).await {
                Ok(Read::Data(_)) => self.take(polite).await,
                Ok(Read::End(end)) => self.observed.end = Some(end),
                Err(_) => return,
            }
        }
    }

    /// Notes what the buffer holds, and acknowledges SETTINGS and PING where `polite`.
    async fn take(&mut self, polite: bool) {
        let mut answer = Vec::new();
        for (what, flags, _) in self.observed.take(&mut self.buffer) {
            if polite && what == kind::SETTINGS && flags & flag::ACK == 0 {
                answer.extend_from_slice(&[0, 0, 0, kind::SETTINGS, flag::ACK, 0, 0, 0, 0]);
            }
        }
        if !answer.is_empty() {
            // A connection that is gone shows on the next read.
            let _ = self.stream.write_all(&answer).await;
            let _ = self.stream.flush().await;
        }
    }
}

/// The answers that a script asks for with PING.
fn pings(script: &FrameScript) -> usize {
    match script {
        FrameScript::Ping => 1,
        FrameScript::Times { count, frames, .. } => *count as usize * frames.iter().map(pings).sum::<usize>(),
        _ => 0,
    }
}
