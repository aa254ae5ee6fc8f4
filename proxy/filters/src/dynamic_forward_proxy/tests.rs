use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use dhow_stats::Store;

use crate::fixtures::configure;

#[test]
fn a_cache_with_a_name_is_needed() {
    let store = Store::new();
    let error = |yaml: &str| configure::<FilterConfig>(yaml, &store).expect_err(yaml).to_string();
    assert!(configure::<FilterConfig>("dns_cache_config: { name: one }", &store).is_ok());
    assert_eq!(
        error("dns_cache_config: {}"),
        "config.dns_cache_config.name: value length must be at least 1 characters"
    );
    assert_eq!(error("{}"), "config.dns_cache_config: is required");
    assert!(error("sub_cluster_config: {}").starts_with("config.sub_cluster_config: "));
    assert!(
        error("{ dns_cache_config: { name: a }, save_upstream_address: true }")
            .contains("save_upstream_address")
    );
}
