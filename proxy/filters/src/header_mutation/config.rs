//! `HeaderMutation` and `HeaderMutationPerRoute` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::common::mutation_rules::v3::HeaderMutation;
use dhow_proto::envoy::extensions::filters::http::header_mutation::v3 as message;
use dhow_proto::google::protobuf::Any;
use dhow_routing::HeaderEdit;

use super::query::QueryEdit;

/// The filter's configuration.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) mutations: Mutations,
    /// Whether the most specific level comes last, and so has the last word.
    pub(super) most_specific_wins: bool,
}

/// What the filter or one level of a route edits.
#[derive(Debug, Default)]
pub(super) struct Mutations {
    pub(super) request: Box<[HeaderEdit]>,
    pub(super) query: Box<[QueryEdit]>,
    pub(super) request_trailers: Box<[HeaderEdit]>,
    pub(super) response: Box<[HeaderEdit]>,
    pub(super) response_trailers: Box<[HeaderEdit]>,
}

impl Filter {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let message::HeaderMutation { mutations, most_specific_header_mutations_wins } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let mutations = Mutations::read(mutations, &path.field("mutations"))?;
        Ok(Self { mutations, most_specific_wins: most_specific_header_mutations_wins })
    }
}

impl Mutations {
    /// Reads the message of a route.
    pub(super) fn read_route(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let message::HeaderMutationPerRoute { mutations } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        Self::read(mutations, &path.field("mutations"))
    }

    fn read(mutations: Option<message::Mutations>, path: &FieldPath) -> Result<Self, ConfigError> {
        let message::Mutations {
            request_mutations,
            query_parameter_mutations,
            response_mutations,
            response_trailers_mutations,
            request_trailers_mutations,
        } = mutations.unwrap_or_default();
        let list =
            |messages: &[HeaderMutation], field: &str| HeaderEdit::compile_all(messages, &path.field(field));
        let query_path = path.field("query_parameter_mutations");
        let query = query_parameter_mutations.into_iter().enumerate();
        let query = query.map(|(at, message)| QueryEdit::read(message, &query_path.index(at)));
        Ok(Self {
            request: list(&request_mutations, "request_mutations")?,
            query: query.collect::<Result<_, _>>()?,
            request_trailers: list(&request_trailers_mutations, "request_trailers_mutations")?,
            response: list(&response_mutations, "response_mutations")?,
            response_trailers: list(&response_trailers_mutations, "response_trailers_mutations")?,
        })
    }

    /// Whether nothing is edited.
    pub(super) fn is_empty(&self) -> bool {
        let Self { request, query, request_trailers, response, response_trailers } = self;
        query.is_empty()
            && [request, request_trailers, response, response_trailers].iter().all(|edits| edits.is_empty())
    }
}
