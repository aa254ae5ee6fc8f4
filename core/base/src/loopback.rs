//! Which addresses Envoy takes for this machine's own.

use std::net::{IpAddr, Ipv4Addr};

/// Whether `address` is `127.0.0.1` or `::1`. The rest of `127.0.0.0/8` counts as external, as in Envoy.
pub fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == Ipv4Addr::LOCALHOST,
        IpAddr::V6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_the_first_address_is_loopback() {
        for (address, expected) in
            [("127.0.0.1", true), ("127.0.0.2", false), ("::1", true), ("10.0.0.1", false)]
        {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }
}
