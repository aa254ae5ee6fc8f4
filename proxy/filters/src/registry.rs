//! Every filter of this crate, one line each. Written by `cargo xtask filters` from the folders present.

use dhow_proxy_api::HttpFilterDescriptor;

/// The descriptor of each filter, in alphabetical order of their folders.
pub fn descriptors() -> Vec<HttpFilterDescriptor> {
    vec![
        crate::cors::descriptor(),
        crate::fault::descriptor(),
        crate::header_mutation::descriptor(),
        crate::local_ratelimit::descriptor(),
        crate::rbac::descriptor(),
    ]
}
