//! What the control plane's model says about an object, in the terms of `dhow up` and `dhow apply`.

use dhow_base::ConfigError;
use dhow_control_model::validation::validate as check;
use dhow_control_model::{Decoded, Origin, decode};
use dhow_up::Rejection;
use serde_json::Value;

/// Accepts `object` with its warnings, or says why the control plane would not.
pub fn validate(object: &Value) -> Result<Vec<Rejection>, Rejection> {
    let rejection = |error: &ConfigError| {
        let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Rejection { path: error.path.as_str().to_owned(), reason: format!("{}{hint}", error.reason) }
    };
    match decode(object.clone(), "default", Origin::default()).map_err(|error| rejection(&error))? {
        Decoded::Object(object) => {
            let findings = check(&object);
            match findings.errors.first() {
                Some(error) => Err(rejection(error)),
                None => Ok(findings
                    .warnings
                    .into_iter()
                    .map(|warning| Rejection {
                        path: warning.path.as_str().to_owned(),
                        reason: warning.message,
                    })
                    .collect()),
            }
        }
        Decoded::Ignored => Ok(Vec::new()),
        Decoded::Unsupported(kind) => Ok(vec![Rejection {
            path: String::new(),
            reason: format!("{kind} has no effect: this kind is not supported yet"),
        }]),
    }
}
