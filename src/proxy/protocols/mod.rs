//! The one place of the data plane where protocols are listed: which relay and which companion an interlay has.
//!
//! A further protocol is a folder beside this one and the match arms that the compiler then asks for here.

pub mod messages;
#[cfg(test)]
pub mod samples;

use crate::contract::{Companion, KeptMemory, Relay, RelaySetup};
use crate::postgres::PostgresRelay;
use crate::redis::companion::RedisCompanion;
use crate::redis::relay::RedisRelay;
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
        InterlayProtocol::Redis(_) => Box::new(RedisRelay::new(setup)),
        InterlayProtocol::Postgres(postgres) => {
            let postgres = postgres.clone();
            Box::new(PostgresRelay::new(setup, postgres))
        }
    }
}

/// What one core keeps beside the relays of an interlay, for protocols that have such a thing. Made on `bus::companion_core` only.
#[must_use]
pub fn companion(setup: RelaySetup, kept: Box<dyn KeptMemory>) -> Option<Box<dyn Companion>> {
    match &setup.spec.protocol {
        InterlayProtocol::Redis(_) => Some(Box::new(RedisCompanion::new(setup, kept))),
        InterlayProtocol::Postgres(_) => None,
    }
}
