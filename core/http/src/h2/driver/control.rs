//! Frames that carry no part of a message.

use super::{Fault, bad_size, is_idle, silent};
use crate::ByteDirection;
use crate::h2::StreamError;
use crate::h2::frame::{FrameHead, code, flag, kind, setting, word};
use crate::h2::hpack::Decoder;
use crate::h2::settings::is_possible;
use crate::h2::shared::{Core, PeerFarewell};

/// Priorities have no effect; they are counted elsewhere.
pub(super) fn on_priority(payload: &[u8]) -> Result<(), Fault> {
    if payload.len() == 5 { Ok(()) } else { Err(bad_size("a priority has five bytes")) }
}

pub(super) fn on_reset(head: &FrameHead, payload: &[u8], core: &mut Core) -> Result<(), Fault> {
    if payload.len() != 4 {
        return Err(bad_size("a reset has four bytes"));
    }
    if head.stream == 0 || is_idle(head.stream, core) {
        return Err(silent("a reset of a stream that was not opened"));
    }
    core.counts.resets_received += 1;
    let code = word(payload).unwrap_or_default();
    if let Some(key) = core.find(head.stream) {
        core.meter(key, head.total(), ByteDirection::Received, false);
        let stream = core.stream_mut(key);
        if !stream.is_closed() {
            stream.fail(match code {
                code::REFUSED_STREAM => StreamError::RemoteRefused,
                code::NO_ERROR => StreamError::RemoteNoError,
                code => StreamError::RemoteReset(code),
            });
        }
        core.settle(key);
    }
    Ok(())
}

pub(super) fn on_settings(
    head: &FrameHead,
    payload: &[u8],
    core: &mut Core,
    decoder: &mut Decoder,
) -> Result<(), Fault> {
    if head.stream != 0 {
        return Err(silent("settings of a stream"));
    }
    if head.has(flag::ACK) {
        decoder.set_allowed(core.settings.header_table_size as usize);
        core.max_payload = core.settings.max_payload();
        return if payload.is_empty() { Ok(()) } else { Err(bad_size("an acknowledgement is empty")) };
    }
    let (entries, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(bad_size("settings have six bytes each"));
    }
    for [a, b, value @ ..] in entries {
        let value = u32::from_be_bytes(*value);
        match u16::from_be_bytes([*a, *b]) {
            setting::HEADER_TABLE_SIZE => core.set_peer_table_size(value),
            setting::ENABLE_PUSH if value > 1 => return Err(silent("push is on or off")),
            setting::MAX_CONCURRENT_STREAMS => core.set_peer_max_streams(value),
            setting::INITIAL_WINDOW_SIZE => {
                core.set_peer_window(value).ok_or(silent("the window is too large"))?;
            }
            setting::MAX_FRAME_SIZE => {
                if !is_possible(setting::MAX_FRAME_SIZE, value) {
                    return Err(silent("frames cannot have that size"));
                }
                core.set_peer_max_payload(value);
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(silent("extended CONNECT is on or off"));
            }
            _ => {}
        }
    }
    core.acknowledge_settings();
    Ok(())
}

pub(super) fn on_ping(head: &FrameHead, payload: &[u8], core: &mut Core) -> Result<(), Fault> {
    if head.stream != 0 {
        return Err(silent("a ping of a stream"));
    }
    if payload.len() != 8 {
        return Err(bad_size("a ping has eight bytes"));
    }
    match head.has(flag::ACK) {
        true => core.on_pong(payload),
        false => core.out.answer(kind::PING, flag::ACK, 0, payload),
    }
    Ok(())
}

pub(super) fn on_goaway(head: &FrameHead, payload: &[u8], core: &mut Core) -> Result<(), Fault> {
    if head.stream != 0 {
        return Err(silent("a farewell of a stream"));
    }
    let (Some(last), Some(code)) = (word(payload), payload.get(4..).and_then(word)) else {
        return Err(bad_size("a farewell is cut off"));
    };
    core.on_peer_farewell(PeerFarewell { last: last << 1 >> 1, code });
    Ok(())
}

pub(super) fn on_window_update(head: &FrameHead, payload: &[u8], core: &mut Core) -> Result<(), Fault> {
    let Some(more) = word(payload).filter(|_| payload.len() == 4) else {
        return Err(bad_size("an update of a window has four bytes"));
    };
    let more = more << 1 >> 1;
    if head.stream == 0 {
        return match more {
            0 => Err(silent("a window that does not grow")),
            more if core.on_connection_window(more) => Ok(()),
            _ => Err(silent("the window is too large")),
        };
    }
    if is_idle(head.stream, core) {
        return Err(silent("a window of a stream that was not opened"));
    }
    let Some(key) = core.find(head.stream) else { return Ok(()) };
    core.meter(key, head.total(), ByteDirection::Received, false);
    if core.stream(key).is_closed() {
        return Ok(());
    }
    match more {
        0 => Err(silent("a window that does not grow")),
        more if core.on_stream_window(key, more) => Ok(()),
        _ => Err(silent("the window is too large")),
    }
}
