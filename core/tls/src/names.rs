//! Matching of the names in a certificate.

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::StringMatcher;

use crate::certificate::CertificateFacts;
use crate::pb::string_matcher::MatchPattern;
use crate::pb::subject_alt_name_matcher::SanType;
use crate::pb::{StringMatcherMessage, SubjectAltNameMatcher};

/// `SubjectAltNameMatcher`: a text that one of a certificate's names of some kind matches.
#[derive(Debug)]
pub struct NameMatcher {
    kind: Option<SanType>,
    matcher: StringMatcher,
    /// The text of an exact matcher: certificates with wildcards fit it too.
    exact: Option<String>,
}

impl NameMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When it names no kind of names, or one that is not supported.
    pub fn compile(message: &SubjectAltNameMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        let SubjectAltNameMatcher { san_type, matcher, oid } = message;
        let kind = match SanType::try_from(*san_type) {
            Ok(kind @ (SanType::Email | SanType::Dns | SanType::Uri | SanType::IpAddress)) => kind,
            Ok(SanType::OtherName) => return Err(ConfigError::unsupported(path.field("san_type"))),
            Ok(SanType::Unspecified) | Err(_) => {
                return Err(ConfigError::new(
                    path.field("san_type"),
                    "value must be one of the kinds of names",
                ));
            }
        };
        ConfigError::refuse_if(!oid.is_empty(), path, "oid")?;
        let path = path.field("matcher");
        let matcher = matcher.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "is required"))?;
        Self::of_kind(Some(kind), matcher, &path)
    }

    /// The matcher of names of one kind, or of all.
    pub(crate) fn of_kind(
        kind: Option<SanType>,
        message: &StringMatcherMessage,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let exact = match &message.match_pattern {
            Some(MatchPattern::Exact(text)) => Some(text.clone()),
            _ => None,
        };
        Ok(Self { kind, matcher: StringMatcher::compile(message, path)?, exact })
    }

    /// Whether one of the certificate's names matches.
    pub fn fits(&self, facts: &CertificateFacts) -> bool {
        let wanted = |kind: SanType| self.kind.is_none_or(|wanted| wanted == kind);
        let text = |name: &str| self.matcher.matches(name.as_bytes());
        (wanted(SanType::Uri) && facts.uris.iter().any(|name| text(name)))
            || (wanted(SanType::Dns) && facts.dns_names.iter().any(|name| self.fits_dns(name)))
            || (wanted(SanType::Email) && facts.emails.iter().any(|name| text(name)))
            || (wanted(SanType::IpAddress)
                && facts.addresses.iter().any(|address| text(&address.to_string())))
    }

    fn fits_dns(&self, name: &str) -> bool {
        match &self.exact {
            Some(exact) => dns_name_covers(name, exact),
            None => self.matcher.matches(name.as_bytes()),
        }
    }
}

/// Whether a name in a certificate covers a host name: the same, or a wildcard for its first label.
pub(crate) fn dns_name_covers(in_certificate: &str, host: &str) -> bool {
    if in_certificate.eq_ignore_ascii_case(host) {
        return true;
    }
    match (in_certificate.strip_prefix("*."), host.split_once('.')) {
        (Some(pattern), Some((label, parent))) => !label.is_empty() && pattern.eq_ignore_ascii_case(parent),
        _ => false,
    }
}
