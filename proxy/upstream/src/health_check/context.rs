//! What format strings in the headers of a check can ask for.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use dhow_expr::{Address, AddressFact, FormatContext, MetadataSource, TextFact};
use dhow_proto::google::protobuf::Struct;

use crate::cluster_info::ClusterInfo;
use crate::host::{Host, HostAddress};

/// The check of one host.
pub(super) struct CheckContext<'a> {
    pub(super) info: &'a ClusterInfo,
    pub(super) host: &'a Host,
    pub(super) local: Option<SocketAddr>,
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
            TextFact::UpstreamCluster => Some(Cow::Borrowed(&self.info.observability_name)),
            TextFact::UpstreamClusterRaw => Some(Cow::Borrowed(&self.info.name)),
            TextFact::UpstreamHostName => {
                Some(self.host.hostname()).filter(|name| !name.is_empty()).map(Cow::Borrowed)
            }
            _ => None,
        }
    }

    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        let upstream = || match self.host.address() {
            HostAddress::Ip(ip) => Address::Ip(*ip),
            HostAddress::Pipe(path) => Address::Pipe(path),
        };
        match fact {
            AddressFact::UpstreamHost | AddressFact::UpstreamRemote => Some(upstream()),
            AddressFact::UpstreamLocal
            | AddressFact::DownstreamLocal
            | AddressFact::DownstreamDirectLocal
            | AddressFact::DownstreamRemote
            | AddressFact::DownstreamDirectRemote => self.local.map(Address::Ip),
        }
    }

    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        match source {
            MetadataSource::Cluster => self.info.metadata.filter_metadata.get(namespace),
            MetadataSource::UpstreamHost => self.host.metadata().endpoint_struct(namespace),
            _ => None,
        }
    }
}
