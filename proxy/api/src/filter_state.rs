//! Objects that filters leave on a stream for one another, for the router and for logs, by key.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use dhow_expr::FilterStateObject;

/// The value of an object.
#[derive(Clone)]
pub enum FilterStateValue {
    /// A text (`envoy.string`, `envoy.hashable_string`).
    Text(Rc<str>),
    /// A text that only has the form of a text, no type (`envoy.network.upstream_server_name`, `envoy.tcp_proxy.cluster`).
    Name(Rc<str>),
    /// A truth value (`envoy.bool`).
    Bool(bool),
    /// A number of at most 32 bits (`envoy.upstream.dynamic_port`).
    Count(u32),
    /// A number of at most 64 bits (`envoy.tcp_proxy.per_connection_idle_timeout_ms`), which is a text in JSON.
    Number(u64),
    /// An IP address without port (`envoy.network.ip`). Its only form is that of a text.
    Ip(IpAddr),
    /// An address with port (`envoy.filters.listener.original_dst.local_ip`). Its only form is that of a text.
    Address(SocketAddr),
    /// The address of the host that a request goes to (`envoy.stream.upstream_address`), which formats do not print.
    HostAddress(SocketAddr),
    /// Several texts (`envoy.network.application_protocols`), which formats do not print.
    List(Rc<[Box<str>]>),
    /// An object of a filter's own, which only it and format strings read.
    Object(Rc<dyn FilterStateObject>),
}

impl fmt::Debug for FilterStateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.append_text(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FilterStateObject for FilterStateValue {
    fn append_text(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Text(text) | Self::Name(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Count(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            // As an address without port is printed elsewhere: with port 0.
            Self::Ip(ip) => out.extend_from_slice(SocketAddr::new(*ip, 0).to_string().as_bytes()),
            Self::Address(address) => out.extend_from_slice(address.to_string().as_bytes()),
            Self::List(_) | Self::HostAddress(_) => return false,
            Self::Object(object) => return object.append_text(out),
        }
        true
    }

    fn append_json(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Bool(_) | Self::Count(_) => self.append_text(out),
            Self::Name(_) | Self::Ip(_) | Self::Address(_) => false,
            Self::Object(object) => object.append_json(out),
            _ => {
                let mut text = Vec::new();
                let any = self.append_text(&mut text);
                if any {
                    dhow_expr::append_json_string(&text, out);
                }
                any
            }
        }
    }

    fn append_field(&self, field: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Object(object) => object.append_field(field, out),
            _ => false,
        }
    }
}

/// Whether an object goes along to the upstream connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// It stays here.
    #[default]
    None,
    /// It is shared with the upstream connection.
    Once,
    /// It is shared with the upstream connection, and from there with the next one.
    Transitive,
}

/// One object with what may be done with it.
#[derive(Clone, Debug)]
pub struct FilterStateEntry {
    /// Key.
    pub key: Rc<str>,
    /// Value.
    pub value: FilterStateValue,
    /// Nobody may replace it.
    pub read_only: bool,
    /// Whether the upstream connection gets it.
    pub sharing: Sharing,
    /// Connections to hosts that get objects of different values are not shared.
    pub hashable: bool,
}

/// The filter state of a stream or connection. Allocates nothing until something is set.
#[derive(Clone, Debug, Default)]
pub struct FilterState {
    /// Few objects are ever set on a stream: looking through them beats hashing.
    entries: Vec<FilterStateEntry>,
}

impl FilterState {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All objects, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = &FilterStateEntry> {
        self.entries.iter()
    }

    /// An object.
    pub fn get(&self, key: &str) -> Option<&FilterStateValue> {
        self.iter().find(|entry| *entry.key == *key).map(|entry| &entry.value)
    }

    /// The host that a dynamic forward proxy is asked for: `envoy.upstream.dynamic_host`.
    pub fn dynamic_host(&self) -> Option<&str> {
        match self.get("envoy.upstream.dynamic_host")? {
            FilterStateValue::Text(host) if !host.is_empty() => Some(host),
            _ => None,
        }
    }

    /// The port that goes with a host which has none: `envoy.upstream.dynamic_port`.
    pub fn dynamic_port(&self) -> Option<u16> {
        match self.get("envoy.upstream.dynamic_port")? {
            FilterStateValue::Count(port) => u16::try_from(*port).ok().filter(|port| *port > 0),
            _ => None,
        }
    }

    /// An object as text.
    pub fn text(&self, key: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.get(key)?.append_text(&mut out).then_some(out)
    }

    /// Whether connections to hosts get any object.
    pub fn shares_any(&self) -> bool {
        self.iter().any(|entry| entry.sharing != Sharing::None)
    }

    /// An object that connections to hosts get, as text.
    pub fn shared_text(&self, key: &str) -> Option<Vec<u8>> {
        let shared = self.iter().find(|entry| *entry.key == *key && entry.sharing != Sharing::None)?;
        let mut out = Vec::new();
        shared.value.append_text(&mut out).then_some(out)
    }

    /// What tells connections to hosts apart, each object as text; nothing mostly, which allocates nothing.
    pub fn shared_hashables(&self) -> Vec<Vec<u8>> {
        let shared = self.iter().filter(|entry| entry.hashable && entry.sharing != Sharing::None);
        let text = |entry: &FilterStateEntry| {
            let mut out = Vec::new();
            entry.value.append_text(&mut out).then_some(out)
        };
        shared.filter_map(text).collect()
    }

    /// Sets an object that may be replaced and stays on this stream.
    pub fn set(&mut self, key: &str, value: FilterStateValue) -> bool {
        let sharing = Sharing::None;
        self.insert(FilterStateEntry { key: key.into(), value, read_only: false, sharing, hashable: false })
    }

    /// Sets an object; false, and nothing changed, when there is a read-only one under its key.
    pub fn insert(&mut self, entry: FilterStateEntry) -> bool {
        let all = &mut self.entries;
        match all.iter_mut().find(|known| known.key == entry.key) {
            Some(known) if known.read_only => return false,
            Some(known) => *known = entry,
            None => all.push(entry),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_text_and_as_json() {
        for (value, text, json) in [
            (FilterStateValue::Text("a\"b".into()), "a\"b", r#""a\"b""#),
            (FilterStateValue::Bool(true), "true", "true"),
            (FilterStateValue::Count(7), "7", "7"),
            (FilterStateValue::Number(7), "7", r#""7""#),
        ] {
            let (mut as_text, mut as_json) = (Vec::new(), Vec::new());
            assert!(value.append_text(&mut as_text) && value.append_json(&mut as_json));
            assert_eq!(String::from_utf8_lossy(&as_text), text);
            assert_eq!(String::from_utf8_lossy(&as_json), json);
        }
    }

    #[test]
    fn names_and_addresses_are_texts_alone() {
        for (value, text) in [
            (FilterStateValue::Name("a".into()), "a"),
            (FilterStateValue::Ip([10, 0, 0, 1].into()), "10.0.0.1:0"),
            (FilterStateValue::Address(([10, 0, 0, 1], 80).into()), "10.0.0.1:80"),
        ] {
            let mut out = Vec::new();
            assert!(!value.append_json(&mut out) && out.is_empty());
            assert!(value.append_text(&mut out));
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn lists_do_not_print() {
        let list = FilterStateValue::List(["h2".into(), "h1".into()].into());
        let mut out = Vec::new();
        assert!(!list.append_text(&mut out) && !list.append_json(&mut out) && out.is_empty());
    }

    #[test]
    fn a_read_only_object_stays() {
        let mut state = FilterState::default();
        assert!(state.is_empty());
        assert!(state.set("a", FilterStateValue::Number(1)));
        let fixed = FilterStateEntry {
            key: "a".into(),
            value: FilterStateValue::Number(2),
            read_only: true,
            sharing: Sharing::Once,
            hashable: false,
        };
        assert!(state.insert(fixed));
        assert!(!state.set("a", FilterStateValue::Number(3)));
        assert_eq!(state.text("a").as_deref(), Some(&b"2"[..]));
        assert_eq!(state.iter().count(), 1);
    }
}
