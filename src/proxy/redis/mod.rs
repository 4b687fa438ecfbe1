//! Redis and Valkey in the data plane, without I/O: the relay of an interlay, and the lane of dual operation beside it.

pub mod lane;
pub mod relay;
