//! Addresses to listen on.

use std::net::{IpAddr, SocketAddr};

use dhow_base::{ConfigError, FieldPath};
use dhow_net::{StreamAddress, numeric_address};
use dhow_proto::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address};

/// An address to listen on (`envoy.config.core.v3.Address`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: StreamAddress,
    /// `pipe.mode`: permissions of the socket's file; 0 leaves those that the system gives it.
    pub mode: u32,
    /// `socket_address.ipv4_compat`: the IPv6 socket takes connections over IPv4 too.
    pub ipv4_compat: bool,
}

impl ListenAddress {
    /// Lowers the address of a listener, or an additional one of the listener whose first address is `main`.
    ///
    /// # Errors
    /// What is not supported, and what is not an address.
    pub fn lower(
        address: Option<&Address>,
        main: Option<&Self>,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        match address {
            Some(Address { address: Some(address::Address::Pipe(Pipe { path: file, mode })) }) => {
                let address = StreamAddress::pipe(file, *mode)
                    .map_err(|reason| ConfigError::new(path.field("pipe").field("path"), reason))?;
                Ok(Self { address, mode: *mode, ipv4_compat: false })
            }
            Some(Address { address: Some(address::Address::SocketAddress(socket)) }) => {
                let own = Self {
                    address: ip_address(socket, &path.field("socket_address"))?.into(),
                    mode: 0,
                    ipv4_compat: socket.ipv4_compat,
                };
                own.check_ipv4_compat(main.unwrap_or(&own), path)?;
                Ok(own)
            }
            other => Ok(Self { address: socket_address(other, path)?.into(), mode: 0, ipv4_compat: false }),
        }
    }

    /// Only sockets of all IPv6 addresses, or of one of IPv4 as IPv6 writes it, can take connections over IPv4. As in Envoy the
    /// first address of a listener has to be such a one for the additional ones too.
    fn check_ipv4_compat(&self, main: &Self, path: &FieldPath) -> Result<(), ConfigError> {
        let fits = match main.address.ip() {
            Some(IpAddr::V6(ip)) => ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
            _ => false,
        };
        if fits || !self.ipv4_compat {
            return Ok(());
        }
        let reason = format!(
            "Only IPv6 address '::' or valid IPv4-mapped IPv6 address can set ipv4_compat: {}",
            main.address
        );
        Err(ConfigError::new(path.field("socket_address").field("ipv4_compat"), reason))
    }

    /// Whether addresses of connections over IPv4 are those of IPv4, instead of what the kernel makes of them.
    pub(crate) fn unmaps(&self) -> bool {
        self.ipv4_compat && self.address.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

/// The IP address and port of an address message.
///
/// # Errors
/// Other kinds of addresses, and what is not an address.
pub fn socket_address(address: Option<&Address>, path: &FieldPath) -> Result<SocketAddr, ConfigError> {
    let Some(Address { address: Some(address) }) = address else {
        return Err(ConfigError::new(path.clone(), "address is necessary"));
    };
    match address {
        address::Address::SocketAddress(socket) => {
            let path = path.field("socket_address");
            ConfigError::refuse_if(socket.ipv4_compat, &path, "ipv4_compat")?;
            ip_address(socket, &path)
        }
        address::Address::Pipe(_) => Err(ConfigError::unsupported(path.field("pipe"))),
        address::Address::EnvoyInternalAddress(_) => {
            Err(ConfigError::unsupported(path.field("envoy_internal_address")))
        }
    }
}

fn ip_address(socket: &SocketAddress, path: &FieldPath) -> Result<SocketAddr, ConfigError> {
    let SocketAddress {
        protocol: _, // what listens for connections looks at it, the others know theirs
        address,
        resolver_name,
        ipv4_compat: _, // what listens looks at it
        network_namespace_filepath,
        port_specifier,
    } = socket;
    ConfigError::refuse_if(!resolver_name.is_empty(), path, "resolver_name")?;
    ConfigError::refuse_if(!network_namespace_filepath.is_empty(), path, "network_namespace_filepath")?;
    let port = match port_specifier {
        None => 0,
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| ConfigError::new(path.field("port_value"), "a port is at most 65535"))?,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            return Err(ConfigError::unsupported(path.field("named_port")));
        }
    };
    numeric_address(address, port)
        .ok_or_else(|| ConfigError::new(path.field("address"), format!("malformed IP address: {address}")))
}
