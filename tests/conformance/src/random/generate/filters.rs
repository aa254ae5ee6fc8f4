//! HTTP filters in front of the router.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;
use super::matchers;

fn filter(name: &str, kind: &str, settings: Value) -> Value {
    let mut config = json!({ "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}") });
    if let (Value::Object(config), Value::Object(settings)) = (&mut config, settings) {
        config.extend(settings);
    }
    json!({ "name": name, "typed_config": config })
}

fn permission(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => json!({ "any": true }),
        1 => json!({ "header": matchers::header(dice) }),
        2 => json!({ "url_path": { "path": matchers::string(dice) } }),
        3 => json!({ "not_rule": { "header": matchers::header(dice) } }),
        _ => {
            json!({ "or_rules": { "rules": [{ "header": matchers::header(dice) }, { "destination_port": 99 }] } })
        }
    }
}

fn principal(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => json!({ "any": true }),
        1 => json!({ "header": matchers::header(dice) }),
        2 => json!({ "remote_ip": { "address_prefix": "1.2.0.0", "prefix_len": 16 } }),
        3 => json!({ "not_id": { "header": matchers::header(dice) } }),
        _ => json!({ "direct_remote_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 } }),
    }
}

fn access_rules(dice: &mut Dice) -> Value {
    let policy = json!({ "permissions": [permission(dice)], "principals": [principal(dice)] });
    let rules = json!({ "action": dice.of(json!(["ALLOW", "DENY"])), "policies": { "p": policy } });
    let mut settings = Map::new();
    settings.insert("rules".to_owned(), rules);
    dice.made(20, &mut settings, "shadow_rules", |dice| {
        json!({ "policies": { "s": { "permissions": [permission(dice)], "principals": [principal(dice)] } } })
    });
    Value::Object(settings)
}

/// Some filters, and the router behind them.
pub fn chain(dice: &mut Dice) -> Value {
    let mut chain = Vec::new();
    if dice.chance(20) {
        chain.push(filter("cors", "cors.v3.Cors", json!({})));
    }
    if dice.chance(15) {
        let request = dice.of(json!([
            { "remove": "x-num" },
            { "append": { "header": { "key": "x-hm", "value": "%REQ(x-team)%" } } }
        ]));
        let response = json!([{ "append": { "header": { "key": "x-hm-r", "value": "%RESPONSE_CODE%" } } }]);
        let mutations =
            json!({ "mutations": { "request_mutations": [request], "response_mutations": response } });
        chain.push(filter("hm", "header_mutation.v3.HeaderMutation", mutations));
    }
    if dice.chance(15) {
        let rules = access_rules(dice);
        chain.push(filter("rbac", "rbac.v3.RBAC", rules));
    }
    if dice.chance(10) {
        chain.push(filter("buffer", "buffer.v3.Buffer", json!({ "max_request_bytes": 500 })));
    }
    if dice.chance(10) {
        let enabled = json!({ "filter_enabled": { "default_value": { "numerator": 100 } } });
        chain.push(filter("csrf", "csrf.v3.CsrfPolicy", enabled));
    }
    if dice.chance(10) {
        let abort = json!({ "abort": { "header_abort": {}, "percentage": { "numerator": 100 } } });
        chain.push(filter("fault", "fault.v3.HTTPFault", abort));
    }
    if dice.chance(10) {
        let settings = json!({ "emit_filter_state": true, "stats_for_all_methods": dice.chance(50) });
        chain.push(filter("grpc_stats", "grpc_stats.v3.FilterConfig", settings));
    }
    if dice.chance(10) {
        let found = json!({ "metadata_namespace": "envoy.lb", "key": "team" });
        let missing = json!({ "metadata_namespace": "envoy.lb", "key": "team", "value": "none" });
        let rule = json!({ "header": "x-team", "on_header_present": found, "on_header_missing": missing, "remove": dice.chance(50) });
        chain.push(filter("h2m", "header_to_metadata.v3.Config", json!({ "request_rules": [rule] })));
    }
    dice.shuffle(&mut chain);
    chain.push(router(dice));
    Value::Array(chain)
}

fn router(dice: &mut Dice) -> Value {
    let mut settings = Map::new();
    dice.field(15, &mut settings, "suppress_envoy_headers", json!([true]));
    let checked = json!([["x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms"]]);
    dice.field(10, &mut settings, "strict_check_headers", checked);
    dice.field(10, &mut settings, "respect_expected_rq_timeout", json!([true]));
    filter("router", "router.v3.Router", Value::Object(settings))
}
