//! The words for what did not come out as expected.

use super::*;

const TABLE: &str = r#"
virtual_hosts:
- name: v
  domains: ["*"]
  routes:
  - {match: {prefix: /r}, redirect: {host_redirect: other}}
  - match: {prefix: /}
    route: {cluster: c}
    response_headers_to_add: [{header: {key: x-size, value: "25"}}]
"#;

#[test]
fn a_difference_names_both_sides_and_the_property() {
    assert_eq!(
        failures(
            TABLE,
            "/p",
            "",
            "path_redirect: u, timeout: 1s, host_rewrite: g, path_rewrite: /q, virtual_host_name: w,
             virtual_cluster_name: vc, cluster_name: d"
        ),
        [
            "expected: [d], actual: [c], test type: cluster_name",
            "expected: [vc], actual: [], test type: virtual_cluster_name",
            "expected: [w], actual: [v], test type: virtual_host_name",
            "expected: [/q], actual: [/p], test type: path_rewrite",
            "expected: [g], actual: [h], test type: host_rewrite",
            "expected: [u], actual: [], test type: path_redirect",
            "expected: [1000], actual: [15000], test type: timeout",
        ]
    );
    assert_eq!(
        failures(TABLE, "/r", "", "path_redirect: x, code_redirect: 302"),
        [
            "expected: [x], actual: [http://other/r], test type: path_redirect",
            "expected: [302], actual: [301], test type: code_redirect"
        ]
    );
}

#[test]
fn a_header_that_does_not_match_is_shown_by_the_sort_of_matcher() {
    for (matcher, line) in [
        (
            "name: x-size, string_match: {exact: '1'}",
            "expected: [x-size: 1], actual: [x-size: 25], test type: response_header_matches.string_match.exact",
        ),
        (
            "name: x-size, string_match: {exact: '25'}, invert_match: true",
            "expected: [x-size: 25], actual: NOT [x-size: 25], test type: response_header_matches.string_match.exact",
        ),
        (
            "name: x-none, string_match: {exact: '1'}",
            "expected: [x-none: 1], actual: [x-none: NULL], test type: response_header_matches.string_match.exact",
        ),
        (
            "name: x-size, range_match: {start: 1, end: 2}",
            "actual: [x-size: 25], test type: response_header_matches.range_match",
        ),
        (
            "name: x-size, string_match: {safe_regex: {regex: a+}}",
            "actual: [x-size: 25], test type: response_header_matches.string_match.safe_regex",
        ),
        (
            "name: x-none, present_match: true",
            "expected: [has(x-none):true], actual: [has(x-none):false], test type: response_header_matches.present_match",
        ),
        (
            "name: x-size, present_match: true, invert_match: true",
            "expected: [has(x-size):false], actual: [has(x-size):true], test type: response_header_matches.present_match",
        ),
    ] {
        assert_eq!(failures(TABLE, "/", "", &format!("response_header_matches: [{{{matcher}}}]")), [line]);
    }
    assert_eq!(
        failures(
            TABLE,
            "/",
            "",
            "response_header_fields: [{key: x-size, value: a}], header_fields: [{key: ':path', value: b}]"
        ),
        [
            "expected: [b], actual: [/], test type: header_fields",
            "expected: [a], actual: [25], test type: response_header_fields"
        ]
    );
}

#[test]
fn flags_decide_what_is_printed() {
    let two = tests(&[test("good", "/", "", "cluster_name: c"), test("bad", "/", "", "cluster_name: d")]);
    let line = "expected: [d], actual: [c], test type: cluster_name";
    for (flags, out, err) in [
        (Args::default(), String::new(), String::new()),
        (details(), "good\n".to_owned(), format!("bad\n{line}\n")),
        (Args { only_show_failures: true, ..Args::default() }, String::new(), format!("bad\n{line}\n")),
        (Args { only_show_failures: true, ..details() }, String::new(), format!("bad\n{line}\n")),
    ] {
        let run = run(TABLE, &two, flags);
        assert!(!run.passed, "a failed test fails the run, whatever is printed");
        assert_eq!((run.out, run.err), (out, err));
    }
}

#[test]
fn files_that_cannot_be_used_are_explained() {
    let one = tests(&[test("t", "/", "", "cluster_name: c")]);
    let mut none = (Vec::new(), Vec::new());
    assert!(!check(&Args::default(), &mut none.0, &mut none.1).unwrap());
    assert_eq!(none.1, b"error: Both --config-path/c and --test-path/t are mandatory\n");
    for (table, tests, part) in [
        ("virtual_hosts: [{nome: v}]", one.as_str(), "nome"),
        (TABLE, "tests: []", "value must contain at least 1 item(s)"),
        (TABLE, "tests: [{test_name: t, input: {authority: h, path: /, method: GET}}]", "value is required"),
        (
            TABLE,
            "tests: [{test_name: t, input: {authority: h, path: /, method: GE}, validate: {}}]",
            "at least 3",
        ),
        ("virtual_hosts: [{name: v, domains: ['*', '*']}]", one.as_str(), "Only a single wildcard domain"),
    ] {
        let run = run(table, tests, details());
        assert!(!run.passed && run.err.contains(part), "{part}: {}", run.err);
    }
}

#[test]
fn disallowed_fields_need_permission() {
    let table = "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c, rate_limits: [{actions: [{dynamic_metadata: {descriptor_key: k, metadata_key: {key: ns, path: [{key: p}]}}}]}]}}]}]";
    let one = tests(&[test("t", "/", "", "cluster_name: c")]);
    let strict = run(table, &one, details());
    assert!(!strict.passed && strict.err.contains("deprecated"), "{}", strict.err);
    let lenient = run(table, &one, Args { disable_deprecation_check: true, ..details() });
    assert!(lenient.passed, "{}", lenient.err);
}
