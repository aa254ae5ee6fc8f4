//! What a filter sees of the data plane: filter traits, the facts of a stream, local replies and the connection. It must
//! not know how connections are accepted, how hosts are chosen or how codecs work.

mod connection;
mod http_filter;
mod local_reply;
mod network;
mod stream_format;
mod stream_info;

pub use connection::{Connection, ConnectionInfo};
pub use http_filter::{
    ConfigureFilter, FilterStream, HeadersVerdict, HttpFilter, HttpFilterDescriptor, HttpFilterFactory,
    Resumption,
};
pub use local_reply::LocalReply;
pub use network::{ConnectionHandler, LocalFuture, NetworkFilter};
pub use stream_format::StreamFormat;
pub use stream_info::{Details, Protocol, StreamInfo, UpstreamInfo};
