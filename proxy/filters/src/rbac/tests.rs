//! What the filter does to single streams.

use dhow_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use dhow_proxy_api::HeadersVerdict;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, stat, summary};

const RULES: &str = "{rules: {policies: {'the readers': {permissions: [{url_path: {path: {prefix: /open}}}], \
    principals: [{not_id: {header: {name: x-blocked, present_match: true}}}]}}}}";

#[test]
fn what_no_policy_allows_is_refused() {
    let store = Store::new();
    let factory = configure::<Rbac>(RULES, &store).unwrap();
    for (path, line, expected) in [
        ("/open/a", ("x-a", "1"), "continue"),
        ("/open/a", ("x-blocked", "1"), "403 rbac_access_denied_matched_policy[none]"),
        ("/closed", ("x-a", "1"), "403 rbac_access_denied_matched_policy[none]"),
    ] {
        let mut stream = Stream::new(0);
        let mut filter = stream.create(&*factory).unwrap();
        let verdict = stream.decode(&mut *filter, &mut request(path, &[line]));
        assert_eq!(summary(&verdict), expected);
        if let HeadersVerdict::LocalReply(reply) = verdict {
            assert_eq!(reply.body.as_ref(), b"RBAC: access denied");
            assert!(reply.flags.is_empty());
        }
        assert!(stream.info.dynamic_metadata.get("envoy.filters.http.rbac").is_some());
    }
    assert_eq!(stat(&store, "http.test.rbac.allowed"), Some(1));
    assert_eq!(stat(&store, "http.test.rbac.denied"), Some(2));
}

#[test]
fn a_denying_policy_is_named_without_blanks() {
    let yaml = RULES.replace("rules: {policies", "rules: {action: DENY, policies");
    let factory = configure::<Rbac>(&yaml, &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    let verdict = stream.decode(&mut *filter, &mut request("/open", &[]));
    assert_eq!(summary(&verdict), "403 rbac_access_denied_matched_policy[the_readers]");
}

#[test]
fn conditions_have_to_be_true_as_well() {
    let policy = |condition: &str| {
        format!(
            "{{rules: {{policies: {{p: {{permissions: [{{any: true}}], principals: [{{any: true}}], condition: {condition}}}}}}}}}"
        )
    };
    let yaml = policy(
        "{call_expr: {function: _==_, args: [{select_expr: {operand: {ident_expr: {name: request}}, field: path}}, {const_expr: {string_value: /open}}]}}",
    );
    let factory = configure::<Rbac>(&yaml, &Store::new()).unwrap();
    for (path, expected) in [("/open", "continue"), ("/other", "403 rbac_access_denied_matched_policy[none]")]
    {
        let mut stream = Stream::new(0);
        let mut filter = stream.create(&*factory).unwrap();
        let verdict = stream.decode(&mut *filter, &mut request(path, &[]));
        assert_eq!(summary(&verdict), expected, "{path}");
    }
    let error = configure::<Rbac>(&policy("{}"), &Store::new()).unwrap_err();
    assert!(error.path.as_str().ends_with("condition"), "{error}");
}
