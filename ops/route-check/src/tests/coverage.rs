//! How much of a table tests have asked about.

use super::*;

const TABLE: &str = r#"
virtual_hosts:
- name: v
  domains: ["*"]
  routes:
  - match: {prefix: /split}
    route: {weighted_clusters: {clusters: [{name: a, weight: 50}, {name: b, weight: 50}]}}
  - {name: named, match: {path: /exact, headers: [{name: x}]}, route: {cluster: c}}
  - {match: {prefix: /r}, redirect: {host_redirect: other}}
  - {match: {prefix: /}, route: {cluster: d}}
"#;

fn report(list: &[String], flags: Args) -> Run {
    run(TABLE, &tests(list), flags)
}

#[test]
fn each_weighted_cluster_counts() {
    let a = test("a", "/split", ", random_value: 0", "cluster_name: a");
    let b = test("b", "/split", ", random_value: 50", "cluster_name: b");
    let run = report(&[a.clone(), a.clone()], Args::default());
    assert_eq!(run.out, "Current route coverage: 20%\n");
    let run = report(&[a, b, test("d", "/", "", "virtual_host_name: v")], Args::default());
    assert_eq!(run.out, "Current route coverage: 60%\n");
}

#[test]
fn only_what_was_expected_of_a_route_covers_it() {
    // Nothing is asked about the route that was found, or the question is about a route of the other kind.
    let list = [
        test("a", "/", "", "path_redirect: ''"),
        test("b", "/", "", "request_header_matches: [{name: ':path'}]"),
        test("c", "/r", "", "cluster_name: ''"),
    ];
    assert_eq!(report(&list, Args::default()).out, "Current route coverage: 0%\n");
}

#[test]
fn too_little_coverage_fails() {
    let one = [test("d", "/", "", "cluster_name: d")];
    let run = report(&one, Args { fail_under: 20.5, ..Args::default() });
    assert!(!run.passed);
    assert_eq!(run.out, "Current route coverage: 20%\n");
    assert_eq!(run.err, "Failed to meet coverage requirement: 20.5%\n");
    assert!(report(&one, Args { fail_under: 20.0, ..Args::default() }).passed);
}

#[test]
fn comprehensive_coverage_counts_properties_and_prints_matches() {
    let list = [
        test("d", "/", "", "cluster_name: d, virtual_host_name: v"),
        test("r", "/r", "", "path_redirect: 'http://other/r', code_redirect: 301"),
        test("a", "/split", "", "cluster_name: a"),
    ];
    let run = report(&list, Args { covall: true, ..Args::default() });
    // 2 of 5 properties, 2 of 2, and 1 of 5, of five routes.
    let expected = "Missing test for host: v, route: path: \"/exact\"\nheaders {\n  name: \"x\"\n}\n\n\
                    Current route coverage: 32%\n";
    assert_eq!(run.out, expected);
}

#[test]
fn detailed_coverage_prints_names() {
    let run =
        report(&[test("d", "/", "", "cluster_name: d")], Args { detailed_coverage: true, ..Args::default() });
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", run.out);
    // Routes without a name get one that is unique all the same.
    assert!(lines[0].starts_with("Missing test for host: v, route name: -"));
    assert!(lines[1].starts_with("Missing test for host: v, route name: named-"));
    assert_eq!(lines[3], "Current route coverage: 20%");
}

#[test]
fn routes_behind_a_matcher_count_too() {
    let table = r#"
virtual_hosts:
- name: v
  domains: ["*"]
  matcher:
    on_no_match:
      action:
        name: route
        typed_config:
          "@type": type.googleapis.com/envoy.config.route.v3.RouteList
          routes:
          - {match: {prefix: /a}, route: {cluster: a}}
          - {match: {prefix: /}, route: {cluster: b}}
"#;
    let run = run(table, &tests(&[test("t", "/a", "", "cluster_name: a")]), details());
    assert_eq!(run.out, "t\nCurrent route coverage: 50%\n", "{}", run.err);
}
