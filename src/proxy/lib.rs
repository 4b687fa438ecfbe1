//! The data plane: one relay per interlay and core, without I/O, and the cores that move its bytes.
//!
//! * [`contract`]: what the cores ask of a protocol.
//! * [`redis`], [`postgres`]: the relays and their companions, one folder per protocol, sans-io. Each value lives on one core.
//! * [`cores`]: threads, listeners, connections, TLS; the only place that names monoio.
//!
//! A further protocol is one folder here, one in `wire`, one in `movers`, and the match arms the compiler then asks for.

pub mod contract;
pub mod cores;
pub mod postgres;
pub mod redis;

use crate::contract::{Relay, RelaySetup};
use base::model::{InterlayProtocol, ProtocolKind};

/// What a client of such an interlay may agree on inside TLS (ALPN); none where its protocol has no name.
#[must_use]
pub fn application_protocols(kind: ProtocolKind) -> &'static [&'static [u8]] {
    match kind {
        ProtocolKind::Redis => &[],
        // IANA's name; needed where TLS begins without an SSLRequest (protocol-flow, "SSL Session Encryption").
        ProtocolKind::Postgres => &[b"postgresql"],
    }
}

/// The relay of an interlay on one core.
#[must_use]
pub fn relay(setup: RelaySetup) -> Box<dyn Relay> {
    match &setup.spec.protocol {
        InterlayProtocol::Redis => Box::new(redis::relay::RedisRelay::new(setup)),
        InterlayProtocol::Postgres(postgres) => {
            let postgres = postgres.clone();
            Box::new(postgres::PostgresRelay::new(setup, postgres))
        }
    }
}
