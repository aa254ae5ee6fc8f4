//! The protocol of a port, as Istio selects it.

/// Protocols that make a difference to generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the protocol's own name")]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    Udp,
    Mongo,
    Redis,
    Mysql,
    /// Nothing said: detected per connection.
    Auto,
}

/// Ports whose servers speak first, which detection would stall.
const SERVER_FIRST: [u32; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// Reads a protocol's name, in any letter case; anything else is [`Protocol::Auto`].
    pub fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http_proxy" => Self::HttpProxy,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::Mysql,
            _ => Self::Auto,
        }
    }

    /// Istio's selection for a Kubernetes Service port: UDP stays, then `appProtocol`, then the name's first part,
    /// then detection unless the port is known for servers that speak first.
    pub fn select(port: u32, name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport == "UDP" {
            return Self::Udp;
        }
        let selected = match app_protocol {
            Some("kubernetes.io/h2c") => Self::Http2,
            Some("kubernetes.io/ws") => Self::Http,
            Some("kubernetes.io/wss") => Self::Https,
            Some(given) => Self::from_prefix(given),
            None => Self::from_prefix(name),
        };
        if selected == Self::Auto && SERVER_FIRST.contains(&port) { Self::Tcp } else { selected }
    }

    fn from_prefix(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        if lower == "grpc-web" || lower.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        Self::parse(lower.split('-').next().unwrap_or_default())
    }

    /// Whether requests can be routed: any cleartext HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy)
    }

    /// Whether the cleartext form is HTTP/2.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether bytes are TLS that the proxy does not terminate.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether connections are relayed without looking inside.
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::Mysql)
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn app_protocol_comes_before_the_name() {
        assert_eq!(Protocol::select(80, "tcp-x", "TCP", Some("http2")), Protocol::Http2);
        assert_eq!(Protocol::select(80, "x", "TCP", Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(Protocol::select(80, "http", "UDP", None), Protocol::Udp);
    }

    #[test]
    fn the_first_part_of_the_name_decides() {
        assert_eq!(Protocol::select(80, "HTTP-web", "TCP", None), Protocol::Http);
        assert_eq!(Protocol::select(80, "grpc-web-x", "TCP", None), Protocol::GrpcWeb);
        assert_eq!(Protocol::select(80, "grpc-api", "TCP", None), Protocol::Grpc);
        assert_eq!(Protocol::select(80, "web", "TCP", None), Protocol::Auto);
    }

    #[test]
    fn ports_of_servers_that_speak_first_are_not_detected() {
        assert_eq!(Protocol::select(3306, "db", "TCP", None), Protocol::Tcp);
        assert_eq!(Protocol::select(3306, "http", "TCP", None), Protocol::Http);
    }
}
