//! `HeaderMutation` and `HeaderMutationPerRoute` validated.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::FormatContext;
use dhow_http::HeaderMap;
use dhow_matching::StringMatcher;
use dhow_proto::envoy::config::common::mutation_rules::v3::HeaderMutation as MutationMessage;
use dhow_proto::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use dhow_proto::envoy::extensions::filters::http::header_mutation::v3 as message;
use dhow_proto::google::protobuf::Any;
use dhow_routing::HeaderMutations;

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
    pub(super) request: Box<[Mutation]>,
    pub(super) response: Box<[Mutation]>,
}

/// One edit.
#[derive(Debug)]
pub(super) enum Mutation {
    /// `append` or `remove`.
    Edit(HeaderMutations),
    /// `remove_on_match`: removes the headers whose names match.
    RemoveOnMatch(StringMatcher),
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
        let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
        refuse(!query_parameter_mutations.is_empty(), "query_parameter_mutations")?;
        refuse(!response_trailers_mutations.is_empty(), "response_trailers_mutations")?;
        refuse(!request_trailers_mutations.is_empty(), "request_trailers_mutations")?;
        let list = |messages: &[MutationMessage], field: &str| -> Result<Box<[Mutation]>, ConfigError> {
            let path = path.field(field);
            messages
                .iter()
                .enumerate()
                .map(|(at, message)| Mutation::read(message, &path.index(at)))
                .collect()
        };
        Ok(Self {
            request: list(&request_mutations, "request_mutations")?,
            response: list(&response_mutations, "response_mutations")?,
        })
    }
}

impl Mutation {
    fn read(message: &MutationMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let MutationMessage { action } = message;
        match action {
            Some(Action::Remove(name)) => {
                let names = std::slice::from_ref(name);
                let field = path.field("remove");
                HeaderMutations::compile(&[], path, names, &field)
                    .map(Self::Edit)
                    .map_err(|error| of_single(error, &field))
            }
            Some(Action::Append(option)) => {
                let options = std::slice::from_ref(option);
                let field = path.field("append");
                HeaderMutations::compile(options, &field, &[], path)
                    .map(Self::Edit)
                    .map_err(|error| of_single(error, &field))
            }
            Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher })) => {
                let path = path.field("remove_on_match").field("key_matcher");
                let Some(matcher) = key_matcher else {
                    return Err(ConfigError::new(path, "value is required"));
                };
                StringMatcher::compile(matcher, &path).map(Self::RemoveOnMatch)
            }
            None => Err(ConfigError::new(path.field("action"), "value is required")),
        }
    }

    /// Edits a request.
    pub(super) fn apply_to_request(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        match self {
            Self::Edit(edit) => edit.apply_to_request(headers, context),
            Self::RemoveOnMatch(matcher) => remove_matching(headers, matcher),
        }
    }

    /// Edits a response.
    pub(super) fn apply_to_response(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        match self {
            Self::Edit(edit) => edit.apply_to_response(headers, context),
            Self::RemoveOnMatch(matcher) => remove_matching(headers, matcher),
        }
    }
}

/// An error about the only element of a list, as one about the field that is not a list here.
fn of_single(mut error: ConfigError, field: &FieldPath) -> ConfigError {
    if let Some(rest) = error.path.as_str().strip_prefix(&format!("{field}[0]")) {
        error.path = FieldPath::from(format!("{field}{rest}"));
    }
    error
}

/// Pseudo headers stay: a request or response is none without them.
fn remove_matching(headers: &mut HeaderMap, matcher: &StringMatcher) {
    headers.retain(|_, name, _| name.starts_with(b":") || !matcher.matches(name));
}
