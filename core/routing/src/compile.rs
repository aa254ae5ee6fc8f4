//! From `RouteConfiguration` to the table.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::{HeaderName, KnownHeader};
use dhow_matching::{DomainIndex, HeaderMatcher};
use dhow_proto::xds::r#type::matcher::v3::Matcher;

use crate::action::HedgePolicy;
use crate::cluster_matcher::MatchedClusters;
use crate::compile_action;
use crate::direct_response::DirectResponse;
use crate::entry::{Action, RouteEntry};
use crate::filter_config::{FilterConfigObject, FilterConfigs};
use crate::headers::{HeaderLevels, HeaderMutations};
use crate::index::RouteIndex;
use crate::mirror::MirrorPolicy;
use crate::pb::core::{DataSource, HeaderValueOption};
use crate::pb::{protobuf, route};
use crate::rate_limit::RateLimitRule;
use crate::redirect::Redirect;
use crate::retry::{RetryOn, RetryPolicy};
use crate::route_match::RouteMatch;
use crate::route_tree::RouteTree;
use crate::table::RouteTable;
use crate::virtual_host::{RouteSearch, Routes, TlsRequirement, VirtualCluster, VirtualHost};

/// What compiling needs to know from outside.
pub struct CompileOptions<'a> {
    /// `validate_clusters` when the message does not say: true for inline routes, false for RDS.
    pub validate_clusters_by_default: bool,
    /// Whether a cluster of this name exists.
    pub cluster_exists: &'a dyn Fn(&str) -> bool,
    /// Compiles what a route says to the filter of this configured name. `Ok(None)`: no filter here has that name.
    pub compile_filter_config: &'a CompileFilterConfig<'a>,
    /// Reads a file or an environment variable.
    pub read_source: &'a ReadSource<'a>,
}

/// See [`CompileOptions::compile_filter_config`].
pub type CompileFilterConfig<'a> =
    dyn Fn(&str, &protobuf::Any, &FieldPath) -> Result<Option<FilterConfigObject>, ConfigError> + 'a;

/// See [`CompileOptions::read_source`].
pub type ReadSource<'a> = dyn Fn(&DataSource, &FieldPath) -> Result<Vec<u8>, ConfigError> + 'a;

impl CompileOptions<'static> {
    /// Clusters are not validated, filters know no configuration, and nothing can be read.
    pub fn lenient() -> Self {
        Self {
            validate_clusters_by_default: false,
            cluster_exists: &|_| true,
            compile_filter_config: &|_, _, _| Ok(None),
            read_source: &|_, path| Err(ConfigError::unsupported(path.clone())),
        }
    }
}

/// Everything that is the same for all virtual hosts of a table.
pub(crate) struct Compiler<'a, 'b> {
    pub(crate) options: &'a CompileOptions<'b>,
    pub(crate) warnings: &'a mut Vec<ConfigWarning>,
    /// The options again when clusters are validated.
    pub(crate) validate: Option<&'a CompileOptions<'b>>,
    most_specific_wins: bool,
    body_limit: usize,
    headers: LevelHeaders,
    filter_configs: FilterConfigs,
    mirror_policies: Arc<[MirrorPolicy]>,
    /// `cluster_specifier_plugins` by name; of one name the first counts.
    pub(crate) plugins: Vec<(Box<str>, Arc<MatchedClusters>)>,
    /// What routes with the same settings share.
    pub(crate) last_forward: Option<compile_action::LastForward>,
}

/// Header mutations of one level.
#[derive(Clone, Default)]
pub(crate) struct LevelHeaders {
    request: Arc<HeaderMutations>,
    response: Arc<HeaderMutations>,
}

impl LevelHeaders {
    pub(crate) fn compile(
        add_to_request: &[HeaderValueOption],
        remove_from_request: &[String],
        add_to_response: &[HeaderValueOption],
        remove_from_response: &[String],
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let request = HeaderMutations::compile(
            add_to_request,
            &path.field("request_headers_to_add"),
            remove_from_request,
            &path.field("request_headers_to_remove"),
        )?;
        let response = HeaderMutations::compile(
            add_to_response,
            &path.field("response_headers_to_add"),
            remove_from_response,
            &path.field("response_headers_to_remove"),
        )?;
        Ok(Self { request: Arc::new(request), response: Arc::new(response) })
    }
}

/// What a virtual host passes on to its routes.
pub(crate) struct HostLevel {
    headers: LevelHeaders,
    filter_configs: FilterConfigs,
    pub(crate) retry_policy: Option<Arc<RetryPolicy>>,
    pub(crate) hedge_policy: Option<HedgePolicy>,
    pub(crate) mirror_policies: Arc<[MirrorPolicy]>,
    buffer_limit: Option<u64>,
}

/// What a route passes on to its weighted clusters.
pub(crate) struct RouteLevel<'a> {
    pub(crate) host: &'a HostLevel,
    headers: LevelHeaders,
    pub(crate) filter_configs: FilterConfigs,
}

impl RouteTable {
    /// Compiles a route configuration.
    ///
    /// # Errors
    /// In Envoy's words, with the path of what is wrong; a field that is set and not supported is refused.
    pub fn compile(
        message: &route::RouteConfiguration,
        path: &FieldPath,
        options: &CompileOptions<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let route::RouteConfiguration {
            name,
            virtual_hosts,
            vhds,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            most_specific_header_mutations_wins,
            validate_clusters,
            max_direct_response_body_size_bytes,
            cluster_specifier_plugins,
            request_mirror_policies,
            ignore_port_in_host_matching,
            vhost_header,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            metadata,
            route_specifiers,
        } = message;
        refuse(vhds.is_some(), path, "vhds")?;
        refuse(!route_specifiers.is_empty(), path, "route_specifiers")?;
        let validates =
            validate_clusters.as_ref().map_or(options.validate_clusters_by_default, |wrapped| wrapped.value);
        let validate = validates.then_some(options);
        let mirror_policies = mirrors(request_mirror_policies, path, validate, warnings)?;
        let plugins_path = path.field("cluster_specifier_plugins");
        let plugins = cluster_specifier_plugins.iter().enumerate().map(|(at, plugin)| {
            MatchedClusters::compile(plugin, &plugins_path.index(at))
                .map(|(name, plugin)| (name, Arc::new(plugin)))
        });
        let filter_path = path.field("typed_per_filter_config");
        let mut compiler = Compiler {
            options,
            warnings,
            validate,
            most_specific_wins: *most_specific_header_mutations_wins,
            body_limit: max_direct_response_body_size_bytes.as_ref().map_or(4096, |w| w.value as usize),
            headers: LevelHeaders::compile(
                request_headers_to_add,
                request_headers_to_remove,
                response_headers_to_add,
                response_headers_to_remove,
                path,
            )?,
            filter_configs: FilterConfigs::compile(
                typed_per_filter_config,
                &FilterConfigs::default(),
                &filter_path,
                options,
            )?,
            mirror_policies,
            plugins: plugins.collect::<Result<_, _>>()?,
            last_forward: None,
        };
        let hosts_path = path.field("virtual_hosts");
        let hosts = virtual_hosts.iter().enumerate();
        let hosts = hosts.map(|(at, host)| compiler.virtual_host(host, &hosts_path.index(at)).map(Arc::new));
        let host_header = if vhost_header.is_empty() {
            KnownHeader::Authority.into()
        } else {
            HeaderName::new(vhost_header)
        };
        Ok(Self {
            name: name.as_str().into(),
            virtual_hosts: hosts.collect::<Result<_, _>>()?,
            domains: index_domains(name, virtual_hosts, &hosts_path)?,
            host_header,
            ignore_port: *ignore_port_in_host_matching,
            ignore_path_parameters: *ignore_path_parameters_in_path_matching,
            internal_only_headers: internal_only_headers.iter().map(|name| HeaderName::new(name)).collect(),
            metadata: metadata.clone(),
            to_https: Arc::new(https_redirect()),
        })
    }
}

fn https_redirect() -> RouteEntry {
    RouteEntry {
        name: Box::default(),
        matched: RouteMatch::any(),
        action: Action::Redirect(Box::new(Redirect::to_https())),
        request_headers: HeaderLevels::default(),
        response_headers: HeaderLevels::default(),
        filter_configs: FilterConfigs::default(),
        metadata: None,
        stat_prefix: Box::default(),
        request_body_buffer_limit: None,
        decorator: None,
        tracing: None,
    }
}

fn index_domains(
    table: &str,
    hosts: &[route::VirtualHost],
    path: &FieldPath,
) -> Result<DomainIndex<u32>, ConfigError> {
    let mut domains = DomainIndex::default();
    for (at, host) in hosts.iter().enumerate() {
        let path = path.index(at).field("domains");
        if host.domains.is_empty() {
            return Err(ConfigError::new(path, "value must contain at least 1 item(s)"));
        }
        for (nth, domain) in host.domains.iter().enumerate() {
            if domains.insert(domain, at as u32) {
                continue;
            }
            let reason = if domain == "*" {
                format!("Only a single wildcard domain is permitted in route {table}")
            } else {
                let domain = domain.to_ascii_lowercase();
                format!(
                    "Only unique values for domains are permitted. Duplicate entry of domain {domain} in route {table}"
                )
            };
            return Err(ConfigError::new(path.index(nth), reason));
        }
    }
    Ok(domains)
}

pub(crate) fn refuse(is_set: bool, path: &FieldPath, field: &str) -> Result<(), ConfigError> {
    if is_set { Err(ConfigError::unsupported(path.field(field))) } else { Ok(()) }
}

pub(crate) fn mirrors(
    messages: &[route::route_action::RequestMirrorPolicy],
    path: &FieldPath,
    validate: Option<&CompileOptions<'_>>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<[MirrorPolicy]>, ConfigError> {
    warnings.extend(MirrorPolicy::warnings(messages, path));
    let path = path.field("request_mirror_policies");
    messages.iter().enumerate().map(|(at, m)| MirrorPolicy::compile(m, &path.index(at), validate)).collect()
}

fn tls_requirement(value: i32, path: &FieldPath) -> Result<TlsRequirement, ConfigError> {
    use route::virtual_host::TlsRequirementType;
    match TlsRequirementType::try_from(value) {
        Ok(TlsRequirementType::None) => Ok(TlsRequirement::None),
        Ok(TlsRequirementType::ExternalOnly) => Ok(TlsRequirement::ExternalOnly),
        Ok(TlsRequirementType::All) => Ok(TlsRequirement::All),
        Err(_) => {
            Err(ConfigError::new(path.field("require_tls"), "value must be one of the defined enum values"))
        }
    }
}

fn virtual_cluster(message: &route::VirtualCluster, path: &FieldPath) -> Result<VirtualCluster, ConfigError> {
    let route::VirtualCluster { headers, name } = message;
    if name.is_empty() {
        return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
    }
    if headers.is_empty() {
        return Err(ConfigError::new(path.clone(), "virtual clusters must define 'headers'"));
    }
    let headers = HeaderMatcher::compile_all(headers, &path.field("headers"))?;
    Ok(VirtualCluster { name: name.as_str().into(), headers })
}

/// What is said of fields that Envoy accepts and never reads.
pub(crate) const WITHOUT_EFFECT: &str = "without effect, as in Envoy 1.40";

/// The newer of two fields for the same limit wins.
fn buffer_limit(older: Option<&protobuf::UInt32Value>, newer: Option<&protobuf::UInt64Value>) -> Option<u64> {
    newer.map(|wrapped| wrapped.value).or_else(|| older.map(|wrapped| u64::from(wrapped.value)))
}

impl Compiler<'_, '_> {
    pub(crate) fn warn(&mut self, path: FieldPath, message: impl Into<String>) {
        self.warnings.push(ConfigWarning::new(path, message));
    }

    pub(crate) fn retry_policy(
        &mut self,
        message: Option<&route::RetryPolicy>,
        path: &FieldPath,
    ) -> Result<Option<Arc<RetryPolicy>>, ConfigError> {
        let Some(message) = message else { return Ok(None) };
        let path = path.field("retry_policy");
        for name in RetryOn::unknown(&message.retry_on) {
            self.warn(path.field("retry_on"), format!("'{name}' is not a retry condition and has no effect"));
        }
        RetryPolicy::compile(message, &path).map(|policy| Some(Arc::new(policy)))
    }

    pub(crate) fn hedge_policy(
        &mut self,
        message: Option<&route::HedgePolicy>,
        path: &FieldPath,
    ) -> Option<HedgePolicy> {
        let route::HedgePolicy { initial_requests, additional_request_chance, hedge_on_per_try_timeout } =
            message?;
        let path = path.field("hedge_policy");
        // Envoy accepts both and does nothing about them.
        if initial_requests.as_ref().is_some_and(|wrapped| wrapped.value > 1) {
            self.warn(path.field("initial_requests"), "has no effect, as in Envoy");
        }
        if additional_request_chance.as_ref().is_some_and(|chance| chance.numerator > 0) {
            self.warn(path.field("additional_request_chance"), "has no effect, as in Envoy");
        }
        Some(HedgePolicy { hedge_on_per_try_timeout: *hedge_on_per_try_timeout })
    }

    fn virtual_host(
        &mut self,
        message: &route::VirtualHost,
        path: &FieldPath,
    ) -> Result<VirtualHost, ConfigError> {
        #[allow(deprecated, reason = "deprecated fields are honoured or refused like all others")]
        let route::VirtualHost {
            name,
            domains: _, // Indexed by the table.
            routes,
            matcher,
            require_tls,
            virtual_clusters,
            rate_limits,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            cors,
            typed_per_filter_config,
            include_request_attempt_count,
            include_attempt_count_in_response,
            retry_policy,
            retry_policy_typed_config,
            hedge_policy,
            include_is_timeout_retry_header,
            per_request_buffer_limit_bytes,
            request_body_buffer_limit,
            request_mirror_policies,
            metadata,
            route_specifiers,
        } = message;
        if name.is_empty() {
            return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
        }
        if matcher.is_some() && !routes.is_empty() {
            let reason = "cannot set both matcher and routes on virtual host";
            return Err(ConfigError::new(path.field("matcher"), reason));
        }
        if retry_policy_typed_config.is_some() {
            self.warn(path.field("retry_policy_typed_config"), WITHOUT_EFFECT);
        }
        refuse(!route_specifiers.is_empty(), path, "route_specifiers")?;
        let own_mirrors = mirrors(request_mirror_policies, path, self.validate, self.warnings)?;
        let level = HostLevel {
            headers: LevelHeaders::compile(
                request_headers_to_add,
                request_headers_to_remove,
                response_headers_to_add,
                response_headers_to_remove,
                path,
            )?,
            filter_configs: FilterConfigs::compile(
                typed_per_filter_config,
                &self.filter_configs,
                &path.field("typed_per_filter_config"),
                self.options,
            )?
            .with_cors(cors.as_ref(), &path.field("cors"), self.options)?,
            retry_policy: self.retry_policy(retry_policy.as_ref(), path)?,
            hedge_policy: self.hedge_policy(hedge_policy.as_ref(), path),
            mirror_policies: if own_mirrors.is_empty() { self.mirror_policies.clone() } else { own_mirrors },
            buffer_limit: buffer_limit(
                per_request_buffer_limit_bytes.as_ref(),
                request_body_buffer_limit.as_ref(),
            ),
        };
        let (routes, search) = match matcher {
            Some(matcher) => self.route_tree(matcher, &level, &path.field("matcher"))?,
            None => self.route_list(routes, &level, &path.field("routes"))?,
        };
        let clusters_path = path.field("virtual_clusters");
        let virtual_clusters = virtual_clusters.iter().enumerate();
        let virtual_clusters =
            virtual_clusters.map(|(at, message)| virtual_cluster(message, &clusters_path.index(at)));
        Ok(VirtualHost {
            name: name.as_str().into(),
            routes,
            search,
            require_tls: tls_requirement(*require_tls, path)?,
            virtual_clusters: virtual_clusters.collect::<Result<_, _>>()?,
            rate_limits: RateLimitRule::compile_all(rate_limits, &path.field("rate_limits"))?,
            metadata: metadata.clone().map(Box::new),
            include_request_attempt_count: *include_request_attempt_count,
            include_attempt_count_in_response: *include_attempt_count_in_response,
            include_is_timeout_retry_header: *include_is_timeout_retry_header,
        })
    }

    fn route_list(
        &mut self,
        messages: &[route::Route],
        level: &HostLevel,
        path: &FieldPath,
    ) -> Result<(Routes, RouteSearch), ConfigError> {
        let routes = messages.iter().enumerate();
        let routes = routes.map(|(at, route)| self.route(route, level, &path.index(at)).map(Arc::new));
        let routes: Routes = routes.collect::<Result<_, _>>()?;
        let index = RouteIndex::build(&routes);
        let search = index.map_or(RouteSearch::InOrder, |index| RouteSearch::Indexed(Box::new(index)));
        Ok((routes, search))
    }

    /// Routes behind a matcher. Their clusters are not validated, as in Envoy.
    fn route_tree(
        &mut self,
        message: &Matcher,
        level: &HostLevel,
        path: &FieldPath,
    ) -> Result<(Routes, RouteSearch), ConfigError> {
        let validate = self.validate.take();
        let compiled =
            RouteTree::compile(message, path, &mut |message, path| self.route(message, level, path));
        self.validate = validate;
        let (tree, routes) = compiled?;
        Ok((routes.into_iter().map(Arc::new).collect(), RouteSearch::Tree(Box::new(tree))))
    }

    fn route(
        &mut self,
        message: &route::Route,
        host: &HostLevel,
        path: &FieldPath,
    ) -> Result<RouteEntry, ConfigError> {
        #[allow(deprecated, reason = "deprecated fields are honoured or refused like all others")]
        let route::Route {
            name,
            r#match,
            metadata,
            decorator,
            typed_per_filter_config,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            tracing,
            per_request_buffer_limit_bytes,
            stat_prefix,
            request_body_buffer_limit,
            route_specifiers,
            action,
        } = message;
        refuse(!route_specifiers.is_empty(), path, "route_specifiers")?;
        let match_path = path.field("match");
        let matched =
            r#match.as_ref().ok_or_else(|| ConfigError::new(match_path.clone(), "value is required"))?;
        #[allow(deprecated, reason = "deprecated fields are honoured or refused like all others")]
        let cors = match action {
            Some(route::route::Action::Route(action)) => action.cors.as_ref(),
            _ => None,
        };
        let level = RouteLevel {
            host,
            headers: LevelHeaders::compile(
                request_headers_to_add,
                request_headers_to_remove,
                response_headers_to_add,
                response_headers_to_remove,
                path,
            )?,
            filter_configs: FilterConfigs::compile(
                typed_per_filter_config,
                &host.filter_configs,
                &path.field("typed_per_filter_config"),
                self.options,
            )?
            .with_cors(cors, &path.field("route").field("cors"), self.options)?,
        };
        let (request_headers, response_headers) = self.header_levels(&level, None);
        let matched = RouteMatch::compile(matched, &match_path)?;
        Ok(RouteEntry {
            name: name.as_str().into(),
            action: self.action(action.as_ref(), &matched, &level, path)?,
            matched,
            request_headers,
            response_headers,
            metadata: metadata.clone().map(Box::new),
            stat_prefix: stat_prefix.as_str().into(),
            request_body_buffer_limit: buffer_limit(
                per_request_buffer_limit_bytes.as_ref(),
                request_body_buffer_limit.as_ref(),
            )
            .or(host.buffer_limit),
            decorator: decorator.clone().map(Box::new),
            tracing: tracing.clone().map(Box::new),
            filter_configs: level.filter_configs,
        })
    }

    fn action(
        &mut self,
        action: Option<&route::route::Action>,
        matched: &RouteMatch,
        level: &RouteLevel<'_>,
        path: &FieldPath,
    ) -> Result<Action, ConfigError> {
        Ok(match action {
            None => return Err(ConfigError::new(path.field("action"), "is required")),
            Some(route::route::Action::Route(message)) => {
                let action = compile_action::forward(self, message, matched, level, &path.field("route"))?;
                Action::Forward(Box::new(action))
            }
            Some(route::route::Action::Redirect(message)) => {
                Action::Redirect(Box::new(Redirect::compile(message, matched, &path.field("redirect"))?))
            }
            Some(route::route::Action::DirectResponse(message)) => {
                let path = path.field("direct_response");
                let response = DirectResponse::compile(message, self.body_limit, &path, self.options)?;
                Action::DirectResponse(Box::new(response))
            }
            Some(route::route::Action::FilterAction(_)) => {
                return Err(ConfigError::unsupported(path.field("filter_action")));
            }
            Some(route::route::Action::NonForwardingAction(route::NonForwardingAction {})) => {
                Action::NonForwarding
            }
        })
    }

    /// The levels that apply to a route, or to one of its weighted clusters, whose edits come before those of all other levels
    /// whichever of them wins.
    pub(crate) fn header_levels(
        &self,
        level: &RouteLevel<'_>,
        weighted: Option<&LevelHeaders>,
    ) -> (HeaderLevels, HeaderLevels) {
        let mut levels = [&level.headers, &level.host.headers, &self.headers];
        if self.most_specific_wins {
            levels.reverse();
        }
        let levels: Vec<&LevelHeaders> = weighted.into_iter().chain(levels).collect();
        let request = levels.iter().map(|level| &level.request);
        let response = levels.iter().map(|level| &level.response);
        (HeaderLevels::new(request), HeaderLevels::new(response))
    }
}
