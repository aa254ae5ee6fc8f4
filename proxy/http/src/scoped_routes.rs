//! `scoped_routes`: which of several route configurations serves a request, by parts of its headers.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};
use dhow_proto::envoy::config::route::v3::scoped_route_configuration::key::{Fragment, fragment};
use dhow_proto::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration, scoped_route_configuration};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::fragment_builder::header_value_extractor::{ExtractType, KvElement};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::fragment_builder::{HeaderValueExtractor, Type};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::{ConfigSpecifier, ScopeKeyBuilder, scope_key_builder::FragmentBuilder};
use dhow_routing::RouteTable;
use hashbrown::HashMap;

/// The scopes of a connection manager, by key.
#[derive(Debug)]
pub struct ScopedRoutes {
    extractors: Box<[Extractor]>,
    scopes: HashMap<Box<[u8]>, Arc<RouteTable>, foldhash::fast::RandomState>,
}

/// `HeaderValueExtractor`: one part of the key.
#[derive(Debug)]
struct Extractor {
    header: HeaderName,
    /// `element_separator`; empty makes the whole value one element.
    separator: Box<[u8]>,
    choice: Choice,
}

#[derive(Debug)]
enum Choice {
    /// The element at this place.
    Index(usize),
    /// The value of the first element with this key.
    Element { separator: Box<[u8]>, key: Box<[u8]> },
}

impl ScopedRoutes {
    /// Lowers the message; `compile` compiles the route configurations.
    ///
    /// # Errors
    /// Scopes that are not in the message itself, and whatever is not acceptable in those that are.
    pub(crate) fn lower(
        message: pb::ScopedRoutes,
        path: &FieldPath,
        mut compile: impl FnMut(&RouteConfiguration, &FieldPath) -> Result<Arc<RouteTable>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        // Nothing is named after it: there is no subscription.
        let pb::ScopedRoutes { name: _, scope_key_builder, rds_config_source, config_specifier } = message;
        ConfigError::refuse_if(rds_config_source.is_some(), path, "rds_config_source")?;
        let list_path = path.field("scoped_route_configurations_list").field("scoped_route_configurations");
        let list = match config_specifier {
            Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => list.scoped_route_configurations,
            Some(ConfigSpecifier::ScopedRds(_)) => {
                return Err(ConfigError::unsupported(path.field("scoped_rds")));
            }
            None => return Err(ConfigError::new(path.clone(), "config_specifier: is required")),
        };
        let mut scopes = HashMap::default();
        for (i, scope) in list.into_iter().enumerate() {
            let path = list_path.index(i);
            // Inline scopes are all there from the beginning, whether they are wanted on demand or not.
            let ScopedRouteConfiguration {
                on_demand: _, // see above
                name: _,      // only names the scope to its management server
                route_configuration_name,
                route_configuration,
                key,
            } = scope;
            if !route_configuration_name.is_empty() {
                let reason = "Fetching routes via RDS (route_configuration_name) is not supported with inline scoped routes.";
                return Err(ConfigError::new(path.field("route_configuration_name"), reason));
            }
            let routes_path = path.field("route_configuration");
            let Some(routes) = route_configuration else {
                return Err(ConfigError::new(
                    routes_path,
                    "You must specify a route_configuration with inline scoped routes.",
                ));
            };
            let scoped_route_configuration::Key { fragments } = key.unwrap_or_default();
            let mut bytes = Vec::new();
            for Fragment { r#type } in &fragments {
                let Some(fragment::Type::StringKey(text)) = r#type else {
                    return Err(ConfigError::new(path.field("key"), "type: is required"));
                };
                append_fragment(text.as_bytes(), &mut bytes);
            }
            scopes.insert(bytes.into(), compile(&routes, &routes_path)?);
        }
        let ScopeKeyBuilder { fragments } = scope_key_builder.unwrap_or_default();
        let fragments_path = path.field("scope_key_builder").field("fragments");
        let extractors = fragments.into_iter().enumerate();
        let extractors = extractors.map(|(i, fragment)| Extractor::lower(fragment, &fragments_path.index(i)));
        Ok(Self { extractors: extractors.collect::<Result<_, _>>()?, scopes })
    }

    /// The routes for a request; none when no scope has its key.
    pub(crate) fn table(&self, request: &HeaderMap) -> Option<&Arc<RouteTable>> {
        let mut key = Vec::new();
        for extractor in &self.extractors {
            append_fragment(extractor.extract(request)?, &mut key);
        }
        self.scopes.get(key.as_slice())
    }
}

/// Fragments follow each other with their lengths, so that different lists make different keys.
fn append_fragment(fragment: &[u8], key: &mut Vec<u8>) {
    key.extend_from_slice(&(fragment.len() as u64).to_ne_bytes());
    key.extend_from_slice(fragment);
}

impl Extractor {
    fn lower(fragment: FragmentBuilder, path: &FieldPath) -> Result<Self, ConfigError> {
        let path = path.field("header_value_extractor");
        let FragmentBuilder { r#type } = fragment;
        let Some(Type::HeaderValueExtractor(extractor)) = r#type else {
            return Err(ConfigError::new(path, "value is required"));
        };
        let HeaderValueExtractor { name, element_separator, extract_type } = extractor;
        let choice = match extract_type {
            Some(ExtractType::Index(index)) => {
                if index > 0 && element_separator.is_empty() {
                    let reason = "Index > 0 for empty string element separator.";
                    return Err(ConfigError::new(path.field("index"), reason));
                }
                Choice::Index(index as usize)
            }
            Some(ExtractType::Element(KvElement { separator, key })) => {
                Choice::Element { separator: separator.into_bytes().into(), key: key.into_bytes().into() }
            }
            None => {
                return Err(ConfigError::new(path, "HeaderValueExtractor extract_type not set"));
            }
        };
        Ok(Self { header: HeaderName::new(&name), separator: element_separator.into_bytes().into(), choice })
    }

    fn extract<'a>(&self, request: &'a HeaderMap) -> Option<&'a [u8]> {
        let mut elements = split(request.get(&self.header)?, &self.separator);
        match &self.choice {
            Choice::Index(index) => elements.nth(*index),
            Choice::Element { separator, key } => elements.find_map(|element| {
                let mut parts = split(element, separator);
                let first = parts.next().unwrap_or_default();
                let value = element.get(first.len() + separator.len()..).unwrap_or_default();
                (*first == **key).then_some(value)
            }),
        }
    }
}

/// The parts between separators; one part when the separator is empty.
fn split<'a>(text: &'a [u8], separator: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let at = text.windows(separator.len().max(1)).position(|w| w == separator);
        match at {
            Some(at) => {
                rest = Some(&text[at + separator.len()..]);
                Some(&text[..at])
            }
            None => Some(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extractor(separator: &str, choice: Choice) -> Extractor {
        Extractor { header: HeaderName::new("x-key"), separator: separator.as_bytes().into(), choice }
    }

    fn element(key: &str) -> Choice {
        Choice::Element { separator: b"=".as_slice().into(), key: key.as_bytes().into() }
    }

    #[test]
    fn a_part_of_a_header_is_found_by_place_or_by_key() {
        for (separator, choice, value, expected) in [
            (",", Choice::Index(0), "a,b", Some("a")),
            (",", Choice::Index(1), "a,b", Some("b")),
            (",", Choice::Index(2), "a,b", None),
            ("", Choice::Index(0), "a,b", Some("a,b")),
            (";", element("org"), "user=x;org=acme;org=other", Some("acme")),
            (";", element("org"), "org=a=b", Some("a=b")),
            (";", element("org"), "org", Some("")),
            (";", element("org"), "organisation=x", None),
            ("", element("org"), "org=acme", Some("acme")),
        ] {
            let mut head = HeaderMap::new();
            head.append(b"x-key", value.as_bytes());
            let found = extractor(separator, choice)
                .extract(&head)
                .map(|v| std::str::from_utf8(v).unwrap().to_owned());
            assert_eq!(found.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn lists_of_fragments_do_not_run_into_each_other() {
        let key = |fragments: &[&str]| {
            let mut key = Vec::new();
            fragments.iter().for_each(|fragment| append_fragment(fragment.as_bytes(), &mut key));
            key
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["a", "b"]));
    }
}
