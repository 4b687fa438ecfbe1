//! The relays, one folder per protocol: what an interlay of that kind does with its clients' bytes, without I/O. Each lives on one core.
//!
//! A further protocol is one folder here, one in `protocol`, and the match arms the compiler then asks for.

pub mod postgres;
pub mod redis;

use crate::model::ProtocolKind;
use crate::relay::{Relay, RelaySetup};

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
    match setup.spec.kind {
        ProtocolKind::Redis => Box::new(redis::RedisRelay::new(setup)),
        ProtocolKind::Postgres => Box::new(postgres::PostgresRelay::new(setup)),
    }
}
