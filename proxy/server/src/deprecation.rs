//! Which deprecated fields may be used: the runtime decides.

use dhow_runtime_config::with_current;

/// Texts of which one must be in a configuration for the runtime to have a say in how that configuration is read.
const KEYS: [&str; 3] = ["envoy.features", "envoy.deprecated_features", "disk_layer"];

/// Whether a deprecated field may be used, by its full name; `disallowed` ones only when the runtime says so.
pub(crate) fn may_use(field: &str, disallowed: bool) -> bool {
    with_current(|runtime| {
        let all_fail = runtime.get_bool("envoy.features.fail_on_any_deprecated_feature", false);
        let all_allowed = runtime.get_bool("envoy.features.enable_all_deprecated_features", false);
        let by_default = !disallowed || all_allowed;
        !all_fail && runtime.get_bool(&format!("envoy.deprecated_features:{field}"), by_default)
    })
}

/// Whether the runtime in a configuration may decide how that configuration itself is read, so that the runtime has to be read first.
pub(crate) fn depends_on_runtime(sources: &[&[u8]]) -> bool {
    let mentions =
        |source: &[u8], key: &str| source.windows(key.len()).any(|window| window == key.as_bytes());
    sources.iter().any(|source| {
        // Keys of a layer may be nested, so that only the first word is sure to be there as it is.
        mentions(source, "layered_runtime")
            && (KEYS.iter().any(|key| mentions(source, key)) || mentions(source, "envoy:"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_runtime_only_disallowed_fields_are_refused() {
        assert!(may_use("envoy.X.y", false));
        assert!(!may_use("envoy.X.y", true));
    }

    #[test]
    fn the_runtime_is_read_first_only_where_it_matters() {
        let plain: &[u8] = b"layered_runtime: {layers: [{name: a, static_layer: {x: 1}}]}";
        let deciding: &[u8] = b"layered_runtime: {layers: [{name: a, static_layer: {envoy.features.x: 1}}]}";
        assert!(!depends_on_runtime(&[plain, b"envoy.features"]));
        assert!(depends_on_runtime(&[plain, deciding]));
    }
}
