//! The proxy's xDS client, over gRPC and from files; it must not know what a resource means or how it is put in force.

mod ads;
mod file;
mod shared;
mod sink;
mod subscriptions;
mod watch;

pub use ads::{AdsClient, AdsConfig, AdsError, InterestChanged};
pub use dhow_xds::{ClientConfig, Interest, NamedResource, Update, Variant, type_url};
pub use file::{FileError, FileSubscription, PathSource};
pub use sink::{ByteStream, ConfigSink, Connecting, Connector, Refusal, SubscriptionObserver};
pub use watch::{MoveWatch, WatchTarget};
