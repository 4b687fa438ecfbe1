//! What is configured about TLS, on both sides of an interlay. Plain data: files are named here and read by the `tls` and `proxy` crates.

use std::path::PathBuf;

/// How an interlay offers TLS to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM, the server's certificate first.
    pub cert_file: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    pub require: RequireTls,
}

/// Whether a client without TLS is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTls {
    No,
    Yes,
}

/// How far a server is trusted; the names and meanings are libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    Disable,
    /// TLS if the server offers it; nothing is verified.
    Prefer,
    /// TLS or no connection; nothing is verified.
    Require,
    /// The certificate is signed by a known authority.
    VerifyCa,
    /// The certificate is signed by a known authority and names the host.
    VerifyFull,
}

/// How connections to a server are protected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientTls {
    pub mode: TlsMode,
    /// PEM with the authorities to trust; needed for `verify-ca` and `verify-full`.
    pub root_file: Option<PathBuf>,
}

impl ClientTls {
    #[must_use]
    pub fn disabled() -> Self {
        Self { mode: TlsMode::Disable, root_file: None }
    }
}
