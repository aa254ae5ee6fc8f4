//! Entries that extensions give: expressions, and inputs of matchers.

use std::borrow::Cow;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::CelExpression;
use dhow_matching::generic::{InputFamily, MatchInput};
use dhow_proto::any;
use dhow_proto::envoy::extensions::rate_limit_descriptors::expr::v3::Descriptor;
use dhow_proto::envoy::extensions::rate_limit_descriptors::expr::v3::descriptor::ExprSpecifier;
use dhow_proto::xds::core::v3::TypedExtensionConfig as InputMessage;

use super::RateLimitInput;
use super::action::Outcome;
use crate::pb::core::TypedExtensionConfig;

/// Where the value of an entry comes from.
#[derive(Clone, Debug)]
pub(super) enum Extension {
    /// `envoy.rate_limit_descriptors.expr`.
    Expression {
        expression: CelExpression,
        /// `skip_if_error`: a descriptor goes without the entry when the expression has no value.
        skip_if_error: bool,
    },
    /// Any input of matchers.
    Input(MatchInput),
}

impl Extension {
    /// Compiles the message; the text is the key of the entry, which for inputs is the name of the extension.
    pub(super) fn compile<'a>(
        message: &'a TypedExtensionConfig,
        path: &FieldPath,
    ) -> Result<(Cow<'a, str>, Self), ConfigError> {
        let TypedExtensionConfig { name, typed_config } = message;
        let config = path.field("typed_config");
        let Some(any) = typed_config.as_ref().filter(|any| any::is::<Descriptor>(any)) else {
            let message = InputMessage { name: name.clone(), typed_config: typed_config.clone() };
            let input = MatchInput::compile(&message, path, InputFamily::Http)?;
            return Ok((name.into(), Self::Input(input)));
        };
        let Descriptor { descriptor_key, skip_if_error, expr_specifier } =
            any::unpack(any).map_err(|error| error.under(&config))?;
        let expression = match &expr_specifier {
            None => Err("Rate limit descriptor extension failed: expression specifier is not set".to_owned()),
            Some(ExprSpecifier::Text(text)) => CelExpression::parse(text).map_err(|reason| {
                // Envoy words this differently from the same fault in a format.
                reason.replacen(
                    "Not able to parse expression: ",
                    "Unable to parse descriptor expression: ",
                    1,
                )
            }),
            Some(ExprSpecifier::Parsed(message)) => CelExpression::from_message(message),
        };
        let expression = expression.map_err(|reason| ConfigError::new(config, reason))?;
        Ok((descriptor_key.into(), Self::Expression { expression, skip_if_error }))
    }

    /// The entry of a request.
    pub(super) fn entry(&self, key: &str, input: &RateLimitInput<'_>) -> Outcome {
        let entry =
            |value: &[u8]| Outcome::Entry(key.to_owned(), String::from_utf8_lossy(value).into_owned());
        match self {
            Self::Expression { expression, skip_if_error } => {
                let mut value = Vec::new();
                match expression.append(input.context, &mut value) {
                    true => entry(&value),
                    false if *skip_if_error => Outcome::Skip,
                    false => Outcome::NoDescriptor,
                }
            }
            Self::Input(from) => match from.text(input.data) {
                Some(value) if value.is_empty() => Outcome::Skip,
                Some(value) => entry(&value),
                None => Outcome::NoDescriptor,
            },
        }
    }
}
