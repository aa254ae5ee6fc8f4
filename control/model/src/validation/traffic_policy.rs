//! TrafficPolicy of DestinationRules.

use super::Checker;
use crate::istio::{
    ClientTls, ClientTlsMode, ConnectionPool, HttpConnectionPool, LoadBalancer, LocalityLb, OutlierDetection,
    PortTrafficPolicy, TcpConnectionPool, TrafficPolicy,
};

pub(super) fn check(checker: &mut Checker, policy: &TrafficPolicy) {
    let TrafficPolicy {
        load_balancer: balancer,
        connection_pool: pool,
        outlier_detection: outliers,
        tls: client_tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = policy;
    sections(checker, balancer.as_ref(), pool.as_ref(), outliers.as_ref(), client_tls.as_ref());
    checker.each("portLevelSettings", port_level_settings, |checker, settings| {
        let PortTrafficPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = settings;
        checker.field("port", |checker| checker.port("number", port.number));
        sections(
            checker,
            load_balancer.as_ref(),
            connection_pool.as_ref(),
            outlier_detection.as_ref(),
            tls.as_ref(),
        );
    });
    if let Some(tunnel) = tunnel {
        checker.field("tunnel", |checker| {
            if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
                checker.refuse_at("protocol", "must be CONNECT or POST");
            }
            if tunnel.target_host.is_empty() {
                checker.refuse_at("targetHost", "is required");
            }
            checker.port("targetPort", tunnel.target_port);
        });
        checker.not_honoured("tunnel", true);
    }
    checker.not_honoured("proxyProtocol", proxy_protocol.is_some());
    if let Some(percent) = retry_budget.as_ref().and_then(|budget| budget.percent.as_ref()) {
        checker.field("retryBudget", |checker| super::matching::percentage(checker, "percent", percent));
    }
}

fn sections(
    checker: &mut Checker,
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outliers: Option<&OutlierDetection>,
    tls: Option<&ClientTls>,
) {
    if let Some(balancer) = balancer {
        checker.field("loadBalancer", |checker| load_balancer(checker, balancer));
    }
    if let Some(pool) = pool {
        checker.field("connectionPool", |checker| connection_pool(checker, pool));
    }
    if let Some(outliers) = outliers {
        checker.field("outlierDetection", |checker| outlier_detection(checker, outliers));
    }
    if let Some(tls) = tls {
        checker.field("tls", |checker| client_tls(checker, tls));
    }
}

fn load_balancer(checker: &mut Checker, balancer: &LoadBalancer) {
    let LoadBalancer {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup,
        warmup_duration_secs,
    } = balancer;
    if let Some(hash) = consistent_hash {
        if simple.is_some() {
            checker.refuse("only one of simple and consistentHash may be set");
        }
        checker.field("consistentHash", |checker| {
            let keys = [
                hash.http_header_name.is_some(),
                hash.http_cookie.is_some(),
                hash.use_source_ip == Some(true),
                hash.http_query_parameter_name.is_some(),
            ];
            match keys.iter().filter(|set| **set).count() {
                0 => checker.refuse(
                    "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is required",
                ),
                1 => {}
                _ => checker.refuse("only one key may be set"),
            }
            if hash.ring_hash.is_some() && hash.maglev.is_some() {
                checker.refuse("only one of ringHash and maglev may be set");
            }
            if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
                checker.field("httpCookie", |checker| checker.refuse_at("name", "is required"));
            }
        });
    }
    if let Some(setting) = locality_lb_setting {
        checker.field("localityLbSetting", |checker| locality(checker, setting));
    }
    checker.not_honoured("zoneAwareLbSetting", zone_aware_lb_setting.is_some());
    if let Some(warmup) = warmup {
        checker.field("warmup", |checker| {
            if warmup.duration.is_none_or(|duration| duration.0.is_zero()) {
                checker.refuse_at("duration", "is required");
            }
            if warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
                checker.refuse_at("minimumPercent", "must be between 0 and 100");
            }
            if warmup.aggression.is_some_and(|aggression| aggression < 1.0) {
                checker.refuse_at("aggression", "must be at least 1");
            }
        });
    }
    if warmup.is_some() && warmup_duration_secs.is_some() {
        checker.refuse_at("warmupDurationSecs", "only one of warmup and warmupDurationSecs may be set");
    }
}

fn locality(checker: &mut Checker, setting: &LocalityLb) {
    let LocalityLb { distribute, failover, failover_priority, enabled: _ } = setting;
    if !distribute.is_empty() && (!failover.is_empty() || !failover_priority.is_empty()) {
        checker.refuse("distribute excludes failover and failoverPriority");
    }
    checker.each("distribute", distribute, |checker, entry| {
        let sum: u64 = entry.to.values().map(|weight| u64::from(*weight)).sum();
        if sum != 100 {
            checker.refuse_at("to", format!("the weights add up to {sum}, not to 100"));
        }
    });
    checker.each("failover", failover, |checker, entry| {
        if entry.from == entry.to {
            checker.refuse("from and to must differ");
        }
    });
    checker.not_honoured("failoverPriority", !failover_priority.is_empty());
}

fn connection_pool(checker: &mut Checker, pool: &ConnectionPool) {
    if pool.tcp.is_none() && pool.http.is_none() {
        checker.refuse("one of tcp and http is required");
    }
    if let Some(tcp) = &pool.tcp {
        checker.field("tcp", |checker| {
            let TcpConnectionPool {
                max_connections,
                connect_timeout,
                tcp_keepalive: _,
                max_connection_duration: _,
                idle_timeout: _,
            } = tcp;
            not_negative(checker, "maxConnections", *max_connections);
            if connect_timeout.is_some_and(|timeout| timeout.0.as_millis() == 0) {
                checker.refuse_at("connectTimeout", "must be at least 1ms");
            }
        });
    }
    if let Some(http) = &pool.http {
        checker.field("http", |checker| {
            let HttpConnectionPool {
                http1_max_pending_requests,
                http2_max_requests,
                max_requests_per_connection,
                max_retries,
                idle_timeout: _,
                h2_upgrade_policy,
                use_client_protocol,
                max_concurrent_streams,
                http2_keep_alive: _,
            } = http;
            not_negative(checker, "http1MaxPendingRequests", *http1_max_pending_requests);
            not_negative(checker, "http2MaxRequests", *http2_max_requests);
            not_negative(checker, "maxRequestsPerConnection", *max_requests_per_connection);
            not_negative(checker, "maxRetries", *max_retries);
            not_negative(checker, "maxConcurrentStreams", *max_concurrent_streams);
            if *use_client_protocol && *h2_upgrade_policy == Some(crate::istio::H2UpgradePolicy::Upgrade) {
                checker.refuse("useClientProtocol excludes h2UpgradePolicy UPGRADE");
            }
        });
    }
}

fn not_negative(checker: &mut Checker, name: &str, value: i32) {
    if value < 0 {
        checker.refuse_at(name, "must not be negative");
    }
}

fn outlier_detection(checker: &mut Checker, outliers: &OutlierDetection) {
    for (name, value) in [
        ("maxEjectionPercent", outliers.max_ejection_percent),
        ("minHealthPercent", outliers.min_health_percent),
    ] {
        if !(0..=100).contains(&value) {
            checker.refuse_at(name, "must be between 0 and 100");
        }
    }
    for (name, value) in [("interval", outliers.interval), ("baseEjectionTime", outliers.base_ejection_time)]
    {
        if value.is_some_and(|value| value.0.as_millis() == 0) {
            checker.refuse_at(name, "must be at least 1ms");
        }
    }
    if outliers.consecutive_local_origin_failures.is_some() && !outliers.split_external_local_origin_errors {
        checker.refuse_at("consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors");
    }
    checker.not_honoured("consecutiveErrors", outliers.consecutive_errors.is_some());
    checker.not_honoured(
        "outlierDetectionHttpErrorCodes",
        !outliers.outlier_detection_http_error_codes.is_empty(),
    );
}

fn client_tls(checker: &mut Checker, tls: &ClientTls) {
    let files = [&tls.client_certificate, &tls.private_key];
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
            if tls.client_certificate.is_empty() {
                checker.refuse_at("clientCertificate", "is required for MUTUAL");
            }
            if tls.private_key.is_empty() {
                checker.refuse_at("privateKey", "is required for MUTUAL");
            }
        }
        ClientTlsMode::IstioMutual => {
            if files.iter().any(|file| !file.is_empty())
                || !tls.ca_certificates.is_empty()
                || !tls.credential_name.is_empty()
            {
                checker.refuse("ISTIO_MUTUAL takes no certificates of its own");
            }
            checker.warn_at("mode", "ISTIO_MUTUAL is not honoured yet: connections are made in plaintext");
        }
        _ => {}
    }
    if !tls.credential_name.is_empty() {
        if files.iter().any(|file| !file.is_empty()) || !tls.ca_certificates.is_empty() {
            checker.refuse_at("credentialName", "excludes certificates from files");
        }
        checker.warn_at("credentialName", "secrets are not served yet: the destination stays unreachable");
    }
    for (index, name) in tls.subject_alt_names.iter().enumerate() {
        if name.is_empty() {
            checker.refuse_at("subjectAltNames", format!("entry {index} is empty"));
        }
    }
}
