//! Addresses to listen on.

use std::net::SocketAddr;

use dhow_base::{ConfigError, FieldPath};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address};

/// An address to listen on (`envoy.config.core.v3.Address`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: StreamAddress,
    /// `pipe.mode`: permissions of the socket's file; 0 leaves those that the system gives it.
    pub mode: u32,
}

impl ListenAddress {
    /// Lowers an address.
    ///
    /// # Errors
    /// What is not supported, and what is not an address.
    pub fn lower(address: Option<&Address>, path: &FieldPath) -> Result<Self, ConfigError> {
        let Some(Address { address: Some(address::Address::Pipe(Pipe { path: file, mode })) }) = address
        else {
            return Ok(Self { address: socket_address(address, path)?.into(), mode: 0 });
        };
        let address = StreamAddress::pipe(file, *mode)
            .map_err(|reason| ConfigError::new(path.field("pipe").field("path"), reason))?;
        Ok(Self { address, mode: *mode })
    }
}

/// The IP address and port of an address message.
///
/// # Errors
/// Other kinds of addresses, and what is not an address.
pub fn socket_address(address: Option<&Address>, path: &FieldPath) -> Result<SocketAddr, ConfigError> {
    let Some(Address { address: Some(address) }) = address else {
        return Err(ConfigError::new(path.clone(), "error adding listener: an address is needed"));
    };
    let path = match address {
        address::Address::SocketAddress(_) => path.field("socket_address"),
        address::Address::Pipe(_) => return Err(ConfigError::unsupported(path.field("pipe"))),
        address::Address::EnvoyInternalAddress(_) => {
            return Err(ConfigError::unsupported(path.field("envoy_internal_address")));
        }
    };
    let address::Address::SocketAddress(socket) = address else {
        return Err(ConfigError::unsupported(path));
    };
    let SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    ConfigError::refuse_if(*protocol != 0, &path, "protocol")?;
    ConfigError::refuse_if(!resolver_name.is_empty(), &path, "resolver_name")?;
    ConfigError::refuse_if(*ipv4_compat, &path, "ipv4_compat")?;
    ConfigError::refuse_if(!network_namespace_filepath.is_empty(), &path, "network_namespace_filepath")?;
    let port = match port_specifier {
        None => 0,
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| ConfigError::new(path.field("port_value"), "a port is at most 65535"))?,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            return Err(ConfigError::unsupported(path.field("named_port")));
        }
    };
    let ip = address
        .parse()
        .map_err(|_| ConfigError::new(path.field("address"), format!("malformed IP address: {address}")))?;
    Ok(SocketAddr::new(ip, port))
}
