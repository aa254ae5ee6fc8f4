//! The kinds of objects, by the names of their factories.

use dhow_proxy_api::FilterStateValue;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    /// A text with a type.
    Text,
    /// A text without one.
    Name,
    /// `true` or `false`.
    Bool,
    /// Whether the text is `true`.
    Switch,
    /// A number of at most 32 bits.
    Count,
    /// A number of at most 64 bits.
    Number,
    Ip,
    Address,
    /// Texts with commas between them.
    List,
    /// What nothing here reads or prints.
    Unread,
}

impl ObjectKind {
    /// The kind that a factory makes; none when there is no such factory.
    pub(super) fn of_factory(name: &str) -> Option<Self> {
        Some(match name {
            "envoy.string"
            | "envoy.hashable_string"
            | "istio.hashable_string"
            | "envoy.ai.model.request"
            | "envoy.upstream.dynamic_host" => Self::Text,
            "envoy.network.upstream_server_name"
            | "envoy.network.upstream_subject_alt_names"
            | "envoy.network.network_namespace"
            | "envoy.tcp_proxy.cluster" => Self::Name,
            "envoy.bool" => Self::Bool,
            "envoy.tcp_proxy.disable_tunneling" => Self::Switch,
            "envoy.ratelimit.hits_addend" | "envoy.upstream.dynamic_port" => Self::Count,
            "envoy.tcp_proxy.per_connection_idle_timeout_ms" => Self::Number,
            "envoy.network.ip" => Self::Ip,
            "envoy.filters.listener.original_dst.local_ip"
            | "envoy.filters.listener.original_dst.remote_ip"
            | "envoy.network.transport_socket.original_dst_address" => Self::Address,
            "envoy.network.application_protocols" => Self::List,
            "envoy.ai.llm_protocol.request"
            | "envoy.network.transport_socket.http_11_proxy.info"
            | "envoy.router.debug_config" => Self::Unread,
            _ => return None,
        })
    }

    /// Whether connections to hosts that get objects of this factory are told apart by them.
    pub(super) fn is_hashable(factory: &str) -> bool {
        factory.ends_with(".hashable_string") || Self::of_factory(factory) == Some(Self::Address)
    }

    /// The object of a text; none when the text is not one.
    pub(super) fn make(self, text: &str) -> Option<FilterStateValue> {
        Some(match self {
            Self::Text => FilterStateValue::Text(text.into()),
            Self::Name => FilterStateValue::Name(text.into()),
            Self::Bool => FilterStateValue::Bool(match text {
                "true" => true,
                "false" => false,
                _ => return None,
            }),
            Self::Switch => FilterStateValue::Bool(text == "true"),
            Self::Count => FilterStateValue::Count(text.parse().ok()?),
            Self::Number => FilterStateValue::Number(text.parse().ok()?),
            Self::Ip => FilterStateValue::Ip(text.parse().ok()?),
            Self::Address => FilterStateValue::Address(text.parse().ok()?),
            Self::List => FilterStateValue::List(text.split(',').map(|part| part.trim().into()).collect()),
            Self::Unread => return None,
        })
    }
}
