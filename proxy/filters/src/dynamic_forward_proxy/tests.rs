use dhow_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::FilterConfig;
use dhow_stats::Store;

use crate::fixtures::configure;

#[test]
fn the_settings_are_those_of_a_cache_or_of_clusters() {
    let store = Store::new();
    assert!(configure::<FilterConfig>("dns_cache_config: { name: one }", &store).is_ok());
    assert!(configure::<FilterConfig>("sub_cluster_config: {}", &store).is_ok());
    assert!(configure::<FilterConfig>("{}", &store).is_ok());
}
