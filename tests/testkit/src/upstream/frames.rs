//! An upstream that answers requests with frames as they are written down. It records frames and no requests, as it decodes no
//! heads.

use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::record::Record;
use crate::raw_http2::{FrameScript, Observed, PREFACE, encode};
use crate::stream::{ByteStream, Read, read_some};

/// What a frame upstream sends.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FramesScript {
    /// Instead of an empty SETTINGS frame, as soon as the preface is there.
    pub greeting: Option<Vec<FrameScript>>,
    /// The answer to each request, once its head is there. Stream numbers are counted from that of the request: 0 is the
    /// request's own.
    pub answer: Vec<FrameScript>,
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;

pub(super) async fn serve(
    mut stream: impl ByteStream,
    number: usize,
    script: &FramesScript,
    record: &Record,
) {
    let mut buffer = Vec::new();
    while buffer.len() < PREFACE.len() {
        if let Read::End(_) = read_some(&mut stream, &mut buffer).await {
            return;
        }
    }
    buffer.drain(..PREFACE.len());
    let mut out = Vec::new();
    let greeting = script.greeting.clone().unwrap_or_else(|| vec![FrameScript::Settings([].into())]);
    append(&greeting, 0, &mut out);
    let mut observed = Observed::default();
    let mut answered = std::collections::BTreeSet::new();
    loop {
        for (what, flags, id) in observed.take(&mut buffer) {
            match what {
                SETTINGS if flags & ACK == 0 => append(&[FrameScript::SettingsAck], 0, &mut out),
                // A proxy that keeps connections alive asks with frames of its own; the content is not looked at.
                PING if flags & ACK == 0 => {
                    out.extend_from_slice(b"\x00\x00\x08\x06\x01\x00\x00\x00\x0000000000")
                }
                HEADERS if answered.insert(id) => append(&script.answer, id, &mut out),
                _ => {}
            }
        }
        record.frames_seen(number, &observed);
        // A proxy that has closed shows on the next read.
        let _ = stream.write_all(&out).await;
        let _ = stream.flush().await;
        out.clear();
        if let Read::End(end) = read_some(&mut stream, &mut buffer).await {
            observed.end = Some(end);
            record.frames_seen(number, &observed);
            return;
        }
    }
}

fn append(scripts: &[FrameScript], stream: u32, out: &mut Vec<u8>) {
    for script in scripts {
        // A script that cannot be encoded is a fault of the scenario; the missing answer shows it.
        let _ = encode(script, stream, out);
    }
}
