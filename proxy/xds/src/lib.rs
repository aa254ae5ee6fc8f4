//! The proxy's xDS client, over gRPC and from files; it must not know what a resource means or how it is put in force.

mod sink;

pub use dhow_xds::{Interest, NamedResource, Update, Variant, type_url};
pub use sink::{ByteStream, ConfigSink, Connecting, Connector, Refusal, SubscriptionObserver};
