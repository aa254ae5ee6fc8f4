//! The resource types of xDS: their type URLs, the order in which they travel and how absence is to be read.

/// `envoy.config.cluster.v3.Cluster`, discovered by CDS.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`, discovered by EDS.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.config.endpoint.v3.LbEndpoint`, discovered by LEDS.
pub const LB_ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint";
/// `envoy.config.listener.v3.Listener`, discovered by LDS.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration`, discovered by RDS.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.route.v3.ScopedRouteConfiguration`, discovered by SRDS.
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// `envoy.config.route.v3.VirtualHost`, discovered by VHDS.
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// `envoy.config.core.v3.TypedExtensionConfig`, discovered by ECDS.
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// `envoy.extensions.transport_sockets.tls.v3.Secret`, discovered by SDS.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// `envoy.service.runtime.v3.Runtime`, discovered by RTDS.
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// The wrapper `envoy.service.discovery.v3.Resource`, in which a state-of-the-world response may carry a resource.
pub const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// What every type URL of xDS starts with.
pub const PREFIX: &str = "type.googleapis.com/";

/// Types in the order in which both sides send about them: clusters before the endpoints that fill them, both before the
/// listeners and routes that point at them (Istio's push order CDS, EDS, LDS, RDS, SDS, rest). Unknown types come last.
const ORDER: [&str; 10] = [
    CLUSTER,
    ENDPOINT,
    LB_ENDPOINT,
    LISTENER,
    SCOPED_ROUTE,
    ROUTE,
    VIRTUAL_HOST,
    SECRET,
    EXTENSION_CONFIG,
    RUNTIME,
];

/// The place of a type in the sending order; types of equal rank are ordered by their URL.
pub fn rank(type_url: &str) -> usize {
    ORDER.iter().position(|known| *known == type_url).unwrap_or(ORDER.len())
}

/// Whether a state-of-the-world response of this type is the whole set, so that absence deletes: CDS, LDS and SRDS. For
/// the other types absence says nothing.
pub fn is_full_set(type_url: &str) -> bool {
    matches!(type_url, CLUSTER | LISTENER | SCOPED_ROUTE)
}

/// Whether a first request without names means everything. That holds for the types that are not fetched by name: CDS,
/// LDS, SRDS, and Istio's own types (name table, workload addresses, ...). The others need names, or an explicit `*`.
pub fn has_implicit_wildcard(type_url: &str) -> bool {
    !matches!(type_url, ENDPOINT | LB_ENDPOINT | ROUTE | VIRTUAL_HOST | SECRET | EXTENSION_CONFIG | RUNTIME)
}

/// The types whose requests wait while an update of `type_url` is being applied, because applying it is going to change
/// what is wanted of them: EDS (and SDS) while CDS, RDS (and SDS) while LDS and SRDS.
pub fn paused_by(type_url: &str) -> &'static [&'static str] {
    match type_url {
        CLUSTER => &[ENDPOINT, LB_ENDPOINT, SECRET],
        LISTENER => &[SCOPED_ROUTE, ROUTE, SECRET, EXTENSION_CONFIG],
        SCOPED_ROUTE => &[ROUTE],
        _ => &[],
    }
}

/// The short name that Envoy and Istio use in statistics and tables (`cds`, `eds`, ...); for other types the last
/// segment of the URL.
pub fn short_name(type_url: &str) -> &str {
    match type_url {
        CLUSTER => "cds",
        ENDPOINT => "eds",
        LB_ENDPOINT => "leds",
        LISTENER => "lds",
        ROUTE => "rds",
        SCOPED_ROUTE => "srds",
        VIRTUAL_HOST => "vhds",
        SECRET => "sds",
        EXTENSION_CONFIG => "ecds",
        RUNTIME => "rtds",
        other => other.rsplit(['.', '/']).next().unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_travel_before_endpoints_before_listeners_before_routes_before_secrets() {
        let ranks = [CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, "type.googleapis.com/x.Y"].map(rank);
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn short_names_are_those_of_the_statistics() {
        assert_eq!(short_name(SECRET), "sds");
        assert_eq!(short_name("type.googleapis.com/istio.networking.nds.v1.NameTable"), "NameTable");
    }

    #[test]
    fn only_types_fetched_whole_have_an_implicit_wildcard() {
        assert!(has_implicit_wildcard(CLUSTER) && has_implicit_wildcard(LISTENER));
        assert!(!has_implicit_wildcard(ENDPOINT) && !has_implicit_wildcard(ROUTE));
    }
}
