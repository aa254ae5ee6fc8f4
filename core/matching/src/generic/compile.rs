//! From messages to trees.

use std::any::Any;
use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::any::{self, Resolved};
use dhow_proto::supplement::{DomainMatcher, IpMatcher, IpRangeMatcher, ServerNameMatcher};
use dhow_proto::{Message as _, envoy::config::common::matcher::v3 as older};

use super::input::{Input, InputFamily};
use super::map::{AddressMap, DomainMap, TextMap};
use super::predicate::{Allowed, Predicate};
use super::tree::{MatchTree, Node, NodeKind, OnMatch, Then};
use crate::cidr::Cidr;
use crate::pb::xds::core::v3::TypedExtensionConfig;
use crate::pb::xds::r#type::matcher::v3::Matcher;
use crate::pb::xds::r#type::matcher::v3::matcher::{
    MatcherList, MatcherTree, MatcherType, OnMatch as OnMatchMessage, matcher_list::FieldMatcher,
    matcher_tree::MatchMap, matcher_tree::TreeType, on_match,
};
use crate::pb::xds::r#type::v3::CelExpression;

/// An expression in a language that is not known here; [`MatchData::expression_holds`](super::MatchData::expression_holds) asks it.
pub type Expression = Arc<dyn Any + Send + Sync>;

/// Compiles the expression of a `CelMatcher`, or says why it cannot be.
pub type CompileExpression = fn(&CelExpression) -> Result<Expression, String>;

/// What compiling a tree needs to know of its user.
pub struct MatchOptions<'a, A> {
    /// Which inputs make sense.
    pub inputs: InputFamily,
    /// Refuses, with a reason, inputs of the family that do not make sense here; the argument is the full name of the input's message.
    pub admit: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whether `keep_matching` makes sense.
    pub keep_matching: bool,
    /// Compiles expressions, where the data of the tree can be asked by them.
    pub expressions: Option<CompileExpression>,
    /// Compiles an action.
    pub action: &'a mut dyn FnMut(&TypedExtensionConfig, &FieldPath) -> Result<A, ConfigError>,
}

/// The newer message for `envoy.config.common.matcher.v3.Matcher`, which has the same form on the wire.
///
/// # Errors
/// When the message does not have that form.
pub fn from_older(message: &older::Matcher, path: &FieldPath) -> Result<Matcher, ConfigError> {
    Matcher::decode(message.encode_to_vec().as_slice())
        .map_err(|error| ConfigError::new(path.clone(), error.to_string()))
}

impl<A> MatchTree<A> {
    /// Compiles the message.
    ///
    /// # Errors
    /// Extensions that are not known or not admitted, patterns that are not valid, and what `options.action` refuses.
    pub fn compile(
        message: &Matcher,
        path: &FieldPath,
        options: &mut MatchOptions<'_, A>,
    ) -> Result<Self, ConfigError> {
        options.node(message, path).map(|root| Self { root })
    }
}

impl<A> MatchOptions<'_, A> {
    fn node(&mut self, message: &Matcher, path: &FieldPath) -> Result<Node<A>, ConfigError> {
        let Matcher { on_no_match, matcher_type } = message;
        let kind = match matcher_type {
            None => NodeKind::Empty,
            Some(MatcherType::MatcherList(MatcherList { matchers })) => {
                let path = path.field("matcher_list").field("matchers");
                if matchers.is_empty() {
                    return Err(ConfigError::new(path, "value must contain at least 1 item(s)"));
                }
                let each = matchers.iter().enumerate().map(|(at, m)| self.field_matcher(m, &path.index(at)));
                NodeKind::List(each.collect::<Result<_, _>>()?)
            }
            Some(MatcherType::MatcherTree(tree)) => self.tree(tree, &path.field("matcher_tree"))?,
        };
        let otherwise = on_no_match.as_deref();
        let otherwise = otherwise.map(|message| self.on_match(Some(message), &path.field("on_no_match")));
        Ok(Node { kind, on_no_match: otherwise.transpose()? })
    }

    fn field_matcher(
        &mut self,
        message: &FieldMatcher,
        path: &FieldPath,
    ) -> Result<(Predicate, OnMatch<A>), ConfigError> {
        let FieldMatcher { predicate, on_match } = message;
        let field = path.field("predicate");
        let predicate =
            predicate.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
        let predicate = Predicate::compile(predicate, &field, &self.allowed())?;
        Ok((predicate, self.on_match(on_match.as_ref(), &path.field("on_match"))?))
    }

    fn allowed(&self) -> Allowed<'_> {
        Allowed { inputs: self.inputs, admit: self.admit, expressions: self.expressions }
    }

    fn on_match(
        &mut self,
        message: Option<&OnMatchMessage>,
        path: &FieldPath,
    ) -> Result<OnMatch<A>, ConfigError> {
        let OnMatchMessage { keep_matching, on_match } =
            message.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        if *keep_matching && !self.keep_matching {
            let reason = "keep_matching is not supported in this context";
            return Err(ConfigError::new(path.field("keep_matching"), reason));
        }
        let then = match on_match {
            None => return Err(ConfigError::new(path.field("on_match"), "is required")),
            Some(on_match::OnMatch::Matcher(nested)) => {
                Then::Nested(Box::new(self.node(nested, &path.field("matcher"))?))
            }
            Some(on_match::OnMatch::Action(action)) => {
                Then::Action((self.action)(action, &path.field("action"))?)
            }
        };
        Ok(OnMatch { then, keep_matching: *keep_matching })
    }

    fn tree(&mut self, message: &MatcherTree, path: &FieldPath) -> Result<NodeKind<A>, ConfigError> {
        let MatcherTree { input, tree_type } = message;
        let input_path = path.field("input");
        let input = Input::compile(input.as_ref(), &input_path, self.inputs, self.admit)?;
        if !input.is_text() {
            let reason = "Unsupported data input type: the input does not give a string";
            return Err(ConfigError::new(input_path, reason));
        }
        let map = match tree_type {
            None => return Err(ConfigError::new(path.field("tree_type"), "is required")),
            Some(TreeType::ExactMatchMap(map)) => {
                TextMap::exact(self.map(map, &path.field("exact_match_map"))?.into_iter())
            }
            Some(TreeType::PrefixMatchMap(map)) => {
                TextMap::prefix(self.map(map, &path.field("prefix_match_map"))?.into_iter())
            }
            Some(TreeType::CustomMatch(custom)) => self.custom_tree(custom, &path.field("custom_match"))?,
        };
        Ok(NodeKind::Tree { input, map })
    }

    fn map(
        &mut self,
        message: &MatchMap,
        path: &FieldPath,
    ) -> Result<Vec<(String, OnMatch<A>)>, ConfigError> {
        let MatchMap { map } = message;
        let path = path.field("map");
        if map.is_empty() {
            return Err(ConfigError::new(path, "value must contain at least 1 pair(s)"));
        }
        // In the order of the keys, so that the first mistake is always the same.
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.as_str());
        let entries = entries
            .into_iter()
            .map(|(key, message)| Ok((key.clone(), self.on_match(Some(message), &path.key(key))?)));
        entries.collect()
    }

    fn custom_tree(
        &mut self,
        message: &TypedExtensionConfig,
        path: &FieldPath,
    ) -> Result<TextMap<OnMatch<A>>, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = message;
        let path = path.field("typed_config");
        let config =
            typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let Resolved { type_name, value } = any::resolve(config).map_err(|error| error.under(&path))?;
        let malformed =
            |error: dhow_proto::prost::DecodeError| ConfigError::new(path.clone(), error.to_string());
        match type_name.as_str() {
            // Envoy has its maps for connections and requests alone.
            "xds.type.matcher.v3.IPMatcher" if self.inputs != InputFamily::Host => {
                let message = IpMatcher::decode(&*value).map_err(malformed)?;
                Ok(TextMap::Address(self.addresses(&message, &path)?))
            }
            "xds.type.matcher.v3.ServerNameMatcher" if self.inputs != InputFamily::Host => {
                let message = ServerNameMatcher::decode(&*value).map_err(malformed)?;
                Ok(TextMap::Domain(self.domains(&message, &path)?))
            }
            _ => {
                let reason = format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"
                );
                Err(ConfigError::new(path, reason))
            }
        }
    }

    fn addresses(
        &mut self,
        message: &IpMatcher,
        path: &FieldPath,
    ) -> Result<AddressMap<OnMatch<A>>, ConfigError> {
        let IpMatcher { range_matchers } = message;
        let path = path.field("range_matchers");
        let mut map = AddressMap::new();
        for (at, IpRangeMatcher { ranges, on_match, exclusive }) in range_matchers.iter().enumerate() {
            let path = path.index(at);
            let ranges_path = path.field("ranges");
            if ranges.is_empty() {
                return Err(ConfigError::new(ranges_path, "value must contain at least 1 item(s)"));
            }
            let compiled = ranges.iter().enumerate();
            let compiled = compiled.map(|(nth, range)| Cidr::compile_xds(range, &ranges_path.index(nth)));
            let compiled: Vec<Cidr> = compiled.collect::<Result<_, _>>()?;
            let on_match = self.on_match(on_match.as_ref(), &path.field("on_match"))?;
            map.insert(compiled.into_iter(), on_match, *exclusive);
        }
        Ok(map)
    }

    fn domains(
        &mut self,
        message: &ServerNameMatcher,
        path: &FieldPath,
    ) -> Result<DomainMap<OnMatch<A>>, ConfigError> {
        let ServerNameMatcher { domain_matchers } = message;
        let path = path.field("domain_matchers");
        let mut map = DomainMap::new();
        for (at, DomainMatcher { domains, on_match }) in domain_matchers.iter().enumerate() {
            let path = path.index(at);
            let domains_path = path.field("domains");
            if domains.is_empty() {
                return Err(ConfigError::new(domains_path, "value must contain at least 1 item(s)"));
            }
            let on_match = self.on_match(on_match.as_ref(), &path.field("on_match"))?;
            map.insert(domains, on_match)
                .map_err(|(nth, reason)| ConfigError::new(domains_path.index(nth), reason))?;
        }
        Ok(map)
    }
}
