//! Redis and Valkey in the data plane, without I/O: the relay of an interlay, and beside it, in dual operation, the lane.

pub mod companion;
pub mod lane;
pub mod relay;
