//! Whether two filter chains could both be the one for a connection.

use super::FilterChainMatch;

impl FilterChainMatch {
    /// Whether both name the same value for everything that is matched, where a chain that names none counts as naming "any": then
    /// Envoy cannot put both into its tables. A range within a range, or a name under a wildcard, is no such case.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let Self {
            destination_port,
            destination,
            server_names,
            transport_protocol,
            application_protocols,
            direct_source,
            source_type,
            source,
            source_ports,
        } = self;
        *destination_port == other.destination_port
            && share(destination, &other.destination)
            && share(server_names, &other.server_names)
            && *transport_protocol == other.transport_protocol
            && share(application_protocols, &other.application_protocols)
            && share(direct_source, &other.direct_source)
            && *source_type == other.source_type
            && share(source, &other.source)
            && share(source_ports, &other.source_ports)
    }

    /// Whether one value is named twice.
    pub(super) fn repeats_itself(&self) -> bool {
        repeats(&self.destination)
            || repeats(&self.server_names)
            || repeats(&self.application_protocols)
            || repeats(&self.direct_source)
            || repeats(&self.source)
            || repeats(&self.source_ports)
    }
}

fn share<T: PartialEq>(some: &[T], others: &[T]) -> bool {
    if some.is_empty() || others.is_empty() {
        return some.is_empty() && others.is_empty();
    }
    some.iter().any(|one| others.contains(one))
}

fn repeats<T: PartialEq>(values: &[T]) -> bool {
    values.iter().enumerate().any(|(at, value)| values[..at].contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> FilterChainMatch {
        let server_names = names.iter().map(|name| (*name).to_owned()).collect();
        FilterChainMatch { server_names, ..FilterChainMatch::default() }
    }

    #[test]
    fn chains_overlap_where_every_list_has_a_value_in_common() {
        assert!(named(&["a", "b"]).overlaps(&named(&["b", "c"])));
        assert!(!named(&["a"]).overlaps(&named(&["b"])));
        assert!(!named(&[]).overlaps(&named(&["b"])));
        assert!(!named(&["*.a"]).overlaps(&named(&["x.a"])));
        assert!(named(&[]).overlaps(&named(&[])));
        let tls = FilterChainMatch { transport_protocol: "tls".into(), ..named(&["a"]) };
        assert!(!tls.overlaps(&named(&["a"])));
    }

    #[test]
    fn a_value_named_twice_is_noticed() {
        assert!(named(&["a", "b", "a"]).repeats_itself());
        assert!(!named(&["a", "b"]).repeats_itself());
        let ports = FilterChainMatch { source_ports: vec![1, 1], ..FilterChainMatch::default() };
        assert!(ports.repeats_itself());
    }
}
