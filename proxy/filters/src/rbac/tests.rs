//! What the filter does to single streams.
