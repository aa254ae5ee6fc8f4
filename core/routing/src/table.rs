//! The table, and the selection of a route.

use std::sync::Arc;

use dhow_expr::{EmptyContext, FormatContext};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_matching::DomainIndex;

use crate::cluster::ClusterChoice;
use crate::entry::{Action, RouteEntry, SelectedRoute};
use crate::pb::core::Metadata;
use crate::route_match::compared_path;
use crate::virtual_host::{TlsRequirement, VirtualHost};
use dhow_runtime_config::{NoRuntime, RuntimeValues};

/// A compiled `envoy.config.route.v3.RouteConfiguration`; immutable.
#[derive(Clone, Debug)]
pub struct RouteTable {
    pub(crate) name: Box<str>,
    pub(crate) virtual_hosts: Box<[Arc<VirtualHost>]>,
    pub(crate) domains: DomainIndex<u32>,
    pub(crate) host_header: HeaderName,
    pub(crate) ignore_port: bool,
    pub(crate) ignore_path_parameters: bool,
    pub(crate) internal_only_headers: Box<[HeaderName]>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) to_https: Arc<RouteEntry>,
}

/// What is known of the client's certificate on a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// None was presented.
    None,
    /// One was presented and not validated.
    Presented,
    /// One was presented and validated.
    Validated,
}

/// What the selection reads beside the headers.
#[derive(Clone, Copy)]
pub struct RouteInput<'a> {
    /// The stream's stable random value, for fractions and weights.
    pub random: u64,
    /// `None` without TLS.
    pub client_certificate: Option<ClientCertificate>,
    /// Runtime values.
    pub runtime: &'a dyn RuntimeValues,
    /// Dynamic metadata and filter state.
    pub context: &'a dyn FormatContext,
}

impl RouteInput<'static> {
    /// An input without TLS, runtime values, metadata and filter state.
    pub fn new(random: u64) -> Self {
        Self { random, client_certificate: None, runtime: &NoRuntime, context: &EmptyContext }
    }
}

/// The result of a selection.
#[derive(Clone, Debug)]
pub enum Decision {
    /// No virtual host has the request's domain, or none of its routes matches: 404, `NR`, `route_not_found`.
    NotFound {
        /// The virtual host, if the domain has one.
        virtual_host: Option<Arc<VirtualHost>>,
    },
    /// A route. For a virtual host that requires TLS it may be a redirect that is not in the configuration.
    Selected(SelectedRoute),
}

impl Decision {
    /// The route, if one was found.
    pub fn selected(self) -> Option<SelectedRoute> {
        match self {
            Self::Selected(route) => Some(route),
            Self::NotFound { .. } => None,
        }
    }
}

/// Room for a host in lower case without allocation; DNS names are shorter.
const HOST_ROOM: usize = 256;

impl RouteTable {
    /// Name of the route configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Virtual hosts in order.
    pub fn virtual_hosts(&self) -> &[Arc<VirtualHost>] {
        &self.virtual_hosts
    }

    /// `internal_only_headers`: removed from external requests.
    pub fn internal_only_headers(&self) -> &[HeaderName] {
        &self.internal_only_headers
    }

    /// Metadata.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Whether there is no virtual host.
    pub fn is_empty(&self) -> bool {
        self.virtual_hosts.is_empty()
    }

    /// The virtual host of a request.
    pub fn virtual_host(&self, headers: &HeaderMap) -> Option<&Arc<VirtualHost>> {
        if let Some(&only) = self.domains.only_any() {
            return self.virtual_hosts.get(only as usize);
        }
        let host = headers.get(&self.host_header)?;
        let host = if self.ignore_port { without_port(host) } else { host };
        let mut room = [0u8; HOST_ROOM];
        let long;
        let lower = match room.get_mut(..host.len()) {
            Some(room) => {
                room.copy_from_slice(host);
                room.make_ascii_lowercase();
                &*room
            }
            None => {
                long = host.to_ascii_lowercase();
                &long
            }
        };
        let (&at, _) = self.domains.find(lower)?;
        self.virtual_hosts.get(at as usize)
    }

    /// Selects the route of a request.
    pub fn select(&self, headers: &HeaderMap, input: &RouteInput<'_>) -> Decision {
        let Some(virtual_host) = self.virtual_host(headers) else {
            return Decision::NotFound { virtual_host: None };
        };
        if must_use_tls(virtual_host, headers) {
            return self.selected(&self.to_https, virtual_host, headers, input);
        }
        let path = compared_path(headers.path(), self.ignore_path_parameters);
        let found = virtual_host
            .first_match(headers, &path, input, |route| route.matched.check(headers, &path, input).is_ok());
        match found {
            Some(entry) => self.selected(entry, virtual_host, headers, input),
            None => Decision::NotFound { virtual_host: Some(virtual_host.clone()) },
        }
    }

    pub(crate) fn selected(
        &self,
        entry: &Arc<RouteEntry>,
        virtual_host: &Arc<VirtualHost>,
        headers: &HeaderMap,
        input: &RouteInput<'_>,
    ) -> Decision {
        let chosen = match &entry.action {
            Action::Forward(action) => match &action.cluster {
                ClusterChoice::Weighted(clusters) => {
                    Some(clusters.pick(headers, &action.hash_policies, input) as u32)
                }
                ClusterChoice::Matched(clusters) => clusters.choose(headers),
                ClusterChoice::One(_) => None,
            },
            _ => None,
        };
        Decision::Selected(SelectedRoute { entry: entry.clone(), virtual_host: virtual_host.clone(), chosen })
    }
}

pub(crate) fn must_use_tls(virtual_host: &VirtualHost, headers: &HeaderMap) -> bool {
    let required = match virtual_host.require_tls {
        TlsRequirement::None => return false,
        TlsRequirement::ExternalOnly => headers.get_known(KnownHeader::XEnvoyInternal) != Some(b"true"),
        TlsRequirement::All => true,
    };
    let scheme = headers.get_known(KnownHeader::XForwardedProto).unwrap_or_default();
    required && scheme != b"https"
}

fn without_port(host: &[u8]) -> &[u8] {
    // What follows the colon need not be a number. The colons of `[::1]` are inside of its brackets.
    match host.iter().rposition(|b| matches!(b, b':' | b']')) {
        Some(at) if host[at] == b':' => &host[..at],
        _ => host,
    }
}
