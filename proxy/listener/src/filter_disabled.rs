//! `filter_disabled` of listener filters: the connections that a filter does not see.

use dhow_net::StreamAddress;
use dhow_proto::envoy::config::listener::v3::ListenerFilterChainMatchPredicate;
use dhow_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;

/// Chooses connections by the port that the client connected to (`ListenerFilterChainMatchPredicate`).
#[derive(Clone, Debug, PartialEq, Eq)]
enum PortRule {
    /// `any_match`.
    Any,
    /// `destination_port_range`: from the first to below the second.
    Ports(i32, i32),
    /// `not_match`.
    Not(Box<Self>),
    /// `and_match`.
    All(Vec<Self>),
    /// `or_match`.
    One(Vec<Self>),
}

impl PortRule {
    /// Lowers a message that passed validation: each has a rule.
    fn lower(message: ListenerFilterChainMatchPredicate) -> Self {
        let set = |rules: Vec<_>| rules.into_iter().map(Self::lower).collect();
        match message.rule {
            Some(Rule::OrMatch(rules)) => Self::One(set(rules.rules)),
            Some(Rule::AndMatch(rules)) => Self::All(set(rules.rules)),
            Some(Rule::NotMatch(rule)) => Self::Not(Box::new(Self::lower(*rule))),
            Some(Rule::DestinationPortRange(range)) => Self::Ports(range.start, range.end),
            Some(Rule::AnyMatch(_)) | None => Self::Any,
        }
    }

    fn matches(&self, local: &StreamAddress) -> bool {
        match self {
            Self::Any => true,
            Self::Ports(start, end) => local.port().is_some_and(|port| (*start..*end).contains(&port.into())),
            Self::Not(rule) => !rule.matches(local),
            Self::All(rules) => rules.iter().all(|rule| rule.matches(local)),
            Self::One(rules) => rules.iter().any(|rule| rule.matches(local)),
        }
    }
}

/// Which connections a listener filter sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum FilterScope {
    /// None: there is no such filter.
    #[default]
    Nobody,
    /// All.
    Everybody,
    /// Those for which it is not disabled.
    Except(Disabled),
}

/// The connections for which a filter is disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disabled(PortRule);

impl FilterScope {
    /// The scope of a filter that is there.
    pub(crate) fn lower(disabled: Option<ListenerFilterChainMatchPredicate>) -> Self {
        disabled.map_or(Self::Everybody, |message| Self::Except(Disabled(PortRule::lower(message))))
    }

    /// Whether there is such a filter.
    pub(crate) fn is_there(&self) -> bool {
        *self != Self::Nobody
    }

    /// Whether the filter sees a connection to this address.
    pub(crate) fn includes(&self, local: &StreamAddress) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::Except(Disabled(rule)) => !rule.matches(local),
        }
    }
}

#[cfg(test)]
mod tests {
    use dhow_proto::load_yaml;
    use dhow_proto::{LoadOptions, envoy::config::listener::v3::ListenerFilter};

    use super::*;

    fn scope(disabled: &str) -> FilterScope {
        let text = format!("{{name: x, filter_disabled: {disabled}}}");
        let filter: ListenerFilter = load_yaml(&text, &LoadOptions::default()).unwrap().message;
        FilterScope::lower(filter.filter_disabled)
    }

    #[test]
    fn rules_are_about_the_port() {
        let port = |port: u16| StreamAddress::Ip(([127, 0, 0, 1], port).into());
        let table: [(&str, &[u16], &[u16]); 5] = [
            ("{any_match: true}", &[], &[1]),
            ("{destination_port_range: {start: 80, end: 82}}", &[79, 82], &[80, 81]),
            ("{destination_port_range: {start: 82, end: 80}}", &[79, 80, 81, 82], &[]),
            ("{not_match: {destination_port_range: {start: 80, end: 81}}}", &[80], &[79, 81]),
            (
                "{or_match: {rules: [{destination_port_range: {start: 1, end: 2}}, {and_match: {rules: [{any_match: true}, \
                 {destination_port_range: {start: 5, end: 6}}]}}]}}",
                &[2, 4],
                &[1, 5],
            ),
        ];
        for (disabled, seen, unseen) in table {
            let scope = scope(disabled);
            assert!(seen.iter().all(|p| scope.includes(&port(*p))), "{disabled}");
            assert!(!unseen.iter().any(|p| scope.includes(&port(*p))), "{disabled}");
        }
        let socket = StreamAddress::Pipe("/s".into());
        assert!(
            scope("{destination_port_range: {start: 0, end: 70000}}").includes(&socket),
            "it has no port"
        );
        assert!(!FilterScope::Nobody.includes(&socket));
        assert!(FilterScope::lower(None).includes(&socket));
    }
}
