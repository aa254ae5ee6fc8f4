//! Route tables: virtual hosts, their routes, and what both say about headers.

use serde_json::{Map, Value, json};

use super::super::dice::Dice;
use super::{header_rules, matchers, route_actions};

fn route(dice: &mut Dice, number: usize, clusters: &[&str]) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(format!("r{number}")));
    let condition = matchers::route(dice);
    let with_template = condition.get("path_match_policy").is_some();
    fields.insert("match".to_owned(), condition);
    match dice.below(100) {
        0..72 => fields.insert("route".to_owned(), route_actions::forward(dice, clusters, with_template)),
        72..88 => fields.insert("redirect".to_owned(), route_actions::redirect(dice, with_template)),
        _ => fields.insert("direct_response".to_owned(), route_actions::direct_response(dice)),
    };
    header_rules::rules(dice, "route", &mut fields);
    Value::Object(fields)
}

fn virtual_host(dice: &mut Dice, number: usize, domains: &[&str], clusters: &[&str]) -> Value {
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(format!("v{number}")));
    fields.insert("domains".to_owned(), json!(domains));
    let count = dice.pick(&[1, 2, 4, 6]);
    let mut routes: Vec<Value> = (0..count).map(|at| route(dice, number * 10 + at, clusters)).collect();
    if dice.chance(70) {
        routes.push(json!({ "name": "last", "match": { "prefix": "/" }, "route": { "cluster": "one" } }));
    }
    fields.insert("routes".to_owned(), json!(routes));
    dice.field(8, &mut fields, "require_tls", json!(["ALL", "EXTERNAL_ONLY"]));
    dice.field(10, &mut fields, "include_request_attempt_count", json!([true]));
    dice.field(10, &mut fields, "include_attempt_count_in_response", json!([true]));
    dice.made(
        10,
        &mut fields,
        "virtual_clusters",
        |dice| json!([{ "name": "vc", "headers": [matchers::header(dice)] }]),
    );
    let retries = json!([{ "retry_on": "5xx,reset", "num_retries": 1,
        "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.002s" } }]);
    dice.field(6, &mut fields, "retry_policy", retries);
    header_rules::rules(dice, "vhost", &mut fields);
    Value::Object(fields)
}

/// A route configuration whose routes lead to `clusters`.
pub fn route_configuration(dice: &mut Dice, clusters: &[&str]) -> Value {
    let mut domains = ["a.com", "*.a.com", "*.b.com", "x.b.com", "c.*", "*", "d", "a.com:8080", "127.0.0.1"];
    dice.shuffle(&mut domains);
    let mut left = domains.to_vec();
    let count = dice.pick(&[1, 2, 3]);
    let mut hosts = Vec::new();
    for number in 0..count {
        let size = dice.pick(&[1, 2, 3]);
        let mut own: Vec<&str> = left.drain(..size.min(left.len())).collect();
        // Most requests are for a.com, or for nobody in particular: they should usually get somewhere.
        for (wanted, at) in [("a.com", 0), ("*", count - 1)] {
            if number == at && left.contains(&wanted) && dice.chance(70) {
                left.retain(|domain| *domain != wanted);
                own.push(wanted);
            }
        }
        hosts.push(virtual_host(dice, number, &own, clusters));
    }
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!("rc"));
    fields.insert("virtual_hosts".to_owned(), json!(hosts));
    header_rules::rules(dice, "table", &mut fields);
    dice.field(20, &mut fields, "internal_only_headers", json!([["x-team"]]));
    dice.field(20, &mut fields, "most_specific_header_mutations_wins", json!([true]));
    dice.field(10, &mut fields, "ignore_port_in_host_matching", json!([true]));
    dice.field(10, &mut fields, "ignore_path_parameters_in_path_matching", json!([true]));
    Value::Object(fields)
}
