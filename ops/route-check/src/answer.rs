//! What a test's request gets.

use dhow_expr::{Address, AddressFact, FormatContext, MetadataSource};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proto::envoy::config::core::v3::HeaderValue;
use dhow_proto::envoy::extensions::filters::http::set_metadata::v3::Metadata;
use dhow_proto::google::protobuf::{Struct, Value, value::Kind};
use dhow_proto::router_check::ValidationInput;
use dhow_routing::{Action, RouteInput, SelectedRoute};
use dhow_runtime_config::{Fraction, RuntimeValues};

use crate::table::Table;

/// The route of a request, and both heads as they leave.
pub(crate) struct Answer {
    pub(crate) route: Option<SelectedRoute>,
    /// The cluster by the headers that the request came with; empty for none.
    pub(crate) cluster: String,
    /// The location of a redirect, or the request's own URI for a direct response.
    pub(crate) location: String,
    pub(crate) request: HeaderMap,
    pub(crate) response: HeaderMap,
}

impl Answer {
    /// Selects the route and edits the heads as the proxy would.
    pub(crate) fn to(input: &ValidationInput, table: &Table) -> Self {
        let mut request = request_of(input);
        let context = Stream { dynamic_metadata: merged(&input.dynamic_metadata) };
        let runtime = OneKey(&input.runtime);
        let route_input =
            RouteInput { runtime: &runtime, context: &context, ..RouteInput::new(input.random_value) };
        let mut response = HeaderMap::new();
        append(&mut response, &input.additional_response_headers);
        let Some(route) = table.routes.select(&request, &route_input).selected() else {
            return Self { route: None, cluster: String::new(), location: String::new(), request, response };
        };
        let cluster = route.cluster(&request).unwrap_or_default().to_owned();
        let location = route.direct_uri(&request, &context).unwrap_or_default();
        if is_direct(&route) {
            route.rewrite_redirected_path(&mut request, &context, false);
            append_reply(&mut response, &route);
        } else {
            route.apply_request_rewrites(&mut request, &context, false);
        }
        route.apply_response_headers(&mut response, &context);
        let location = String::from_utf8_lossy(&location).into_owned();
        Self { route: Some(route), cluster, location, request, response }
    }

    /// The route, when it forwards.
    pub(crate) fn forwarding(&self) -> Option<&SelectedRoute> {
        self.route.as_ref().filter(|route| !is_direct(route))
    }

    /// The route, when it answers itself.
    pub(crate) fn direct(&self) -> Option<&SelectedRoute> {
        self.route.as_ref().filter(|route| is_direct(route))
    }

    /// The status of a redirect or direct response, or 0.
    pub(crate) fn direct_status(&self) -> u16 {
        self.route.as_ref().map_or(0, status_of)
    }
}

fn is_direct(route: &SelectedRoute) -> bool {
    matches!(route.action(), Action::Redirect(_) | Action::DirectResponse(_))
}

fn status_of(route: &SelectedRoute) -> u16 {
    match route.action() {
        Action::Redirect(redirect) => redirect.status(),
        Action::DirectResponse(response) => response.status,
        Action::Forward(_) | Action::NonForwarding => 0,
    }
}

fn request_of(input: &ValidationInput) -> HeaderMap {
    let scheme: &[u8] = if input.ssl { b"https" } else { b"http" };
    let mut request = HeaderMap::new();
    request.append_known(KnownHeader::Authority, input.authority.as_bytes());
    request.append_known(KnownHeader::Path, input.path.as_bytes());
    request.append_known(KnownHeader::Method, input.method.as_bytes());
    request.append_known(KnownHeader::XForwardedProto, scheme);
    request.append_known(KnownHeader::Scheme, scheme);
    if input.internal {
        request.append_known(KnownHeader::XEnvoyInternal, b"true");
    }
    append(&mut request, &input.additional_headers);
    append(&mut request, &input.additional_request_headers);
    request
}

fn append(headers: &mut HeaderMap, added: &[HeaderValue]) {
    for HeaderValue { key, value, raw_value } in added {
        let value = if value.is_empty() { raw_value } else { value.as_bytes() };
        headers.append(key.as_bytes(), value);
    }
}

/// The head of the answer that Envoy gives itself.
fn append_reply(response: &mut HeaderMap, route: &SelectedRoute) {
    let body: &[u8] = match route.action() {
        Action::DirectResponse(direct) => &direct.body,
        _ => b"",
    };
    response.set_status(status_of(route));
    if !body.is_empty() {
        response.set_known_number(KnownHeader::ContentLength, body.len() as u64);
        response.set_known(KnownHeader::ContentType, b"text/plain");
    }
}

/// A runtime in which one key is on: it leaves the default of that key in force, and that of no other.
struct OneKey<'a>(&'a str);

impl RuntimeValues for OneKey<'_> {
    fn fraction(&self, key: &str) -> Option<Fraction> {
        (key != self.0).then_some(Fraction { numerator: 0, denominator: 100 })
    }
    fn number(&self, _key: &str) -> Option<u64> {
        None
    }
    fn double(&self, _key: &str) -> Option<f64> {
        None
    }
    fn boolean(&self, _key: &str) -> Option<bool> {
        None
    }
}

/// The stream of a request: its client is on this machine, and filters may have set metadata.
struct Stream {
    dynamic_metadata: Vec<(String, Struct)>,
}

impl FormatContext for Stream {
    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        let known = self.dynamic_metadata.iter().find(|(known, _)| known == namespace);
        known.filter(|_| source == MetadataSource::Dynamic).map(|(_, values)| values)
    }

    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        match fact {
            AddressFact::DownstreamRemote | AddressFact::DownstreamDirectRemote => {
                Some(Address::Ip(([127, 0, 0, 1], 0).into()))
            }
            _ => None,
        }
    }
}

/// Namespaces as the filter that takes such a list leaves them: a later value changes an earlier one only if it may.
fn merged(list: &[Metadata]) -> Vec<(String, Struct)> {
    let mut namespaces: Vec<(String, Struct)> = Vec::new();
    for entry in list {
        let Metadata {
            metadata_namespace,
            allow_overwrite,
            value,
            typed_value: _, // Route matchers do not look at typed metadata.
        } = entry;
        let Some(value) = value else { continue };
        match namespaces.iter_mut().find(|(name, _)| name == metadata_namespace) {
            None => namespaces.push((metadata_namespace.clone(), value.clone())),
            Some((_, known)) if *allow_overwrite => merge(known, value),
            Some(_) => {}
        }
    }
    namespaces
}

/// Structures merge, lists grow, and everything else is replaced.
fn merge(known: &mut Struct, newer: &Struct) {
    for (key, value) in &newer.fields {
        match (known.fields.get_mut(key).and_then(|known| known.kind.as_mut()), &value.kind) {
            (Some(Kind::StructValue(known)), Some(Kind::StructValue(newer))) => merge(known, newer),
            (Some(Kind::ListValue(known)), Some(Kind::ListValue(newer))) => {
                known.values.extend(newer.values.iter().cloned());
            }
            _ => {
                known.fields.insert(key.clone(), Value { kind: value.kind.clone() });
            }
        }
    }
}
