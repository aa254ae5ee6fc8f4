//! Each rule refuses what it is for, and names the field.

use crate::fixtures::objects;
use crate::{Decoded, MeshConfig, Origin, decode};

use super::validate;

/// Paths of the errors of a spec.
fn errors(kind: &str, spec: &str) -> Vec<String> {
    let text =
        format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
    let findings = validate(&objects(&text)[0]);
    findings.errors.into_iter().map(|error| error.path.as_str().to_owned()).collect()
}

fn warnings(kind: &str, spec: &str) -> Vec<String> {
    let text =
        format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
    let findings = validate(&objects(&text)[0]);
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    findings.warnings.into_iter().map(|warning| warning.path.as_str().to_owned()).collect()
}

fn decode_error(text: &str) -> String {
    let documents = dhow_yaml::parse(text, dhow_yaml::Dialect::Kubernetes).unwrap();
    decode(documents[0].root.to_json(), "default", Origin::default()).unwrap_err().to_string()
}

/// One HTTP rule beside a destination.
fn http(rule: &str) -> Vec<String> {
    errors(
        "VirtualService",
        &format!("{{hosts: [a], http: [{{route: [{{destination: {{host: b}}}}], {rule}}}]}}"),
    )
}

#[test]
fn unknown_fields_are_refused_with_their_path() {
    let text = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {servers: [{port: {nummer: 1}}]}}";
    let error = decode_error(text);
    assert!(error.starts_with("spec.servers[0].port.nummer: unknown field"), "{error}");
    let text =
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {}, speck: {}}";
    assert_eq!(decode_error(text), "speck: unknown field");
}

#[test]
fn versions_that_are_not_served_are_refused() {
    let error =
        decode_error("{apiVersion: networking.istio.io/v2, kind: Gateway, metadata: {name: g}, spec: {}}");
    assert!(error.starts_with("apiVersion: Gateway is not served"), "{error}");
}

#[test]
fn kinds_that_do_not_configure_the_mesh_are_ignored_and_those_to_come_are_named() {
    let kind = |text: &str| {
        let documents = dhow_yaml::parse(text, dhow_yaml::Dialect::Kubernetes).unwrap();
        decode(documents[0].root.to_json(), "default", Origin::default()).unwrap()
    };
    assert!(matches!(kind("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}"), Decoded::Ignored));
    let Decoded::Unsupported(name) =
        kind("{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}}")
    else {
        panic!("a Sidecar configures the mesh");
    };
    assert_eq!(name, "networking.istio.io/v1 Sidecar s");
}

#[test]
fn a_virtual_service_needs_hosts_and_rules() {
    assert_eq!(errors("VirtualService", "{hosts: [a]}"), ["spec"]);
    assert_eq!(errors("VirtualService", "{}"), ["spec.hosts", "spec"]);
    let route = "http: [{route: [{destination: {host: b}}]}]";
    assert_eq!(errors("VirtualService", &format!("{{hosts: ['*'], {route}}}")), ["spec.hosts[0]"]);
    assert!(errors("VirtualService", &format!("{{hosts: ['*'], gateways: [g], {route}}}")).is_empty());
    assert_eq!(errors("VirtualService", &format!("{{hosts: [a, a], {route}}}")), ["spec.hosts"]);
}

#[test]
fn an_http_rule_does_one_thing() {
    assert_eq!(errors("VirtualService", "{hosts: [a], http: [{}]}"), ["spec.http[0]"]);
    assert_eq!(http("redirect: {uri: /x}"), ["spec.http[0]"]);
    assert_eq!(http("delegate: {name: d}"), ["spec.http[0]"]);
}

#[test]
fn destinations_need_a_host_a_port_in_range_and_weights_that_add_up() {
    let two = |a: &str, b: &str| {
        errors(
            "VirtualService",
            &format!("{{hosts: [a], http: [{{route: [{{destination: {a}}}, {{destination: {b}}}]}}]}}"),
        )
    };
    assert_eq!(two("{host: b}", "{host: c}"), ["spec.http[0].route"]);
    assert_eq!(two("{}, weight: 1", "{host: c}"), ["spec.http[0].route[0].destination.host"]);
    assert_eq!(
        two("{host: b, port: {number: 70000}}, weight: 1", "{host: c}"),
        ["spec.http[0].route[0].destination.port.number"]
    );
}

#[test]
fn expressions_must_compile() {
    assert_eq!(http("match: [{uri: {regex: '('}}]"), ["spec.http[0].match[0].uri.regex"]);
    assert_eq!(
        http("match: [{headers: {h: {regex: '['}}}]"),
        [r#"spec.http[0].match[0].headers["h"].regex"#]
    );
    assert_eq!(
        http("rewrite: {uriRegexRewrite: {match: '*', rewrite: a}}"),
        ["spec.http[0].rewrite.uriRegexRewrite.match"]
    );
}

#[test]
fn retries_faults_and_redirects_have_limits() {
    assert_eq!(http("retries: {attempts: -1}"), ["spec.http[0].retries.attempts"]);
    assert_eq!(http("retries: {attempts: 0, perTryTimeout: 1s}"), ["spec.http[0].retries"]);
    assert_eq!(http("retries: {attempts: 1, retryOn: 'sometimes,503'}"), ["spec.http[0].retries.retryOn"]);
    assert_eq!(http("fault: {abort: {httpStatus: 99}}"), ["spec.http[0].fault.abort.httpStatus"]);
    assert_eq!(
        http("fault: {abort: {percentage: {value: 101}, httpStatus: 500}}"),
        ["spec.http[0].fault.abort.percentage"]
    );
    assert_eq!(http("fault: {delay: {percentage: {value: 1}}}"), ["spec.http[0].fault.delay.fixedDelay"]);
    let redirect =
        |text: &str| errors("VirtualService", &format!("{{hosts: [a], http: [{{redirect: {text}}}]}}"));
    assert_eq!(redirect("{uri: /x, redirectCode: 200}"), ["spec.http[0].redirect.redirectCode"]);
    assert_eq!(redirect("{}"), ["spec.http[0].redirect"]);
}

#[test]
fn server_names_must_be_among_the_hosts() {
    let spec =
        "{hosts: ['*.a.com'], tls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: b}}]}]}";
    assert_eq!(errors("VirtualService", spec), ["spec.tls[0].match[0].sniHosts[0]"]);
}

#[test]
fn a_destination_rule_has_unique_subsets_and_sensible_policies() {
    let policy = |text: &str| errors("DestinationRule", &format!("{{host: a, trafficPolicy: {text}}}"));
    assert_eq!(errors("DestinationRule", "{}"), ["spec.host"]);
    assert_eq!(errors("DestinationRule", "{host: a, subsets: [{name: v}, {name: v}]}"), ["spec.subsets"]);
    assert_eq!(
        policy("{connectionPool: {tcp: {maxConnections: -1}}}"),
        ["spec.trafficPolicy.connectionPool.tcp.maxConnections"]
    );
    assert_eq!(
        policy("{outlierDetection: {maxEjectionPercent: 101}}"),
        ["spec.trafficPolicy.outlierDetection.maxEjectionPercent"]
    );
    assert_eq!(
        policy("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}"),
        ["spec.trafficPolicy.loadBalancer"]
    );
    assert_eq!(policy("{tls: {mode: MUTUAL}}").len(), 2);
    assert_eq!(
        warnings("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}"),
        ["spec.trafficPolicy.tls.mode"]
    );
}

#[test]
fn a_gateway_server_needs_port_hosts_and_certificates() {
    let server = |text: &str| errors("Gateway", &format!("{{selector: {{a: b}}, servers: [{text}]}}"));
    assert_eq!(
        server("{port: {number: 0, name: p, protocol: HTTP}, hosts: ['*']}"),
        ["spec.servers[0].port.number"]
    );
    assert_eq!(
        server("{port: {number: 1, name: p, protocol: NOPE}, hosts: ['*']}"),
        ["spec.servers[0].port.protocol"]
    );
    assert_eq!(server("{port: {number: 1, name: p, protocol: HTTP}}"), ["spec.servers[0].hosts"]);
    assert_eq!(
        server("{port: {number: 1, name: p, protocol: HTTPS}, hosts: ['*']}"),
        ["spec.servers[0].tls"]
    );
    assert_eq!(
        server("{port: {number: 1, name: p, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE}}"),
        ["spec.servers[0].tls.serverCertificate", "spec.servers[0].tls.privateKey"]
    );
}

#[test]
fn a_service_entry_agrees_with_its_resolution() {
    assert_eq!(errors("ServiceEntry", "{}"), ["spec.hosts"]);
    assert_eq!(
        errors("ServiceEntry", "{hosts: [a.b], resolution: NONE, endpoints: [{address: 1.1.1.1}]}"),
        ["spec.endpoints"]
    );
    assert_eq!(
        errors("ServiceEntry", "{hosts: [a.b], addresses: [1.0.0.0/8], resolution: DNS}"),
        ["spec.addresses"]
    );
    assert_eq!(errors("ServiceEntry", "{hosts: ['*.b'], resolution: DNS}"), ["spec.hosts"]);
    assert_eq!(
        errors("ServiceEntry", "{hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}]}"),
        ["spec.endpoints[0].address"]
    );
}

#[test]
fn mesh_config_honours_warns_or_refuses_each_field() {
    let read = |text: &str| {
        let documents = dhow_yaml::parse(text, dhow_yaml::Dialect::Kubernetes).unwrap();
        MeshConfig::decode(documents[0].root.to_json())
    };
    let (config, warnings) = read("{connectTimeout: 3s, enableTracing: true}").unwrap();
    assert_eq!(config.connect_timeout.0.as_secs(), 3);
    assert_eq!(config.proxy_listen_port, 15001);
    assert_eq!(warnings.len(), 1);
    for (format, warned) in [("", 0), ("'{\"a\": \"%PROTOCOL%\"}'", 0), ("'%PROTOCOL%'", 1), ("'[1]'", 1)] {
        let text = format!("{{accessLogEncoding: JSON, accessLogFormat: {format}}}");
        assert_eq!(read(&text).unwrap().1.len(), warned, "{text}");
    }
    let error = read("{connectTimeOut: 3s}").unwrap_err().to_string();
    assert!(error.starts_with("connectTimeOut: unknown field"), "{error}");
    assert!(read("{proxyListenPort: 0}").is_err());
}

#[test]
fn durations_are_go_durations() {
    use crate::istio::GoDuration;
    let millis = |text: &str| GoDuration::parse(text).map(|value| value.0.as_millis());
    assert_eq!(millis("1h1m1.5s"), Ok(3_661_500));
    assert_eq!(millis("100ms"), Ok(100));
    assert_eq!(millis("0"), Ok(0));
    for bad in ["", "5", "5 s", "-1s", "1d", "s"] {
        assert!(millis(bad).is_err(), "{bad}");
    }
}
