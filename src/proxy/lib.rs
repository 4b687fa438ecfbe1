//! The data plane: one relay per interlay and core, without I/O, and the cores that move its bytes.
//!
//! * [`contract`]: what the cores ask of a protocol.
//! * [`redis`], [`postgres`]: the relays and their companions, one folder per protocol, sans-io. Each value lives on one core.
//! * [`protocols`]: which interlay gets which relay and companion; the only place where protocols are listed.
//! * [`cores`]: threads, listeners, connections, TLS; the only place that names monoio.

pub mod contract;
pub mod cores;
pub mod postgres;
pub mod protocols;
pub mod redis;
