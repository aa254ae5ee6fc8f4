//! `envoy.config.common.mutation_rules.v3.HeaderMutation`: one edit of a list of edits.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::FormatContext;
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::StringMatcher;

use crate::headers::HeaderMutations;
use crate::pb::mutation::HeaderMutation;
use crate::pb::mutation::header_mutation::{Action, RemoveOnMatch};

/// One edit; a list of them is applied in order, each seeing what the ones before left.
#[derive(Debug)]
pub enum HeaderEdit {
    /// `append`.
    Append(HeaderMutations),
    /// `remove`. What a message cannot be sent without may be named as well; that it is missing shows where it is sent.
    Remove(HeaderName),
    /// `remove_on_match`: removes the headers whose names match.
    RemoveOnMatch(StringMatcher),
}

impl HeaderEdit {
    /// Compiles a list.
    ///
    /// # Errors
    /// As [`HeaderEdit::compile`], with the index in the path.
    pub fn compile_all(messages: &[HeaderMutation], path: &FieldPath) -> Result<Box<[Self]>, ConfigError> {
        messages.iter().enumerate().map(|(at, message)| Self::compile(message, &path.index(at))).collect()
    }

    /// Compiles the message.
    ///
    /// # Errors
    /// When it has no action, or one that is not acceptable.
    pub fn compile(message: &HeaderMutation, path: &FieldPath) -> Result<Self, ConfigError> {
        let HeaderMutation { action } = message;
        match action {
            Some(Action::Remove(name)) => Ok(Self::Remove(HeaderName::new(name))),
            Some(Action::Append(option)) => {
                let options = std::slice::from_ref(option);
                let field = path.field("append");
                HeaderMutations::compile(options, &field, &[], path)
                    .map(Self::Append)
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
    pub fn apply_to_request(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        match self {
            Self::Append(edit) => edit.apply_to_request(headers, context),
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::RemoveOnMatch(matcher) => remove_matching(headers, matcher),
        }
    }

    /// Edits a response.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        match self {
            Self::Append(edit) => edit.apply_to_response(headers, context),
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::RemoveOnMatch(matcher) => remove_matching(headers, matcher),
        }
    }

    /// Edits trailers; formats see the heads that `context` has.
    pub fn apply_to_trailers(&self, trailers: &mut HeaderMap, context: &dyn FormatContext) {
        match self {
            Self::Append(edit) => edit.apply_to_trailers(trailers, context),
            Self::Remove(name) => {
                trailers.remove(name);
            }
            Self::RemoveOnMatch(matcher) => remove_matching(trailers, matcher),
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

/// Names are those that headers are kept under: `host` of a request is `:authority`.
fn remove_matching(headers: &mut HeaderMap, matcher: &StringMatcher) {
    headers.retain(|_, name, _| !matcher.matches(name));
}
