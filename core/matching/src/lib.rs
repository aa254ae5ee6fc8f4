//! Matchers of strings, headers, query parameters, cookies, paths, addresses and domains, and generic matching trees, compiled once
//! from Envoy's messages.
//! It must not know what a match is used for: routes, filters and access logs decide that.

mod cidr;
mod domain;
pub mod generic;
mod header;
mod metadata;
mod metadata_criteria;
mod path;
mod pb;
mod percent;
mod query;
mod re2;
mod re2_error;
mod regex_matcher;
mod response_predicate;
mod stats_matcher;
mod string;
#[cfg(test)]
mod tests;
mod uri_template;

pub use cidr::{AddressMatcher, Cidr, CidrSet};
pub use domain::{DomainIndex, DomainMatch};
pub use header::{HeaderMatcher, all_match};
pub use metadata::{MetadataMatcher, ValueMatcher};
pub use metadata_criteria::{MetadataCriteria, canonical, lookup_key};
pub use path::{PathMatcher, path_without_query};
pub use percent::percent_decoded;
pub use query::{CookieMatcher, QueryParameterMatcher, cookie_value, query_parameter};
pub use regex_matcher::{FullRegex, PartialRegex, RegexRewrite, compile_regex};
pub use response_predicate::ResponsePredicate;
pub use stats_matcher::StatsMatcher;
pub use string::StringMatcher;
pub use uri_template::{UriTemplate, UriTemplateRewrite};
