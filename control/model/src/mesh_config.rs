//! MeshConfig: the fields that are honoured, and what becomes of the others.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::istio::{
    ConnectionPool, GoDuration, H2UpgradePolicy, LocalityLb, OutlierDetection, RetryPolicy, TcpKeepalive,
};
use crate::object::read;

/// The honoured part of `istio.mesh.v1alpha1.MeshConfig`, with Istio's defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshConfig {
    /// Port of the outbound listener to which traffic is redirected.
    pub proxy_listen_port: u32,
    /// Port of the inbound listener to which traffic is redirected.
    pub proxy_inbound_listen_port: u32,
    /// Port of the HTTP proxy listener; 0 means none.
    pub proxy_http_port: u32,
    /// Connect timeout of generated clusters.
    pub connect_timeout: GoDuration,
    /// Keep-alive of connections to all destinations.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Time for detecting a connection's protocol; zero means no limit.
    pub protocol_detection_timeout: GoDuration,
    /// File of access logs; empty means none.
    pub access_log_file: String,
    /// Format of access logs; empty means Istio's.
    pub access_log_format: String,
    /// Text or JSON access logs.
    pub access_log_encoding: AccessLogEncoding,
    /// What becomes of traffic to unknown destinations.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Where inbound traffic is sent.
    pub inbound_traffic_policy: InboundTrafficPolicy,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Default `exportTo` of services.
    pub default_service_export_to: Vec<String>,
    /// Default `exportTo` of VirtualServices.
    pub default_virtual_service_export_to: Vec<String>,
    /// Default `exportTo` of DestinationRules.
    pub default_destination_rule_export_to: Vec<String>,
    /// Namespace whose DestinationRules apply everywhere.
    pub root_namespace: String,
    /// Locality preference of every cluster with outlier detection.
    pub locality_lb_setting: Option<LocalityLb>,
    /// Time between DNS look-ups.
    pub dns_refresh_rate: GoDuration,
    /// Upgrade of HTTP/1.1 towards destinations, for ports of plain HTTP.
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Path normalisation of every HTTP listener.
    pub path_normalization: PathNormalizationConfig,
    /// Retry policy of routes that have none.
    pub default_http_retry_policy: Option<RetryPolicy>,
    /// Connection pool and outlier detection under every DestinationRule.
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
}

/// `MeshConfig.outboundTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutboundTrafficPolicy {
    /// Its mode.
    pub mode: OutboundTrafficMode,
}

/// `MeshConfig.OutboundTrafficPolicy.Mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    /// Unknown destinations are refused.
    RegistryOnly,
    /// Unknown destinations are let through.
    #[default]
    AllowAny,
}

/// `MeshConfig.inboundTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InboundTrafficPolicy {
    /// Its mode.
    pub mode: InboundTrafficMode,
}

/// `MeshConfig.InboundTrafficPolicy.Mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundTrafficMode {
    /// To the address that the caller used.
    #[default]
    Passthrough,
    /// To the loopback address.
    Localhost,
}

/// `MeshConfig.accessLogEncoding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each variant is the encoding's own name")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// `MeshConfig.pathNormalization`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PathNormalizationConfig {
    /// Its type.
    pub normalization: PathNormalization,
}

/// `MeshConfig.ProxyPathNormalization.NormalizationType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathNormalization {
    /// The same as `BASE`.
    #[default]
    Default,
    /// Paths as they came.
    None,
    /// Dot segments and escapes of RFC 3986.
    Base,
    /// `BASE`, and repeated slashes become one.
    MergeSlashes,
    /// `MERGE_SLASHES`, after escaped slashes are decoded.
    DecodeAndMergeSlashes,
}

/// `MeshConfig.defaultTrafficPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DefaultTrafficPolicy {
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let seconds = |count| GoDuration(std::time::Duration::from_secs(count));
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            proxy_http_port: 0,
            connect_timeout: seconds(10),
            tcp_keepalive: None,
            protocol_detection_timeout: seconds(0),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            outbound_traffic_policy: OutboundTrafficPolicy::default(),
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            trust_domain: "cluster.local".to_owned(),
            default_service_export_to: Vec::new(),
            default_virtual_service_export_to: Vec::new(),
            default_destination_rule_export_to: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            locality_lb_setting: None,
            dns_refresh_rate: seconds(60),
            h2_upgrade_policy: None,
            path_normalization: PathNormalizationConfig::default(),
            default_http_retry_policy: None,
            default_traffic_policy: None,
        }
    }
}

/// Fields of MeshConfig that exist and are not honoured yet.
const NOT_HONOURED: [&str; 30] = [
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "defaultConfig",
    "configSources",
    "enableAutoMtls",
    "trustDomainAliases",
    "caCertificates",
    "serviceEntryVisibility",
    "zoneAwareLbSetting",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "certificates",
    "serviceSettings",
    "serviceScopeConfigs",
    "enablePrometheusMerge",
    "verifyCertificateAtClient",
    "extensionProviders",
    "defaultProviders",
    "discoverySelectors",
    "defaultInboundHttpRetryPolicy",
    "meshMTLS",
    "tlsDefaults",
    "hboneIdleTimeout",
    "thriftConfig",
    "ca",
];

impl MeshConfig {
    /// Reads MeshConfig, given directly or as the ConfigMap `istio` carries it (already taken out of the ConfigMap).
    /// Names that exist and are not honoured yet come back as warnings, unknown names are refused.
    pub fn decode(value: Value) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let mut fields = match value {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            _ => return Err(ConfigError::at_root("MeshConfig must be an object")),
        };
        let mut warnings = Vec::new();
        fields.retain(|name, member| {
            let known = NOT_HONOURED.contains(&name.as_str());
            if known {
                let path = FieldPath::from(name.as_str());
                warnings.push(ConfigWarning::new(path, "is not honoured yet and has no effect"));
            }
            !known && !member.is_null()
        });
        let config: Self = read(&Value::Object(fields), FieldPath::root())?;
        for (name, port) in [
            ("proxyListenPort", config.proxy_listen_port),
            ("proxyInboundListenPort", config.proxy_inbound_listen_port),
        ] {
            if !(1..=65535).contains(&port) {
                return Err(ConfigError::new(FieldPath::from(name), "must be between 1 and 65535"));
            }
        }
        if config.access_log_encoding == AccessLogEncoding::Json
            && !config.access_log_format.is_empty()
            && serde_json::from_str::<Map<String, Value>>(&config.access_log_format).is_err()
        {
            let why = "is no JSON object: the default format is used";
            warnings.push(ConfigWarning::new(FieldPath::from("accessLogFormat"), why));
        }
        if config.proxy_http_port > 65535 {
            return Err(ConfigError::new(FieldPath::from("proxyHttpPort"), "must be between 0 and 65535"));
        }
        Ok((config, warnings))
    }
}
