//! The cookie of a session: `envoy.Cookie`, a message with the host's address and the second at which it ends, in base64.

use std::time::Duration;

use dhow_base::base64;
use dhow_proto::Message;

/// The message inside of the cookie.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "dhow_proto::prost")]
struct SessionCookie {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint64, tag = "2")]
    expires: u64,
}

/// The value of a cookie for a host, that ends at `expires` since 1970; 0 is never.
pub(super) fn write(address: &str, expires: u64) -> String {
    base64::encode(&SessionCookie { address: address.to_owned(), expires }.encode_to_vec())
}

/// The host that a cookie's value names, unless it ended before `now` since 1970. What is no message is the address itself, as in
/// cookies of long ago.
pub(super) fn read(value: &[u8], now: Duration) -> Option<String> {
    let bytes = base64::decode_padded(std::str::from_utf8(value).ok()?)?;
    let Ok(SessionCookie { address, expires }) = SessionCookie::decode(&*bytes) else {
        return String::from_utf8(bytes).ok();
    };
    let over = expires != 0 && now.as_secs() > expires;
    (!over && !address.is_empty()).then_some(address)
}
