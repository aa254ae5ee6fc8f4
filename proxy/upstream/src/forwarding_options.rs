//! What the options of a cluster say about the forwarding of requests, which is somebody else's business: how it is read, and what
//! came of it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::common::matcher::v3::MatchPredicate;
use dhow_proto::envoy::config::route::v3::RetryPolicy;
use dhow_proto::envoy::config::route::v3::route_action::{HashPolicy, RequestMirrorPolicy};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// The fields of `HttpProtocolOptions` that concern the forwarding of requests, as whoever forwards them made them.
#[derive(Clone)]
pub struct ForwardingOptions(Arc<dyn Any + Send + Sync>);

impl ForwardingOptions {
    /// Options in the form of whoever uses them.
    pub fn new<T: Any + Send + Sync>(options: T) -> Self {
        Self(Arc::new(options))
    }

    /// The options, if this is their form.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl PartialEq for ForwardingOptions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ForwardingOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardingOptions").finish_non_exhaustive()
    }
}

/// The fields as the message has them.
#[derive(Debug)]
pub struct ForwardingMessage<'a> {
    /// `http_filters`.
    pub filters: Vec<HttpFilter>,
    /// `retry_policy`.
    pub retry_policy: Option<RetryPolicy>,
    /// `hash_policy`, or that of the load balancer, which goes over it.
    pub hash_policy: Vec<HashPolicy>,
    /// Where that is.
    pub hash_path: FieldPath,
    /// `request_mirror_policies`.
    pub mirror_policies: Vec<RequestMirrorPolicy>,
    /// `outlier_detection.error_matcher`.
    pub outlier_errors: Option<MatchPredicate>,
    /// In front of the names of what filters count: `cluster.<name>.`.
    pub stat_prefix: &'a str,
    /// Where the fields are.
    pub path: &'a FieldPath,
    /// Takes what is worth saying.
    pub warnings: &'a mut Vec<ConfigWarning>,
}

impl ForwardingMessage<'_> {
    fn is_empty(&self) -> bool {
        let Self { filters, retry_policy, hash_policy, mirror_policies, outlier_errors, .. } = self;
        let policies = retry_policy.is_some() || !hash_policy.is_empty() || !mirror_policies.is_empty();
        filters.is_empty() && !policies && outlier_errors.is_none()
    }
}

type Lower = dyn Fn(ForwardingMessage<'_>) -> Result<ForwardingOptions, ConfigError> + Send + Sync;

/// Reads the fields. By default nobody is there who could.
#[derive(Clone, Default)]
pub struct ForwardingLowering(Option<Arc<Lower>>);

impl ForwardingLowering {
    /// Reads them by a function, which is called when one of them is set.
    pub fn new(
        lower: impl Fn(ForwardingMessage<'_>) -> Result<ForwardingOptions, ConfigError> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(lower)))
    }

    /// Reads the fields of one cluster; `None` when none is set.
    pub(crate) fn lower(
        &self,
        message: ForwardingMessage<'_>,
    ) -> Result<Option<ForwardingOptions>, ConfigError> {
        match &self.0 {
            _ if message.is_empty() => Ok(None),
            Some(lower) => lower(message).map(Some),
            None => Err(ConfigError::unsupported(message.path.clone())),
        }
    }
}

impl fmt::Debug for ForwardingLowering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardingLowering").finish_non_exhaustive()
    }
}
