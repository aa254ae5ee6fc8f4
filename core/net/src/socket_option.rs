//! Options of sockets by level and number, as configurations name them (`envoy.config.core.v3.SocketOption`).

#![allow(
    unsafe_code,
    reason = "the standard library has no setsockopt, and wrappers have none for any option"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::core::v3 as pb;
use dhow_proto::envoy::config::core::v3::socket_option::{SocketIpVersion, SocketType, Value};

/// When an option is set (`SocketOption.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// After the socket was made and before it is bound (`STATE_PREBIND`).
    Prebind,
    /// After it was bound and before it listens or connects (`STATE_BOUND`).
    Bound,
    /// After it began to listen (`STATE_LISTENING`).
    Listening,
}

/// An option to set on sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketOption {
    /// Level, such as `SOL_SOCKET`.
    pub level: i32,
    /// Number within the level, such as `SO_KEEPALIVE`.
    pub name: i32,
    /// The value as the kernel reads it.
    pub value: Vec<u8>,
    /// When it is set.
    pub state: SocketState,
    /// The only family of addresses whose sockets have it: true for IPv4, false for IPv6.
    pub only_ipv4: Option<bool>,
}

impl SocketOption {
    /// Reads options of stream sockets; those of datagram sockets only are left out.
    ///
    /// # Errors
    /// The path of an option that no kernel could have.
    pub fn from_messages(
        messages: Vec<pb::SocketOption>,
        path: &FieldPath,
    ) -> Result<Vec<Self>, ConfigError> {
        let mut options = Vec::with_capacity(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            options.extend(Self::from_message(message, &path.index(index))?);
        }
        Ok(options)
    }

    fn from_message(message: pb::SocketOption, path: &FieldPath) -> Result<Option<Self>, ConfigError> {
        let pb::SocketOption {
            description: _, // for who reads the configuration
            level,
            name,
            state,
            r#type,
            ip_version,
            value,
        } = message;
        let int = |value: i64, field: &str| {
            i32::try_from(value).map_err(|_| ConfigError::new(path.field(field), "value must fit 32 bits"))
        };
        let only_datagram = matches!(r#type, Some(SocketType { stream: None, datagram: Some(_) }));
        let value = match value {
            // As in Envoy the kernel gets an int.
            Some(Value::IntValue(value)) => int(value, "int_value")?.to_ne_bytes().to_vec(),
            Some(Value::BufValue(bytes)) => bytes,
            None => return Err(ConfigError::new(path.field("value"), "is required")),
        };
        let option = Self {
            level: int(level, "level")?,
            name: int(name, "name")?,
            value,
            state: match state {
                0 => SocketState::Prebind,
                1 => SocketState::Bound,
                2 => SocketState::Listening,
                _ => {
                    let reason = "value must be one of the defined enum values";
                    return Err(ConfigError::new(path.field("state"), reason));
                }
            },
            only_ipv4: match SocketIpVersion::try_from(ip_version) {
                Ok(SocketIpVersion::Ipv4) => Some(true),
                Ok(SocketIpVersion::Ipv6) => Some(false),
                _ => None,
            },
        };
        Ok((!only_datagram).then_some(option))
    }

    /// An option whose value is an `int`.
    pub fn of_int(level: i32, name: i32, value: i32, state: SocketState) -> Self {
        Self { level, name, value: value.to_ne_bytes().to_vec(), state, only_ipv4: None }
    }

    /// What `envoy.config.core.v3.TcpKeepalive` comes to on a listening socket, from which connections have it: keep-alive is on,
    /// and what the message leaves open is the system's.
    pub fn of_keepalive(message: &pb::TcpKeepalive) -> Vec<Self> {
        let pb::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = message;
        let mut options = vec![Self::of_int(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1, SocketState::Prebind)];
        let tcp = [
            (libc::TCP_KEEPCNT, keepalive_probes),
            (libc::TCP_KEEPIDLE, keepalive_time),
            (libc::TCP_KEEPINTVL, keepalive_interval),
        ];
        options.extend(tcp.into_iter().filter_map(|(name, value)| {
            let value = i32::try_from(value.as_ref()?.value).unwrap_or(i32::MAX);
            Some(Self::of_int(libc::IPPROTO_TCP, name, value, SocketState::Prebind))
        }));
        options
    }

    /// Sets the option.
    ///
    /// # Errors
    /// What the kernel says, for example that there is no such option.
    pub fn set(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let length = libc::socklen_t::try_from(self.value.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes of a buffer
        // that has as many and outlives the call.
        let status = unsafe {
            libc::setsockopt(socket.as_raw_fd(), self.level, self.name, self.value.as_ptr().cast(), length)
        };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Sets those of the options that are due in `state` on a socket of the address family.
///
/// # Errors
/// The first that the kernel refuses.
pub fn apply(options: &[SocketOption], state: SocketState, ipv4: bool, socket: &impl AsFd) -> io::Result<()> {
    let due = |option: &&SocketOption| {
        option.state == state && option.only_ipv4.is_none_or(|only_ipv4| only_ipv4 == ipv4)
    };
    options.iter().filter(due).try_for_each(|option| option.set(socket))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use dhow_proto::google::protobuf::UInt32Value;

    use super::{SocketOption, SocketState, apply};

    #[test]
    fn options_are_set_when_they_are_due() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let ttl = |value, state| SocketOption::of_int(libc::IPPROTO_IP, libc::IP_TTL, value, state);
        let ipv6 = SocketOption { only_ipv4: Some(false), ..ttl(5, SocketState::Prebind) };
        let options = [ttl(7, SocketState::Prebind), ipv6, ttl(9, SocketState::Listening)];
        apply(&options, SocketState::Prebind, true, &socket).unwrap();
        assert_eq!(socket.ttl().unwrap(), 7);
        apply(&options, SocketState::Bound, true, &socket).unwrap();
        assert_eq!(socket.ttl().unwrap(), 7);
        apply(&options, SocketState::Listening, true, &socket).unwrap();
        assert_eq!(socket.ttl().unwrap(), 9);
    }

    #[test]
    fn keep_alive_is_on_with_what_is_said_of_it() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let message = super::pb::TcpKeepalive {
            keepalive_probes: Some(UInt32Value { value: 3 }),
            keepalive_time: None,
            keepalive_interval: Some(UInt32Value { value: 7 }),
        };
        let options = SocketOption::of_keepalive(&message);
        apply(&options, SocketState::Prebind, true, &socket).unwrap();
        let set: Vec<_> = options.iter().map(|option| (option.level, option.name, option.value[0])).collect();
        assert_eq!(
            set,
            [
                (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
                (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
                (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 7)
            ]
        );
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let unknown = SocketOption::of_int(libc::SOL_SOCKET, 54_321, 1, SocketState::Prebind);
        assert!(apply(&[unknown], SocketState::Prebind, true, &socket).is_err());
    }
}
