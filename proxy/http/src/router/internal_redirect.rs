//! Redirects of upstreams that are followed here: the request starts over with the location that the response names.

use dhow_expr::FormatContext;
use dhow_http::KnownHeader;
use dhow_proxy_api::{Protocol, StreamFormat};
use dhow_proxy_runtime::clock;
use dhow_routing::{InternalRedirectPolicy, RedirectPredicate, RouteInput, SelectedRoute};
use dhow_runtime_config::Current;

use crate::stream::{Exchange, KeptBody};

/// What a request carries over redirects.
#[derive(Debug, Default)]
pub(crate) struct RedirectTrail {
    /// Redirects followed so far.
    followed: u32,
    /// Names of routes and of those that their redirects led to, for `previous_routes`.
    taken: Vec<[Box<str>; 2]>,
    /// The body of the request, for the next attempt.
    pub(super) body: Option<KeptBody>,
}

impl RedirectTrail {
    /// Keeps the body for the request that starts over.
    pub(super) fn keep_body(&mut self, mut body: KeptBody) {
        body.rewind();
        self.body = Some(body);
    }
}

/// A location, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Location<'a> {
    scheme: &'a [u8],
    authority: &'a [u8],
    path: &'a [u8],
}

impl<'a> Location<'a> {
    /// An absolute URL; a path alone is none.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let at = text.windows(3).position(|window| window == b"://")?;
        let (scheme, rest) = (&text[..at], &text[at + 3..]);
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        (!scheme.is_empty() && !authority.is_empty()).then_some(Self { scheme, authority, path })
    }

    /// The path to request: at least a slash, and no fragment.
    fn target(&self) -> Vec<u8> {
        let path = &self.path[..self.path.iter().position(|&b| b == b'#').unwrap_or(self.path.len())];
        match path.first() {
            Some(b'/') => path.to_vec(),
            _ => [b"/", path].concat(),
        }
    }
}

impl Exchange {
    /// Readies the exchange for the request that a redirect made of it: a new stream on the same connection.
    pub(crate) fn start_over(&mut self) {
        let replayed = self.redirects.body.as_ref().map_or(0, KeptBody::len) as u64;
        let received = self.info.bytes_received + replayed;
        let manager = self.manager.clone();
        let protocol = self.info.protocol.unwrap_or(Protocol::Http11);
        let connection = self.info.connection.clone();
        let request = std::mem::take(&mut self.request);
        let mut next = Self::new(manager, &connection, protocol, request, self.end_stream, self.upgrade);
        next.redirects = std::mem::take(&mut self.redirects);
        next.internal = self.internal;
        next.info.client_address = self.info.client_address.clone();
        next.info.count_bytes(self.info.downstream_bytes.take());
        // Bytes that are sent again count again.
        next.info.bytes_received = received;
        // The body is here already, kept or empty.
        next.info.request_complete = Some(clock::now());
        next.deadlines.request = None;
        *self = next;
        self.select_route();
    }

    /// Turns the request into that for the location of the response, when the route's policy allows it. True: the exchange is to
    /// start over. False: the response goes to the client; what was changed of the request is restored.
    pub(super) fn follow_redirect(
        &mut self,
        route: &SelectedRoute,
        policy: &InternalRedirectPolicy,
        status: u16,
    ) -> bool {
        let Some(location) = self.response.get_known(KnownHeader::Location).map(<[u8]>::to_vec) else {
            return false;
        };
        let stats = self.manager.stats.clone();
        let original = self.request.clone();
        let Some(location) = Location::parse(&location) else {
            stats.redirects.passthrough_internal_redirect_bad_location().inc();
            return false;
        };
        let secure = location.scheme.eq_ignore_ascii_case(b"https");
        let was_secure = self.request.scheme().eq_ignore_ascii_case(b"https");
        let known = secure || location.scheme.eq_ignore_ascii_case(b"http");
        if !known || (secure != was_secure && !policy.allow_cross_scheme) {
            stats.redirects.passthrough_internal_redirect_unsafe_scheme().inc();
            return false;
        }
        if self.redirects.followed >= policy.max_internal_redirects {
            stats.redirects.passthrough_internal_redirect_too_many_redirects().inc();
            return false;
        }
        self.rewrite_for(&location, policy, status);
        let context = StreamFormat { request: Some(&self.request), ..StreamFormat::new(&self.info) };
        let input = RouteInput { context: &context, runtime: &Current, ..RouteInput::new(self.random) };
        let table = self.manager.routes(&self.request);
        let target = table.and_then(|table| table.select(&self.request, &input).selected());
        // From here on the request is reported under the route it was to go on with, even if it is not let.
        self.info.route = target.clone();
        let upstream = &mut self.info.upstream;
        (upstream.cluster, upstream.cluster_name, upstream.cluster_metadata) = (None, None, None);
        self.name_cluster();
        let Some(target) = target else {
            stats.redirects.passthrough_internal_redirect_no_route().inc();
            self.request = original;
            return false;
        };
        let target = target.entry().name().to_owned();
        let safe = was_secure || !secure;
        let allowed =
            policy.predicates.iter().all(|predicate| self.redirect_allowed(predicate, route, &target, safe));
        if !allowed {
            stats.redirects.passthrough_internal_redirect_predicate().inc();
            self.request = original;
            return false;
        }
        self.redirects.followed += 1;
        true
    }

    fn rewrite_for(&mut self, location: &Location<'_>, policy: &InternalRedirectPolicy, status: u16) {
        let original =
            [self.request.scheme(), b"://", self.request.authority(), self.request.path()].concat();
        let request = &mut self.request;
        for name in &policy.response_headers_to_copy {
            request.remove(name);
            for value in self.response.get_all(name) {
                request.append_name(name, value);
            }
        }
        let target = location.target();
        let (scheme, authority) = (location.scheme.to_ascii_lowercase(), location.authority.to_vec());
        request.set_known(KnownHeader::Scheme, &scheme);
        request.set_known(KnownHeader::Authority, &authority);
        request.set_known(KnownHeader::Path, &target);
        if status == 303 && request.method() != b"GET" && request.method() != b"HEAD" {
            request.set_known(KnownHeader::Method, b"GET");
            request.remove_known(KnownHeader::ContentLength);
            request.remove_known(KnownHeader::TransferEncoding);
            self.redirects.body = None;
            self.end_stream = true;
        }
        request.set_known(KnownHeader::XEnvoyOriginalUrl, &original);
    }

    fn redirect_allowed(
        &mut self,
        predicate: &RedirectPredicate,
        current: &SelectedRoute,
        target: &str,
        safe: bool,
    ) -> bool {
        match predicate {
            RedirectPredicate::PreviousRoutes => {
                let step = [current.entry().name().into(), target.into()];
                let fresh = !self.redirects.taken.contains(&step);
                self.redirects.taken.push(step);
                fresh
            }
            RedirectPredicate::AllowListedRoutes(names) => names.iter().any(|name| **name == *target),
            RedirectPredicate::SafeCrossScheme => safe,
            RedirectPredicate::FilterState { key, if_absent } => {
                let context = StreamFormat::new(&self.info);
                match context.filter_state(false, key) {
                    None => *if_absent,
                    Some(object) => {
                        let mut text = Vec::new();
                        object.append_text(&mut text) && text == b"true"
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_absolute() {
        let parts = |text: &str| {
            let location = Location::parse(text.as_bytes())?;
            let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            Some((string(location.scheme), string(location.authority), string(&location.target())))
        };
        let some = |scheme: &str, authority: &str, path: &str| {
            Some((scheme.to_owned(), authority.to_owned(), path.to_owned()))
        };
        assert_eq!(parts("http://b:1/x?q#f"), some("http", "b:1", "/x?q"));
        assert_eq!(parts("HTTPS://b"), some("HTTPS", "b", "/"));
        assert_eq!(parts("http://b?q"), some("http", "b", "/?q"));
        assert_eq!(parts("ftp://b/"), some("ftp", "b", "/"));
        for bad in ["", "x", "/x", "//b/", "://b/", "http:///x"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
