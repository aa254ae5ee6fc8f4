//! The admin interface: Envoy's endpoints over a view of the server, [`AdminState`].
//! It must not know listeners, clusters or workers themselves: the server describes them.
//!
//! [`Admin::handle`] answers one request; who reads requests and sends answers is the server's business.

mod address_file;
mod clusters;
mod commands;
mod config_dump;
mod field_mask;
mod home;
mod init_dump;
mod listeners;
mod logging;
mod pretty;
mod profiling;
mod query;
mod recent_lookups;
mod reply;
mod runtime;
mod server_info;
mod state;
mod stats;
mod stats_page;
#[cfg(test)]
mod tests;

pub use address_file::write_address_file;
pub use commands::Admin;
pub use reply::{MakeBody, Reply, ReplyBody};
pub use state::{
    AdminState, ClusterStatus, ConfigPart, DrainRequest, HostStatus, ListenerStatus, LogLevel, OutlierStatus,
    RuntimeEntry, RuntimeValues, ServerState, Thresholds, UnreadyListener,
};
