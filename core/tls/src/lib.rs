//! Everything that touches rustls: contexts, verification and handshakes. It must not know listeners, clusters or HTTP.

mod certificate;
mod context;
mod downstream;
mod failure;
mod first_record;
mod identity;
mod info;
mod key_schedule;
mod lenient;
mod listed;
mod names;
mod overlooked;
mod parameters;
mod pb;
mod renewed;
mod resumption;
mod secrets;
mod server_configs;
mod source;
mod stats;
mod stream;
mod upstream;
mod validation;
mod verifier;

#[cfg(test)]
mod tests;

pub use certificate::{CertificateFacts, pem_of, sha1_fingerprint, url_encoded};
pub use downstream::DownstreamTls;
pub use failure::TlsFailure;
pub use info::TlsInfo;
pub use listed::{ListedCertificate, ListedContext, days_until};
pub use names::NameMatcher;
pub use overlooked::Overlooked;
pub use secrets::{SecretPlace, Secrets};
pub use stats::TlsStats;
pub use upstream::{ConnectOptions, UpstreamTls};
