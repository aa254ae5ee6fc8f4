//! Compression of heads (HPACK, RFC 7541). The dynamic tables of both directions keep the bytes of their entries in one piece of memory
//! each, so that neither side allocates for an entry.

mod decode;
mod encode;
mod huffman;
mod static_table;
mod table;

#[cfg(test)]
mod tests;

pub(super) use decode::{Decoder, HpackError};
pub(super) use encode::{Encoder, append_literal};

/// Size of a dynamic table before anybody said otherwise.
pub(super) const DEFAULT_TABLE_SIZE: usize = 4096;
