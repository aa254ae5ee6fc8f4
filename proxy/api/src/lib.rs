//! What a filter sees of the data plane: filter traits, the facts of a stream, local replies and the connection. It must
//! not know how connections are accepted, how hosts are chosen or how codecs work.

mod connection;
mod connection_objects;
mod connection_record;
mod connection_tls;
mod draining;
mod dynamic_metadata;
mod filter_state;
mod http_filter;
mod local_reply;
mod network;
mod stream_format;
mod stream_info;
mod stream_match;

pub use connection::{Connection, ConnectionInfo, DirectEnds};
pub use connection_objects::ConnectionObjects;
pub use connection_record::{AfterLog, CloseType, ConnectionRecord};
pub use connection_tls::ConnectionTls;
pub use draining::{Drain, DrainEvent, DrainState};
pub use dynamic_metadata::DynamicMetadata;
pub use filter_state::{FilterState, FilterStateEntry, FilterStateValue, Sharing};
pub use http_filter::{
    BodyPart, CheckDnsCache, Clusters, ConfigureFilter, ConfigureRoute, DataVerdict, FilterContext,
    FilterStream, HeadersVerdict, HostResolution, HttpFilter, HttpFilterDescriptor, HttpFilterFactory,
    Membership, NoClusters, Resumption, RouteFilterContext, StreamControl, TrailersVerdict, Watches,
};
pub use local_reply::LocalReply;
pub use network::{
    ConnectionHandler, LocalFuture, NetworkFilter, ReadFilter, ReadFilterFactory, ReadVerdict,
};
pub use stream_format::StreamFormat;
pub use stream_info::{Details, LogMoment, OverrideHost, Protocol, StreamInfo, UpstreamInfo};
