//! Requests and responses of either variant, to and from bytes.

use bytes::Buf;
use prost::{DecodeError, Message};

use crate::Variant;
use crate::messages::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryRequest),
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
}

impl Request {
    /// Reads one message of a stream of `variant`.
    pub fn decode(variant: Variant, bytes: impl Buf) -> Result<Self, DecodeError> {
        Ok(match variant {
            Variant::StateOfTheWorld => Self::StateOfTheWorld(DiscoveryRequest::decode(bytes)?),
            Variant::Delta => Self::Delta(DeltaDiscoveryRequest::decode(bytes)?),
        })
    }

    /// The message as bytes, without gRPC's framing.
    pub fn encode_to_vec(&self) -> Vec<u8> {
        match self {
            Self::StateOfTheWorld(request) => request.encode_to_vec(),
            Self::Delta(request) => request.encode_to_vec(),
        }
    }

    /// The resource type it is about; empty on single-type streams of clients that leave it out.
    pub fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(request) => &request.type_url,
            Self::Delta(request) => &request.type_url,
        }
    }
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// On a state-of-the-world stream.
    StateOfTheWorld(DiscoveryResponse),
    /// On a delta stream.
    Delta(DeltaDiscoveryResponse),
}

impl Response {
    /// Reads one message of a stream of `variant`.
    pub fn decode(variant: Variant, bytes: impl Buf) -> Result<Self, DecodeError> {
        Ok(match variant {
            Variant::StateOfTheWorld => Self::StateOfTheWorld(DiscoveryResponse::decode(bytes)?),
            Variant::Delta => Self::Delta(DeltaDiscoveryResponse::decode(bytes)?),
        })
    }
}
