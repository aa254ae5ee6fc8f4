//! The admin interface: Envoy's endpoints over a view of the server, [`AdminState`].
//! It must not know listeners, clusters or workers themselves: the server describes them.
//!
//! [`Admin::handle`] answers one request without a socket; [`serve`] puts it behind HTTP/1.1 and HTTP/2 on the main thread.

mod address_file;
mod clusters;
mod commands;
mod config_dump;
mod field_mask;
mod home;
mod listeners;
mod logging;
mod pretty;
mod query;
mod reply;
mod runtime;
mod serve;
mod server_info;
mod state;
mod stats;
#[cfg(test)]
mod tests;

pub use address_file::write_address_file;
pub use commands::Admin;
pub use reply::Reply;
pub use serve::serve;
pub use state::{
    AdminState, ClusterStatus, ConfigPart, DrainRequest, HostStatus, ListenerStatus, LogLevel, OutlierStatus,
    RuntimeEntry, RuntimeValues, ServerState, Thresholds,
};
