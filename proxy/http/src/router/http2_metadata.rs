//! HTTP/2 METADATA between the two sides of a stream (`allow_metadata`): each side's goes to the other as it comes. What came before
//! there was a host goes with the first attempt; what an attempt got is not repeated for the next.

use std::rc::Rc;

use dhow_http::h2::{Metadata, MetadataPort, MetadataSink};
use dhow_proxy_api::Protocol;

use crate::downstream::Downstream;
use crate::stream::Exchange;
use crate::upstream::UpstreamStream;

/// A side whose protocol has no metadata, which counts what it cannot take.
struct Unsupported<F>(F);

impl<F: Fn()> MetadataSink for Unsupported<F> {
    fn send(&self, _: &Metadata) {
        (self.0)();
    }
}

impl Exchange {
    /// Joins the metadata of the request to that of an attempt's stream.
    pub(super) fn join_metadata<D: Downstream>(&self, down: &D, upstream: &UpstreamStream) {
        let (client, host) = (down.metadata_port(), upstream.metadata_port());
        if client.is_some() || host.is_some() {
            self.join_ports(client, host, down.protocol(), upstream);
        }
    }

    #[cold]
    fn join_ports(
        &self,
        client: Option<MetadataPort>,
        host: Option<MetadataPort>,
        protocol: Protocol,
        upstream: &UpstreamStream,
    ) {
        if let Some(host) = &host {
            host.pass_to(match &client {
                Some(client) => Some(Rc::new(client.clone())),
                None if protocol == Protocol::Http2 => None,
                None => {
                    let manager = self.manager.clone();
                    let count = move || manager.stats.http1().metadata_not_supported_error().inc();
                    Some(Rc::new(Unsupported(count)))
                }
            });
        }
        if let Some(client) = client {
            client.pass_to(match host {
                Some(host) => Some(Rc::new(host)),
                None if !matches!(upstream, UpstreamStream::H1(_)) => None,
                None => {
                    let cluster = upstream.connection().info().clone();
                    let count = move || cluster.stats.http1().metadata_not_supported_error().inc();
                    Some(Rc::new(Unsupported(count)))
                }
            });
        }
    }
}
