//! Why a request gets the route that it gets.

use std::fmt;
use std::sync::Arc;

use dhow_http::HeaderMap;

use crate::route_match::{Mismatch, compared_path};
use crate::table::{Decision, RouteInput, RouteTable, must_use_tls};
use crate::virtual_host::VirtualHost;

/// A route that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its position in the virtual host.
    pub route: usize,
    /// Its name; may be empty.
    pub name: String,
    /// Why it was passed over; `None` for the one that was selected.
    pub mismatch: Option<Mismatch>,
}

/// A selection with its reasons.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The host that was searched, as it was sent.
    pub host: String,
    /// The virtual host that has it.
    pub virtual_host: Option<Arc<VirtualHost>>,
    /// Whether the request is sent to https before any route is looked at.
    pub requires_tls: bool,
    /// The routes that were looked at, in order.
    pub steps: Vec<Step>,
    /// What [`RouteTable::select`] gives.
    pub decision: Decision,
}

impl RouteTable {
    /// As [`RouteTable::select`], and tells for each route before the selected one why it was passed over.
    pub fn explain(&self, headers: &HeaderMap, input: &RouteInput<'_>) -> Explanation {
        let host = headers.get(&self.host_header).unwrap_or_default();
        let mut explanation = Explanation {
            host: String::from_utf8_lossy(host).into_owned(),
            virtual_host: None,
            requires_tls: false,
            steps: Vec::new(),
            decision: self.select(headers, input),
        };
        let Some(virtual_host) = self.virtual_host(headers) else { return explanation };
        explanation.virtual_host = Some(virtual_host.clone());
        explanation.requires_tls = must_use_tls(virtual_host, headers);
        if explanation.requires_tls {
            return explanation;
        }
        let path = compared_path(headers.path(), self.ignore_path_parameters);
        for (at, route) in virtual_host.candidates(headers, input) {
            let mismatch = route.matched.check(headers, &path, input).err();
            explanation.steps.push(Step { route: at, name: route.name.to_string(), mismatch });
            if mismatch.is_none() {
                break;
            }
        }
        explanation
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeFraction => f.write_str("the request falls outside of runtime_fraction"),
            Self::Path => f.write_str("the path does not match"),
            Self::NotConnect => f.write_str("the request is not CONNECT"),
            Self::NotGrpc => f.write_str("the request is not gRPC"),
            Self::Header(at) => write!(f, "headers[{at}] does not match"),
            Self::QueryParameter(at) => write!(f, "query_parameters[{at}] does not match"),
            Self::Cookie(at) => write!(f, "cookies[{at}] does not match"),
            Self::TlsContext => f.write_str("tls_context does not match"),
            Self::DynamicMetadata(at) => write!(f, "dynamic_metadata[{at}] does not match"),
            Self::FilterState(at) => write!(f, "filter_state[{at}] does not match"),
        }
    }
}
