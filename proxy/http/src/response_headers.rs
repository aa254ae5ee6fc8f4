//! What the connection manager does to a response head before it is written.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use dhow_base::civil_date;
use dhow_http::{HeaderMap, KnownHeader, KnownSet};
use dhow_proxy_runtime::clock;

use crate::config::{ConnectionManagerConfig, ServerHeader};
use crate::request_headers::append_via;

/// Drops hop-by-hop headers that upstream sent; an upgrade keeps what negotiates it.
pub(crate) fn remove_hop_by_hop(response: &mut HeaderMap, upgraded: bool) {
    if !upgraded {
        response.remove_set(UPGRADE);
    }
    response.remove_set(HOP_BY_HOP);
}

const UPGRADE: KnownSet = KnownSet::of(&[KnownHeader::Connection, KnownHeader::Upgrade]);
const HOP_BY_HOP: KnownSet =
    KnownSet::of(&[KnownHeader::KeepAlive, KnownHeader::ProxyConnection, KnownHeader::TransferEncoding]);

/// Sets `date`, `server`, `x-request-id` and `via` as configured, in this order.
pub(crate) fn finalize(
    config: &ConnectionManagerConfig,
    request: &HeaderMap,
    response: &mut HeaderMap,
    date: &DateCache,
) {
    if !response.contains_known(KnownHeader::Date) {
        date.with(|text| response.append_known(KnownHeader::Date, text));
    }
    match config.server_header {
        ServerHeader::Overwrite => response.set_known(KnownHeader::Server, &config.server_name),
        ServerHeader::AppendIfAbsent if !response.contains_known(KnownHeader::Server) => {
            response.append_known(KnownHeader::Server, &config.server_name);
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
    let forced = || request.contains_known(KnownHeader::XEnvoyForceTrace);
    if (config.forwarding.always_set_request_id_in_response || forced())
        && let Some(id) = request.get_known(KnownHeader::XRequestId)
    {
        response.set_known(KnownHeader::XRequestId, id);
    }
    append_via(&config.forwarding.via, response);
}

/// The `date` header of the current second, formatted once per second and worker.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    /// The text, and until when it holds.
    cached: RefCell<Option<(Instant, [u8; 29])>>,
}

impl DateCache {
    fn with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        let now = clock::now();
        let mut cached = self.cached.borrow_mut();
        match &mut *cached {
            Some((until, text)) if now < *until => read(text),
            cached => read(&cached.insert(Self::at(now)).1),
        }
    }

    #[cold]
    fn at(now: Instant) -> (Instant, [u8; 29]) {
        let since_epoch = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(1) - Duration::from_nanos(since_epoch.subsec_nanos().into());
        (now + left, http_date(since_epoch.as_secs()))
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` for a number of seconds since 1970.
fn http_date(second: u64) -> [u8; 29] {
    const DAYS: &[u8] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let days = second / 86_400;
    let (year, month, day) = civil_date(days);
    let time = second % 86_400;
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    out[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    two_digits(&mut out[5..7], day);
    let month = (month - 1) as usize * 3;
    out[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    two_digits(&mut out[12..14], year / 100);
    two_digits(&mut out[14..16], year % 100);
    two_digits(&mut out[17..19], time / 3600);
    two_digits(&mut out[20..22], time / 60 % 60);
    two_digits(&mut out[23..25], time % 60);
    out
}

fn two_digits(out: &mut [u8], number: u64) {
    out[0] = b'0' + (number / 10 % 10) as u8;
    out[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_imf_fixdate() {
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&http_date(second)).unwrap(), text);
        }
    }

    #[test]
    fn hop_by_hop_headers_of_upstream_go() {
        let mut head = HeaderMap::new();
        for name in ["connection", "keep-alive", "transfer-encoding", "proxy-connection", "upgrade", "x-a"] {
            head.append(name.as_bytes(), b"v");
        }
        let mut upgraded = head.clone();
        remove_hop_by_hop(&mut head, false);
        assert_eq!(head.len(), 1);
        remove_hop_by_hop(&mut upgraded, true);
        assert_eq!(upgraded.len(), 3);
    }
}
