use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use dhow_stats::Store;

use crate::fixtures::configure;

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    let store = Store::new();
    let error = |yaml: &str| configure::<FilterConfig>(yaml, &store).expect_err(yaml).to_string();
    assert!(configure::<FilterConfig>("dns_cache_config: { name: one }", &store).is_ok());
    assert!(error("sub_cluster_config: {}").starts_with("config.sub_cluster_config: "));
}
