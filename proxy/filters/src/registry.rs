//! Every filter of this crate, one line each. Written by `cargo xtask filters` from the folders present.

use dhow_proxy_api::HttpFilterDescriptor;

/// The descriptor of each filter, in alphabetical order of their folders.
pub fn descriptors() -> Vec<HttpFilterDescriptor> {
    vec![
        crate::buffer::descriptor(),
        crate::cors::descriptor(),
        crate::csrf::descriptor(),
        crate::dynamic_forward_proxy::descriptor(),
        crate::fault::descriptor(),
        crate::grpc_stats::descriptor(),
        crate::header_mutation::descriptor(),
        crate::header_to_metadata::descriptor(),
        crate::health_check::descriptor(),
        crate::local_ratelimit::descriptor(),
        crate::match_delegate::descriptor(),
        crate::rbac::descriptor(),
        crate::set_filter_state::descriptor(),
        crate::set_metadata::descriptor(),
        crate::stateful_session::descriptor(),
    ]
}
