//! What the filter does to single streams.

use dhow_proto::envoy::extensions::common::matching::v3::ExtensionWithMatcher;
use dhow_stats::Store;

use crate::fixtures::{Stream, configure, request, summary};

#[test]
fn the_filter_inside_is_skipped_where_the_tree_says_so() {
    let yaml = "extension_config: {name: inner, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, \
        abort: {http_status: 418, percentage: {numerator: 100}}}}
xds_matcher: {matcher_tree: {input: {name: i, typed_config: {'@type': \
        type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x-skip}}, \
        exact_match_map: {map: {skip: {action: {name: a, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}}}}}}}";
    let factory = configure::<ExtensionWithMatcher>(yaml, &Store::new()).unwrap();
    for (value, expected) in [("skip", "continue"), ("other", "418 fault_filter_abort")] {
        let mut stream = Stream::new(0);
        let mut filter = stream.create(&*factory).unwrap();
        let verdict = stream.decode(&mut *filter, &mut request("/", &[("x-skip", value)]));
        assert_eq!(summary(&verdict), expected);
    }
}
