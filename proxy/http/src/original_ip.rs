//! `original_ip_detection_extensions`: who the client is, where `x-forwarded-for` alone does not say it.

use std::net::IpAddr;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::CidrSet;
use dhow_proto::envoy::config::core::v3::TypedExtensionConfig;
use dhow_proto::envoy::extensions::http::original_ip_detection::custom_header::v3::CustomHeaderConfig;
use dhow_proto::envoy::extensions::http::original_ip_detection::xff::v3::{XffConfig, XffTrustedCidrs};
use dhow_proto::google::protobuf::Any;

use crate::request_headers::{address_from_right, forwarded_for, is_single_address};

const XFF: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const CUSTOM_HEADER: &str = "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";

/// One way to find the client's address.
#[derive(Clone, Debug)]
pub enum AddressDetector {
    /// `envoy.http.original_ip_detection.xff`.
    ForwardedFor {
        /// `xff_num_trusted_hops`, when no ranges are trusted.
        trusted_hops: usize,
        /// `xff_trusted_cidrs`.
        trusted: Option<CidrSet>,
        /// `skip_xff_append`, true unless set.
        skip_append: bool,
    },
    /// `envoy.http.original_ip_detection.custom_header`.
    CustomHeader {
        /// `header_name`.
        header: HeaderName,
        /// `allow_extension_to_set_address_as_trusted`: the address may count as internal.
        trusted: bool,
        /// `reject_with_status`: what a request without the address is answered.
        reject: Option<u16>,
    },
}

/// What the detectors found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detected {
    /// The client's address.
    pub(crate) address: Option<IpAddr>,
    /// Whether the address may decide that the request is internal.
    pub(crate) trusted: bool,
    /// Whether the peer's address is still appended to `x-forwarded-for`.
    pub(crate) append: bool,
}

impl AddressDetector {
    /// Lowers the extensions.
    ///
    /// # Errors
    /// For an extension that is not known, and for fields that are not acceptable.
    pub(crate) fn lower_all(
        extensions: Vec<TypedExtensionConfig>,
        path: &FieldPath,
    ) -> Result<Vec<Self>, ConfigError> {
        let extensions = extensions.into_iter().enumerate();
        extensions.map(|(i, extension)| Self::lower(extension, &path.index(i))).collect()
    }

    fn lower(extension: TypedExtensionConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = extension;
        let config = typed_config.unwrap_or_default();
        let path = path.field("typed_config");
        match dhow_proto::any::type_name(&config.type_url) {
            XFF => Self::lower_forwarded_for(&config, &path),
            CUSTOM_HEADER => Self::lower_custom_header(&config, &path),
            other => {
                let reason =
                    format!("Original IP detection extension not found: '{name}' with type URL: '{other}'");
                Err(ConfigError::new(path, reason))
            }
        }
    }

    fn lower_forwarded_for(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let XffConfig { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        if xff_num_trusted_hops > 0 && xff_trusted_cidrs.is_some() {
            let reason = "Cannot set both xff_num_trusted_hops and xff_trusted_cidrs";
            return Err(ConfigError::new(path.field("xff_trusted_cidrs"), reason));
        }
        let trusted = match xff_trusted_cidrs {
            None => None,
            Some(XffTrustedCidrs { cidrs }) => {
                Some(CidrSet::compile(&cidrs, &path.field("xff_trusted_cidrs").field("cidrs"))?)
            }
        };
        Ok(Self::ForwardedFor {
            trusted_hops: xff_num_trusted_hops as usize,
            trusted,
            skip_append: skip_xff_append.is_none_or(|skip| skip.value),
        })
    }

    fn lower_custom_header(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let CustomHeaderConfig { header_name, allow_extension_to_set_address_as_trusted, reject_with_status } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        if header_name.is_empty() {
            let reason = "value length must be at least 1 characters";
            return Err(ConfigError::new(path.field("header_name"), reason));
        }
        // A status that is no error is replaced, as in Envoy.
        let reject = reject_with_status
            .map(|status| u16::try_from(status.code).ok().filter(|code| (400..600).contains(code)));
        Ok(Self::CustomHeader {
            header: HeaderName::new(&header_name),
            trusted: allow_extension_to_set_address_as_trusted,
            reject: reject.map(|code| code.unwrap_or(403)),
        })
    }

    /// Asks each detector in turn until one finds an address. The error is the status of the reply to a request that is
    /// rejected.
    pub(crate) fn detect(
        detectors: &[Self],
        peer: Option<IpAddr>,
        head: &HeaderMap,
    ) -> Result<Detected, u16> {
        let mut append = false;
        for detector in detectors {
            let found = match detector {
                Self::ForwardedFor { trusted_hops, trusted, skip_append } => {
                    append |= !skip_append;
                    match trusted {
                        None => address_from_right(head, *trusted_hops),
                        Some(ranges) if peer.is_some_and(|peer| ranges.contains(peer)) => {
                            last_untrusted(head, ranges)
                        }
                        Some(_) => None,
                    }
                    .map(|address| (address, is_single_address(head)))
                }
                Self::CustomHeader { header, trusted, reject } => {
                    let value = head.get(header).and_then(|value| std::str::from_utf8(value).ok());
                    match (value.and_then(|value| value.parse().ok()), reject) {
                        (None, Some(status)) => return Err(*status),
                        (address, _) => address.map(|address| (address, *trusted)),
                    }
                }
            };
            if let Some((address, trusted)) = found {
                return Ok(Detected { address: Some(address), trusted, append });
            }
        }
        Ok(Detected { append, ..Detected::default() })
    }
}

/// The last address of `x-forwarded-for` that is not trusted, or the first one when all are.
fn last_untrusted(head: &HeaderMap, trusted: &CidrSet) -> Option<IpAddr> {
    let mut leftmost = None;
    for element in forwarded_for(head).rev() {
        let address = std::str::from_utf8(element).ok().and_then(|text| text.parse::<IpAddr>().ok())?;
        if !trusted.contains(address) {
            return Some(address);
        }
        leftmost = Some(address);
    }
    leftmost
}

#[cfg(test)]
mod tests {
    use dhow_matching::Cidr;

    use super::*;

    fn head(name: &str, value: &str) -> HeaderMap {
        let mut head = HeaderMap::new();
        head.append(name.as_bytes(), value.as_bytes());
        head
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_detector_that_finds_an_address_decides() {
        let custom =
            AddressDetector::CustomHeader { header: HeaderName::new("x-ip"), trusted: true, reject: None };
        let xff = AddressDetector::ForwardedFor { trusted_hops: 1, trusted: None, skip_append: false };
        let both = [custom, xff];
        let found = AddressDetector::detect(&both, Some(ip("127.0.0.1")), &head("x-ip", "1.1.1.1"));
        assert_eq!(found, Ok(Detected { address: Some(ip("1.1.1.1")), trusted: true, append: false }));
        let found = AddressDetector::detect(
            &both,
            Some(ip("127.0.0.1")),
            &head("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        );
        assert_eq!(found, Ok(Detected { address: Some(ip("2.2.2.2")), trusted: false, append: true }));
        let found = AddressDetector::detect(&both, Some(ip("127.0.0.1")), &HeaderMap::new());
        assert_eq!(found, Ok(Detected { address: None, trusted: false, append: true }));
    }

    #[test]
    fn a_request_without_the_header_is_rejected_where_that_is_wanted() {
        let custom = [AddressDetector::CustomHeader {
            header: HeaderName::new("x-ip"),
            trusted: true,
            reject: Some(401),
        }];
        for value in ["nonsense", "1.1.1.1:80", ""] {
            assert_eq!(
                AddressDetector::detect(&custom, Some(ip("127.0.0.1")), &head("x-ip", value)),
                Err(401)
            );
        }
    }

    #[test]
    fn trusted_ranges_are_skipped_from_the_right() {
        let trusted = || CidrSet::from_iter([Cidr::new(ip("10.0.0.0"), 8)]);
        let xff =
            [AddressDetector::ForwardedFor { trusted_hops: 0, trusted: Some(trusted()), skip_append: true }];
        let found = |peer, value| {
            AddressDetector::detect(&xff, Some(ip(peer)), &head("x-forwarded-for", value)).unwrap().address
        };
        assert_eq!(found("10.0.0.1", "1.1.1.1, 8.8.8.8, 10.3.3.3"), Some(ip("8.8.8.8")));
        assert_eq!(found("10.0.0.1", "10.2.2.2,10.3.3.3"), Some(ip("10.2.2.2")));
        assert_eq!(found("10.0.0.1", "8.8.8.8, nonsense"), None);
        assert_eq!(found("9.9.9.9", "8.8.8.8"), None);
    }
}
