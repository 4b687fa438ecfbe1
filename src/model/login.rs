//! How clients of a PostgreSQL interlay log in: the mode, and the secrets kept for them. Never a password unless the user's own
//! `auth_file` holds one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

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

impl StoredSecret {
    /// Reads what `pg_authid.rolpassword` or an `auth_file` holds; what is neither a SCRAM verifier nor an md5 hash is a plain password.
    ///
    /// # Errors
    /// A sentence that never shows the secret: it is empty, or begins as a verifier and is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the secret is empty: a user without a password cannot log in this way".to_owned());
        }
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            let verifier = ScramVerifier::parse(rest).ok_or_else(|| {
                "the secret begins as a SCRAM verifier but is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"
                    .to_owned()
            })?;
            return Ok(Self::Scram(verifier));
        }
        if let Some(hex) = text.strip_prefix("md5")
            && let Ok(mut digits) = <[u8; 32]>::try_from(hex.as_bytes())
            && digits.iter().all(u8::is_ascii_hexdigit)
        {
            digits.make_ascii_lowercase();
            return Ok(Self::Md5(Md5Hash(digits)));
        }
        Ok(Self::Plain(Secret::new(text.as_bytes())))
    }
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

impl ScramVerifier {
    /// `<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in base64.
    fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations = iterations.parse::<u32>().ok().filter(|iterations| *iterations > 0)?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let key = |text: &str| <[u8; 32]>::try_from(BASE64.decode(text).ok()?).ok();
        Some(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_by_its_form_and_never_shown() {
        let key = BASE64.encode([7; 32]);
        let scram = format!("SCRAM-SHA-256$4096:{}$ {key}:{key}", BASE64.encode([1; 16])).replace(' ', "");
        assert!(
            matches!(StoredSecret::parse(&scram), Ok(StoredSecret::Scram(v)) if v.iterations == 4096 && v.stored_key == [7; 32])
        );
        let md5 = format!("md5{}", "0A".repeat(16));
        assert!(matches!(StoredSecret::parse(&md5), Ok(StoredSecret::Md5(hash)) if &hash.0[..2] == b"0a"));
        assert_eq!(StoredSecret::parse("md5sum"), Ok(StoredSecret::Plain(Secret::new(b"md5sum"))));
        for bad in ["", "SCRAM-SHA-256$", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:hunter2$x:y"] {
            let error = StoredSecret::parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", StoredSecret::parse(&scram)).contains(&key));
    }
}
