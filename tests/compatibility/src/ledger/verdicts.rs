//! Where Envoy's verdict on a field is another one than ours.

use std::fmt;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use serde_json::Value as Json;

use super::Status;
use crate::{Validator, Verdict};

/// Envoy, asked about everything that the proxy is asked about.
pub(super) struct Oracle<'a> {
    envoy: &'a Validator,
    found: Mutex<Vec<Disagreement>>,
}

/// One value of a field on which the two programs disagree.
#[derive(Debug)]
pub(super) struct Disagreement {
    label: String,
    value: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Envoy's reason.
    OnlyEnvoyRefuses(String),
    /// Our reason, which is about the value.
    OnlyOursRefuses(String),
    /// Our reason: the field is not supported here. It does not count as a disagreement.
    Unsupported(String),
    /// Our reason, that the field is not supported, where Envoy does not take it either.
    NeitherTakes(String, String),
    /// Both refuse the value, in these words.
    Words(String, String),
}

impl<'a> Oracle<'a> {
    pub(super) fn new(envoy: &'a Validator) -> Self {
        Self { envoy, found: Mutex::new(Vec::new()) }
    }

    /// Compares the verdicts on `value` of the field that `label` names.
    pub(super) fn compare(
        &self,
        (label, value): (&str, &Json),
        (ours, status): (&Verdict, &Status),
        (name, bootstrap): (&str, &Json),
    ) -> Result<()> {
        let theirs = self.envoy.text(name, &bootstrap.to_string())?;
        let kind = match (&ours.error, theirs.error, status) {
            (None, None, _) => return Ok(()),
            (None, Some(theirs), _) => Kind::OnlyEnvoyRefuses(theirs),
            (Some(_), None, Status::Refused(reason)) => Kind::Unsupported(reason.clone()),
            (Some(ours), None, _) => Kind::OnlyOursRefuses(ours.clone()),
            (Some(_), Some(theirs), Status::Refused(ours)) => Kind::NeitherTakes(ours.clone(), theirs),
            (Some(ours), Some(theirs), _) if theirs.contains(reason(ours)) => return Ok(()),
            (Some(ours), Some(theirs), _) => Kind::Words(ours.clone(), theirs),
        };
        let found = Disagreement { label: label.to_owned(), value: value.to_string(), kind };
        self.found.lock().map_err(|_| anyhow!("a probe panicked"))?.push(found);
        Ok(())
    }

    /// What was found, sorted by name.
    pub(super) fn into_found(self) -> Result<Vec<Disagreement>> {
        let mut found = self.found.into_inner().map_err(|_| anyhow!("a probe panicked"))?;
        found.sort_by(|left, right| (&left.label, &left.value).cmp(&(&right.label, &right.value)));
        Ok(found)
    }
}

impl Disagreement {
    /// Full name of the field.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Whether one program accepts what the other refuses, though both know the field.
    pub(super) fn is_about_the_verdict(&self) -> bool {
        matches!(self.kind, Kind::OnlyEnvoyRefuses(_) | Kind::OnlyOursRefuses(_))
    }

    /// Whether the field is not supported here.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self.kind, Kind::Unsupported(_) | Kind::NeitherTakes(..))
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, value, kind } = self;
        match kind {
            Kind::OnlyEnvoyRefuses(theirs) => write!(f, "{label} = {value}\n  only Envoy refuses: {theirs}"),
            Kind::OnlyOursRefuses(ours) => write!(f, "{label} = {value}\n  only ours refuses: {ours}"),
            Kind::Unsupported(ours) => write!(f, "{label}\n  not supported: {ours}"),
            Kind::NeitherTakes(ours, theirs) => {
                write!(f, "{label}\n  not supported: {ours}\n  nor taken by Envoy: {theirs}")
            }
            Kind::Words(ours, theirs) => write!(f, "{label} = {value}\n  ours:  {ours}\n  Envoy: {theirs}"),
        }
    }
}

/// An error without the path of the field, which Envoy does not tell.
fn reason(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(_, reason)| reason)
}
