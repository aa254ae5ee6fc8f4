//! Defaults of the connection manager that the runtime may set where the configuration says nothing. Envoy reads them once, when
//! a listener is made.

use dhow_base::Rng;
use dhow_runtime_config::RuntimeValues;

use super::EscapedSlashes;

/// `max_request_headers_kb` by default, in KiB.
pub(super) fn max_head_kb(runtime: &dyn RuntimeValues) -> u32 {
    size(runtime, "envoy.reloadable_features.max_request_headers_size_kb", 60)
}

/// `max_headers_count` of requests by default.
pub(super) fn max_headers(runtime: &dyn RuntimeValues) -> u32 {
    size(runtime, "envoy.reloadable_features.max_request_headers_count", 100)
}

fn size(runtime: &dyn RuntimeValues, key: &str, default: u32) -> u32 {
    runtime.number(key).map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX))
}

/// `normalize_path` by default: a share, per cent, of the listeners that are made.
pub(super) fn normalize_path(runtime: &dyn RuntimeValues) -> bool {
    match runtime.number("http_connection_manager.normalize_path") {
        None | Some(0) => false,
        Some(100..) => true,
        Some(share) => Rng::from_entropy().next_u64() % 100 < share,
    }
}

/// `path_with_escaped_slashes_action` by default, by the number of its enumerator.
pub(super) fn escaped_slashes(runtime: &dyn RuntimeValues) -> EscapedSlashes {
    match runtime.number("http_connection_manager.path_with_escaped_slashes_action") {
        Some(2) => EscapedSlashes::Reject,
        Some(3) => EscapedSlashes::UnescapeAndRedirect,
        Some(4) => EscapedSlashes::UnescapeAndForward,
        _ => EscapedSlashes::Keep,
    }
}

/// Whether anything is done about escaped slashes, whatever the configuration says.
pub(super) fn escaped_slashes_enabled(runtime: &dyn RuntimeValues) -> bool {
    let share = runtime.fraction("http_connection_manager.path_with_escaped_slashes_action_enabled");
    share.is_none_or(|share| share.contains(Rng::from_entropy().next_u64()))
}

#[cfg(test)]
mod tests {
    use dhow_runtime_config::{Layer, NoRuntime, Snapshot};

    use super::*;

    fn runtime(values: &[(&str, &str)]) -> Snapshot {
        let mut layer = Layer::new("l");
        for (key, value) in values {
            layer.set(key, value);
        }
        Snapshot::new(vec![layer])
    }

    #[test]
    fn without_values_the_defaults_are_envoys() {
        assert_eq!((max_head_kb(&NoRuntime), max_headers(&NoRuntime)), (60, 100));
        assert!(!normalize_path(&NoRuntime));
        assert_eq!(escaped_slashes(&NoRuntime), EscapedSlashes::Keep);
        assert!(escaped_slashes_enabled(&NoRuntime));
    }

    #[test]
    fn values_replace_the_defaults() {
        let runtime = runtime(&[
            ("envoy.reloadable_features.max_request_headers_size_kb", "9999999999"),
            ("envoy.reloadable_features.max_request_headers_count", "7"),
            ("http_connection_manager.normalize_path", "100"),
            ("http_connection_manager.path_with_escaped_slashes_action", "3"),
            ("http_connection_manager.path_with_escaped_slashes_action_enabled", "0"),
        ]);
        assert_eq!((max_head_kb(&runtime), max_headers(&runtime)), (u32::MAX, 7));
        assert!(normalize_path(&runtime));
        assert_eq!(escaped_slashes(&runtime), EscapedSlashes::UnescapeAndRedirect);
        assert!(!escaped_slashes_enabled(&runtime));
    }
}
