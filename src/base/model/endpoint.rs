//! One database server Crossfade can connect to. How its URL is read: `endpoint_url`.

use std::fmt;
use std::path::PathBuf;

use super::ids::EndpointName;
use super::kind::ProtocolKind;
use super::tls::ClientTls;

/// A password. Never printed: its `Debug` and `Display` show stars.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Vec<u8>);

impl Secret {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The plain bytes, for use in a handshake only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a login needs. `user` is absent for the server's default user (Redis only). For PostgreSQL an empty password means no
/// password: the server must accept the user without one (trust, peer, a certificate).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Secret,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: EndpointName,
    pub protocol: EndpointProtocol,
    pub address: Address,
    pub credentials: Option<Credentials>,
    pub tls: ClientTls,
}

/// What a server speaks, with what only a server of that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointProtocol {
    Redis {
        /// The logical database that Crossfade's own connections select, 0 to 15.
        database: u32,
    },
    Postgres {
        /// The database of Crossfade's own connections; `None` = the database named like the user, as in libpq.
        dbname: Option<String>,
    },
}

impl EndpointProtocol {
    #[must_use]
    pub fn kind(&self) -> ProtocolKind {
        match self {
            Self::Redis { .. } => ProtocolKind::Redis,
            Self::Postgres { .. } => ProtocolKind::Postgres,
        }
    }
}

impl Endpoint {
    #[must_use]
    pub fn kind(&self) -> ProtocolKind {
        self.protocol.kind()
    }
}
