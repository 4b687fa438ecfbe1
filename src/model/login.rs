//! How clients of a PostgreSQL interlay log in: the mode, and the secrets kept for them. Never a password unless the user's own
//! `auth_file` holds one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::endpoint::Secret;

/// Who checks a client's password, and with what Crossfade logs in to the server (docs/OPERATING.md, "PostgreSQL log-in").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Crossfade checks by SCRAM-SHA-256 against a verifier and logs in to the server with the ClientKey the proof reveals.
    Scram,
    /// The server checks: its questions and the client's answers pass through.
    Relay,
    /// Crossfade checks (SCRAM or md5, whatever it has); the server is logged in to with the endpoint's own user and password.
    Mapped,
    /// As `scram`, but users of whom only an md5 hash is known are asked for md5.
    Md5,
    /// Nobody is asked; the server is logged in to without a password, or with the plain or md5 secret of `auth_file`.
    Trust,
}

/// One user's line of an `auth_file`, or one answer of an `auth_query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredSecret {
    Plain(Secret),
    /// The 32 hex digits after "md5".
    Md5(Md5Hash),
    Scram(ScramVerifier),
}

/// md5(password || user) in lower-case hex.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash(pub [u8; 32]);

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (RFC 5803 as PostgreSQL writes it in pg_authid).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SCRAM-SHA-256$***")
    }
}

/// What a PostgreSQL interlay needs beside its listener. Crosses to every core.
#[derive(Debug, Clone)]
pub struct PostgresSpec {
    pub auth: AuthMode,
    /// By user name, from `auth_file`.
    pub users: Arc<BTreeMap<String, StoredSecret>>,
    /// Asked on the server, as the endpoint's user, for a user not in `auth_file`; `$1` is the user, the second column the secret.
    pub auth_query: Option<String>,
    /// Whether `replication=…` in a startup packet is let through.
    pub replication: AllowReplication,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowReplication {
    No,
    Yes,
}
