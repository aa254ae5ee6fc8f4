//! VirtualService.

use super::{Checker, matching, names};
use crate::istio::{
    CorsPolicy, Destination, DirectResponse, Fault, Headers, HttpMatchRequest, HttpRedirect, HttpRoute,
    L4Match, RetryPolicy, RouteDestination, StringMatch, TlsMatch, VirtualService,
};

const CLAIMS: &str = "@request.auth.claims";

pub(super) fn check(checker: &mut Checker, spec: &VirtualService) {
    let VirtualService { hosts, gateways, http, tls, tcp, export_to } = spec;
    names::export_to(checker, export_to);
    checker.each("gateways", gateways, |checker, name| {
        if name != "mesh" {
            names::gateway_name(checker, name);
        }
    });
    if hosts.is_empty() {
        // A delegate: a root VirtualService sends requests here.
        if !gateways.is_empty() {
            checker.refuse_at("gateways", "a VirtualService without hosts is a delegate and has no gateways");
        }
        if !tls.is_empty() || !tcp.is_empty() {
            checker.refuse("a VirtualService without hosts is a delegate and has http rules only");
        }
        if http.is_empty() {
            checker.refuse_at("hosts", "at least one host is required");
        }
    }
    let on_mesh = gateways.is_empty() || gateways.iter().any(|name| name == "mesh");
    checker.each("hosts", hosts, |checker, host| {
        if host.parse::<std::net::IpAddr>().is_err() && !names::is_host_or_wildcard(host) {
            checker.refuse(format!("{host:?} is not a host name"));
        } else if host == "*" && on_mesh {
            checker.refuse("'*' is not allowed for the gateway \"mesh\"");
        }
    });
    for (index, host) in hosts.iter().enumerate() {
        if hosts[..index].contains(host) {
            checker.refuse_at("hosts", format!("{host:?} is there twice"));
        }
    }
    if http.is_empty() && tls.is_empty() && tcp.is_empty() {
        checker.refuse("one of http, tls and tcp is required");
    }
    checker.each("http", http, |checker, route| http_route(checker, route, hosts.is_empty()));
    checker.each("tls", tls, |checker, route| {
        if route.matches.is_empty() {
            checker.refuse_at("match", "is required");
        }
        checker.each("match", &route.matches, |checker, entry| tls_match(checker, entry, hosts));
        destinations(checker, &route.route);
    });
    checker.each("tcp", tcp, |checker, route| {
        checker.each("match", &route.matches, l4_match);
        destinations(checker, &route.route);
    });
}

fn http_route(checker: &mut Checker, route: &HttpRoute, is_delegate: bool) {
    let HttpRoute {
        name: _,
        matches,
        route: targets,
        redirect,
        direct_response,
        delegate,
        rewrite,
        timeout: _,
        retries,
        fault,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percentage,
        cors_policy,
        headers,
    } = route;
    let actions = [!targets.is_empty(), redirect.is_some(), direct_response.is_some(), delegate.is_some()];
    match actions.iter().filter(|set| **set).count() {
        0 => checker.refuse("one of route, redirect, directResponse and delegate is required"),
        1 => {}
        _ => checker.refuse("only one of route, redirect, directResponse and delegate is allowed"),
    }
    if delegate.is_some() && is_delegate {
        checker.refuse_at("delegate", "a delegate cannot delegate further");
    }
    checker.each("match", matches, http_match);
    if let Some(redirect) = redirect {
        checker.field("redirect", |checker| http_redirect(checker, redirect));
        if rewrite.is_some() {
            checker.refuse_at("rewrite", "has no meaning beside redirect");
        }
    }
    if let Some(response) = direct_response {
        checker.field("directResponse", |checker| http_direct_response(checker, response));
    }
    if let Some(rewrite) = rewrite {
        checker.field("rewrite", |checker| {
            if let Some(regex_rewrite) = &rewrite.uri_regex_rewrite {
                if !rewrite.uri.is_empty() {
                    checker.refuse("only one of uri and uriRegexRewrite may be set");
                }
                checker.field("uriRegexRewrite", |checker| {
                    matching::regex(checker, "match", &regex_rewrite.pattern);
                    if regex_rewrite.rewrite.is_empty() {
                        checker.refuse_at("rewrite", "is required");
                    }
                });
            } else if rewrite.uri.is_empty() && rewrite.authority.is_empty() {
                checker.refuse("one of uri, authority and uriRegexRewrite is required");
            }
        });
    }
    if let Some(retries) = retries {
        checker.field("retries", |checker| http_retries(checker, retries));
    }
    if let Some(fault) = fault {
        checker.field("fault", |checker| http_fault(checker, fault));
    }
    if let Some(cors) = cors_policy {
        checker.field("corsPolicy", |checker| http_cors(checker, cors));
    }
    if mirror.is_some() && !mirrors.is_empty() {
        checker.refuse_at("mirrors", "only one of mirror and mirrors may be set");
    }
    if let Some(mirror) = mirror {
        destination(checker, "mirror", mirror);
    }
    checker.each("mirrors", mirrors, |checker, mirror| {
        destination(checker, "destination", &mirror.destination);
        if let Some(percent) = &mirror.percentage {
            matching::percentage(checker, "percentage", percent);
        }
    });
    if mirror_percent.is_some_and(|percent| percent > 100) {
        checker.refuse_at("mirrorPercent", "must be between 0 and 100");
    }
    if let Some(percent) = mirror_percentage {
        matching::percentage(checker, "mirrorPercentage", percent);
    }
    check_headers(checker, headers.as_ref());
    checker.each("route", targets, |checker, target| {
        destination(checker, "destination", &target.destination);
        check_headers(checker, target.headers.as_ref());
    });
    weights(checker, targets.iter().map(|target| target.weight));
}

fn http_match(checker: &mut Checker, entry: &HttpMatchRequest) {
    let HttpMatchRequest {
        name: _,
        uri,
        scheme,
        method,
        authority,
        headers,
        port,
        source_labels,
        gateways,
        query_params,
        ignore_uri_case: _,
        without_headers,
        source_namespace: _,
        stat_prefix: _,
    } = entry;
    for (name, value) in [("uri", uri), ("scheme", scheme), ("method", method), ("authority", authority)] {
        if let Some(value) = value {
            if *value == StringMatch::Present {
                checker.refuse_at(name, "one of exact, prefix and regex is required");
            }
            matching::string_match(checker, name, value);
        }
    }
    for (field, map) in
        [("headers", headers), ("withoutHeaders", without_headers), ("queryParams", query_params)]
    {
        for (name, value) in map {
            if name.is_empty() {
                checker.refuse_at(field, "a name must not be empty");
            }
            if field == "headers" && name.starts_with(CLAIMS) {
                let reason = "routing by JWT claims is not supported yet";
                checker.key(field, name, |checker| checker.refuse(reason));
            }
            if let StringMatch::Regex(pattern) = value {
                checker.key(field, name, |checker| matching::regex(checker, "regex", pattern));
            }
        }
    }
    if let Some(port) = port {
        checker.port("port", *port);
    }
    names::labels(checker, "sourceLabels", source_labels);
    checker.each("gateways", gateways, |checker, name| {
        if name != "mesh" {
            names::gateway_name(checker, name);
        }
    });
}

fn http_redirect(checker: &mut Checker, redirect: &HttpRedirect) {
    let HttpRedirect { uri, prefix_rewrite, authority, port, derive_port, scheme, redirect_code } = redirect;
    let changes =
        !uri.is_empty() || !prefix_rewrite.is_empty() || !authority.is_empty() || !scheme.is_empty();
    if !changes && port.is_none() && derive_port.is_none() {
        checker.refuse("must set at least one of uri, authority, scheme and port");
    }
    if !uri.is_empty() && !prefix_rewrite.is_empty() {
        checker.refuse("only one of uri and prefixRewrite may be set");
    }
    if !matches!(redirect_code, 0 | 301 | 302 | 303 | 307 | 308) {
        checker
            .refuse_at("redirectCode", format!("{redirect_code} is not one of 301, 302, 303, 307 and 308"));
    }
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        checker.refuse_at("scheme", format!("{scheme:?} must be http or https"));
    }
    if let Some(port) = port {
        checker.port("port", *port);
        if derive_port.is_some() {
            checker.refuse("only one of port and derivePort may be set");
        }
    }
}

fn http_direct_response(checker: &mut Checker, response: &DirectResponse) {
    if !(200..=599).contains(&response.status) {
        checker.refuse_at("status", format!("{} must be between 200 and 599", response.status));
    }
    let size = match &response.body {
        None => 0,
        Some(crate::istio::BytesOrString::String(text)) => text.len(),
        Some(crate::istio::BytesOrString::Bytes(bytes)) => bytes.len(),
    };
    if size > 1 << 20 {
        checker.refuse_at("body", "must not be longer than 1 MiB");
    }
}

/// Conditions that Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on` know.
const RETRY_ON: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "retriable-request-headers",
];

fn http_retries(checker: &mut Checker, retries: &RetryPolicy) {
    if retries.attempts < 0 {
        checker.refuse_at("attempts", "must not be negative");
    }
    if retries.attempts == 0 && (retries.per_try_timeout.is_some() || !retries.retry_on.is_empty()) {
        checker.refuse("retries are disabled by attempts 0, nothing else may be set");
    }
    for condition in retries.retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        let is_status = condition.parse::<u32>().is_ok_and(|status| (100..=599).contains(&status));
        if !is_status && !RETRY_ON.contains(&condition) {
            checker.refuse_at("retryOn", format!("unknown condition {condition:?}"));
        }
    }
    checker.not_honoured("retryRemoteLocalities", retries.retry_remote_localities == Some(true));
}

fn http_fault(checker: &mut Checker, fault: &Fault) {
    if fault.abort.is_none() && fault.delay.is_none() {
        checker.refuse("one of delay and abort is required");
    }
    if let Some(abort) = &fault.abort {
        checker.field("abort", |checker| {
            if let Some(percent) = &abort.percentage {
                matching::percentage(checker, "percentage", percent);
            }
            if abort.http2_error.is_some() {
                checker.refuse_at("http2Error", "is not supported");
            }
            match (abort.http_status, &abort.grpc_status) {
                (None, None) if abort.http2_error.is_none() => {
                    checker.refuse("one of httpStatus and grpcStatus is required")
                }
                (Some(_), Some(_)) => checker.refuse("only one of httpStatus and grpcStatus may be set"),
                (Some(status), None) if !(200..=599).contains(&status) => {
                    checker.refuse_at("httpStatus", format!("{status} must be between 200 and 599"));
                }
                (None, Some(name)) if crate::push::grpc_status(name).is_none() => {
                    checker.refuse_at("grpcStatus", format!("{name:?} is not a gRPC status"));
                }
                _ => {}
            }
        });
    }
    if let Some(delay) = &fault.delay {
        checker.field("delay", |checker| {
            if let Some(percent) = &delay.percentage {
                matching::percentage(checker, "percentage", percent);
            }
            if delay.percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
                checker.refuse_at("percent", "must be between 0 and 100");
            }
            if delay.exponential_delay.is_some() {
                checker.refuse_at("exponentialDelay", "is not supported");
            }
            match delay.fixed_delay {
                None => checker.refuse_at("fixedDelay", "is required"),
                Some(delay) if delay.0.as_millis() == 0 => {
                    checker.refuse_at("fixedDelay", "must be at least 1ms")
                }
                Some(_) => {}
            }
        });
    }
}

fn http_cors(checker: &mut Checker, cors: &CorsPolicy) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        if let StringMatch::Regex(pattern) = origin {
            let longer = checker.path.field("allowOrigins").index(index);
            checker.below(longer, |checker| matching::regex(checker, "regex", pattern));
        }
        if *origin == StringMatch::Present {
            checker.refuse_at("allowOrigins", "one of exact, prefix and regex is required");
        }
    }
    if !cors.allow_origin.is_empty() && !cors.allow_origins.is_empty() {
        checker.refuse_at("allowOrigin", "only one of allowOrigin and allowOrigins may be set");
    }
    for method in &cors.allow_methods {
        if !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'*') {
            checker.refuse_at("allowMethods", format!("{method:?} is not an HTTP method"));
        }
    }
}

fn check_headers(checker: &mut Checker, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    for (side, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        for (action, map) in [("set", &operations.set), ("add", &operations.add)] {
            if map.keys().any(|name| !is_header_name(name)) {
                checker.refuse_at("headers", format!("{side}.{action} has a bad header name"));
            }
        }
        if operations.remove.iter().any(|name| !is_header_name(name)) {
            checker.refuse_at("headers", format!("{side}.remove has a bad header name"));
        }
    }
}

fn is_header_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn destination(checker: &mut Checker, name: &str, destination: &Destination) {
    checker.field(name, |checker| {
        if destination.host.is_empty() {
            checker.refuse_at("host", "is required");
        } else if destination.host == "*" {
            checker.refuse_at("host", "must not be '*'");
        } else if !names::is_host_or_wildcard(&destination.host) {
            checker.refuse_at("host", format!("{:?} is not a host name", destination.host));
        }
        if destination.subset.as_deref().is_some_and(|subset| !names::is_label(subset)) {
            checker.refuse_at("subset", "is not a subset name");
        }
        if let Some(port) = &destination.port {
            checker.field("port", |checker| checker.port("number", port.number));
        }
    });
}

fn destinations(checker: &mut Checker, targets: &[RouteDestination]) {
    if targets.is_empty() {
        checker.refuse_at("route", "at least one destination is required");
    }
    checker
        .each("route", targets, |checker, target| destination(checker, "destination", &target.destination));
    weights(checker, targets.iter().map(|target| target.weight));
}

/// Several destinations need a sum above zero; each weight is counted in 32 bits by Envoy, and so is the sum.
fn weights(checker: &mut Checker, weights: impl ExactSizeIterator<Item = u32>) {
    if weights.len() < 2 {
        return;
    }
    match weights.map(u64::from).sum::<u64>() {
        0 => checker.refuse_at("route", "the weights must add up to more than 0"),
        sum if sum > u64::from(u32::MAX) => {
            checker.refuse_at("route", "the weights add up to more than 4294967295")
        }
        _ => {}
    }
}

fn tls_match(checker: &mut Checker, entry: &TlsMatch, hosts: &[String]) {
    let TlsMatch { sni_hosts, destination_subnets, port, source_labels, gateways: _, source_namespace: _ } =
        entry;
    if sni_hosts.is_empty() {
        checker.refuse_at("sniHosts", "at least one server name is required");
    }
    checker.each("sniHosts", sni_hosts, |checker, name| {
        let sni = crate::Host::new(name);
        if !names::is_host_or_wildcard(name) {
            checker.refuse(format!("{name:?} is not a host name"));
        } else if !hosts.iter().any(|host| crate::Host::new(host).subset_contains(&sni)) {
            checker.refuse(format!("{name:?} is not covered by any of the hosts"));
        }
    });
    matching::subnets(checker, "destinationSubnets", destination_subnets);
    if let Some(port) = port {
        checker.port("port", *port);
    }
    names::labels(checker, "sourceLabels", source_labels);
}

fn l4_match(checker: &mut Checker, entry: &L4Match) {
    let L4Match { destination_subnets, port, source_subnet, source_labels, gateways: _, source_namespace: _ } =
        entry;
    matching::subnets(checker, "destinationSubnets", destination_subnets);
    if let Some(port) = port {
        checker.port("port", *port);
    }
    checker.not_honoured("sourceSubnet", !source_subnet.is_empty());
    names::labels(checker, "sourceLabels", source_labels);
}
