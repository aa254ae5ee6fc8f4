//! The kinds of objects, by the names of their factories.

use dhow_proxy_api::FilterStateValue;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Text,
    Bool,
    Number,
    Ip,
    Address,
    /// Texts with commas between them.
    List,
}

impl ObjectKind {
    /// The kind that a factory makes; none when there is no such factory.
    pub(super) fn of_factory(name: &str) -> Option<Self> {
        Some(match name {
            "envoy.string"
            | "envoy.hashable_string"
            | "istio.hashable_string"
            | "envoy.network.upstream_server_name"
            | "envoy.network.network_namespace"
            | "envoy.tcp_proxy.cluster"
            | "envoy.upstream.dynamic_host" => Self::Text,
            "envoy.bool" | "envoy.tcp_proxy.disable_tunneling" => Self::Bool,
            "envoy.ratelimit.hits_addend"
            | "envoy.tcp_proxy.per_connection_idle_timeout_ms"
            | "envoy.upstream.dynamic_port" => Self::Number,
            "envoy.network.ip" => Self::Ip,
            "envoy.filters.listener.original_dst.local_ip"
            | "envoy.filters.listener.original_dst.remote_ip"
            | "envoy.network.transport_socket.original_dst_address" => Self::Address,
            "envoy.network.application_protocols" | "envoy.network.upstream_subject_alt_names" => Self::List,
            _ => return None,
        })
    }

    /// The object of a text; none when the text is not one.
    pub(super) fn make(self, text: &str) -> Option<FilterStateValue> {
        Some(match self {
            Self::Text => FilterStateValue::Text(text.into()),
            Self::Bool => FilterStateValue::Bool(match text {
                "true" => true,
                "false" => false,
                _ => return None,
            }),
            Self::Number => FilterStateValue::Number(text.parse().ok()?),
            Self::Ip => FilterStateValue::Ip(text.parse().ok()?),
            Self::Address => FilterStateValue::Address(text.parse().ok()?),
            Self::List => FilterStateValue::List(text.split(',').map(|part| part.trim().into()).collect()),
        })
    }
}
