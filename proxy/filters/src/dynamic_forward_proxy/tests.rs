use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use dhow_stats::Store;

use crate::fixtures::configure;

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    let store = Store::new();
    let error = |yaml: &str| configure::<FilterConfig>(yaml, &store).expect_err(yaml).to_string();
    assert!(configure::<FilterConfig>("dns_cache_config: { name: one }", &store).is_ok());
    assert!(configure::<FilterConfig>("sub_cluster_config: {}", &store).is_ok());
    assert!(error("dns_cache_config: { name: one, preresolve_hostnames: [{ address: a, port_value: 1, resolver_name: b }] }")
        .contains("resolver_name"));
}
