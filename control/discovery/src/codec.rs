//! xDS messages on tonic's streams: requests decoded, pushes encoded straight from the shared resources.

use dhow_xds::{Push, Request, Variant};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The codec of a stream of one variant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XdsCodec(pub(crate) Variant);

impl Codec for XdsCodec {
    type Encode = Push;
    type Decode = Request;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for XdsCodec {
    type Item = Push;
    type Error = Status;

    fn encode(&mut self, push: Push, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(push.encoded_len());
        push.encode(buffer);
        Ok(())
    }
}

impl Decoder for XdsCodec {
    type Item = Request;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Request>, Status> {
        let request = Request::decode(self.0, buffer);
        request
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("malformed discovery request: {error}")))
    }
}
