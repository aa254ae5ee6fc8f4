//! What format strings in the headers of a check can ask for.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use dhow_expr::{Address, AddressFact, FormatContext, MetadataSource, TextFact};
use dhow_net::StreamAddress;
use dhow_proto::google::protobuf::Struct;

use crate::host::Host;

const NO_DOWNSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The check of one host.
pub(super) struct CheckContext<'a> {
    pub(super) host: &'a Host,
    pub(super) http2: bool,
    pub(super) now: SystemTime,
}

impl FormatContext for CheckContext<'_> {
    fn start_time(&self) -> Option<SystemTime> {
        Some(self.now)
    }

    fn now(&self) -> Option<SystemTime> {
        Some(self.now)
    }

    fn text(&self, fact: TextFact) -> Option<Cow<'_, str>> {
        match fact {
            TextFact::Protocol => Some(Cow::Borrowed(if self.http2 { "HTTP/2" } else { "HTTP/1.1" })),
            TextFact::UpstreamHostName => {
                Some(self.host.hostname()).filter(|name| !name.is_empty()).map(Cow::Borrowed)
            }
            _ => None,
        }
    }

    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        match fact {
            AddressFact::UpstreamHost => Some(match self.host.address() {
                StreamAddress::Ip(ip) => Address::Ip(*ip),
                StreamAddress::Pipe(path) => Address::Pipe(path),
            }),
            // There is no downstream; Envoy prints a placeholder, which headers may rely on.
            AddressFact::DownstreamLocal
            | AddressFact::DownstreamDirectLocal
            | AddressFact::DownstreamRemote
            | AddressFact::DownstreamDirectRemote => Some(Address::Ip(NO_DOWNSTREAM)),
            AddressFact::UpstreamRemote | AddressFact::UpstreamLocal => None,
        }
    }

    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        match source {
            MetadataSource::UpstreamHost => self.host.metadata().endpoint_struct(namespace),
            _ => None,
        }
    }
}
