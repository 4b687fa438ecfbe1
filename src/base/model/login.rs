//! How clients of a PostgreSQL interlay log in: the mode, and the secrets kept for them. Contains passwords only if the user's own
//! `auth_file` does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::endpoint::Secret;
use super::limits;

/// Who checks a client's password, and which secret Crossfade uses to log in to the server (docs/OPERATING.md, "PostgreSQL log-in").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Crossfade checks by SCRAM-SHA-256 against a verifier and logs in to the server with the ClientKey the proof reveals.
    Scram,
    /// The server checks: its challenges and the client's responses pass through.
    Relay,
    /// Crossfade checks (SCRAM or md5, depending on the stored secret) and logs in to the server with the endpoint's own user and password.
    Mapped,
    /// As `scram`, but users with only an md5 hash are checked by md5.
    Md5,
    /// No client is checked; Crossfade logs in to the server without a password, or with the plain or md5 secret of `auth_file`.
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
    /// Reads a secret as pg_authid.rolpassword and `auth_file` hold it: `SCRAM-SHA-256$…`, "md5" and 32 lower-case hex digits, and
    /// anything else as the password itself (PostgreSQL's `get_password_type`, src/backend/libpq/crypt.c).
    ///
    /// # Errors
    /// What is wrong with a text that is empty, or begins like a SCRAM verifier but is not one; never the text itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the secret is empty: a user without a password cannot log in this way".to_owned());
        }
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            return ScramVerifier::parse(rest).map(Self::Scram);
        }
        let digits = text.strip_prefix("md5").and_then(|digits| <[u8; 32]>::try_from(digits.as_bytes()).ok());
        match digits {
            Some(digits) if digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self::Md5(Md5Hash(digits)))
            }
            _ => Ok(Self::Plain(Secret::new(text.as_bytes()))),
        }
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
    /// Reads `<iterations>:<salt>$<StoredKey>:<ServerKey>`, the three of them in base64.
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>";
        let (head, keys) = text.split_once('$').ok_or_else(|| format!("a SCRAM verifier has the form {FORM}"))?;
        let (iterations, salt) =
            head.split_once(':').ok_or_else(|| format!("no salt in a SCRAM verifier; its form is {FORM}"))?;
        let (stored, server) =
            keys.split_once(':').ok_or_else(|| format!("no ServerKey in a SCRAM verifier; its form is {FORM}"))?;
        let digits = !iterations.is_empty() && iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations =
            iterations.parse::<u32>().ok().filter(|n| digits && (1..=limits::SCRAM_ITERATIONS_MAX).contains(n));
        let iterations = iterations.ok_or_else(|| {
            format!("the iterations of a SCRAM verifier are a number from 1 to {}", limits::SCRAM_ITERATIONS_MAX)
        })?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| (1..=limits::SCRAM_SALT_BYTES_MAX).contains(&salt.len()));
        let salt = salt.ok_or("the salt of a SCRAM verifier is not base64 of a reasonable length")?;
        let key = |name: &str, text: &str| {
            let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            bytes.ok_or_else(|| format!("the {name} of a SCRAM verifier is not 32 bytes in base64"))
        };
        Ok(Self { iterations, salt, stored_key: key("StoredKey", stored)?, server_key: key("ServerKey", server)? })
    }
}

impl fmt::Display for ScramVerifier {
    /// The verifier as pg_authid holds it. It is a secret, for `ALTER ROLE … PASSWORD` only; it must not be shown or logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored) = (STANDARD.encode(&self.salt), STANDARD.encode(self.stored_key));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{}", self.iterations, STANDARD.encode(self.server_key))
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
    /// The query run on the server, as the endpoint's user, for a user not in `auth_file`; `$1` is the user, the second column the secret.
    pub auth_query: Option<String>,
    /// Whether a startup packet with `replication=…` is accepted.
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

    // Of the password "pencil" with the salt of RFC 7677.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                          WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn kinds_of_secrets_are_distinguished() {
        let StoredSecret::Scram(verifier) = StoredSecret::parse(PENCIL).expect("good") else { panic!("not SCRAM") };
        assert_eq!((verifier.iterations, verifier.salt.len()), (4096, 16));
        assert_eq!(verifier.to_string(), PENCIL);
        assert_eq!(format!("{verifier:?}"), "SCRAM-SHA-256$***");
        let md5 = "md55a231fcdb710d73268c4f44283487ba2";
        assert!(matches!(StoredSecret::parse(md5), Ok(StoredSecret::Md5(hash)) if hash.0 == md5.as_bytes()[3..]));
        for plain in [
            "secret",
            "md5",
            "md5zz231fcdb710d73268c4f44283487ba2",
            "md55A231FCDB710D73268C4F44283487BA2",
            "scram-sha-256$",
        ] {
            assert_eq!(StoredSecret::parse(plain), Ok(StoredSecret::Plain(Secret::new(plain.as_bytes()))), "{plain}");
        }
    }

    #[test]
    fn a_malformed_verifier_is_refused_with_words_that_do_not_repeat_it() {
        for (bad, word) in [
            ("SCRAM-SHA-256$", "form"),
            ("SCRAM-SHA-256$4096$a:b", "salt"),
            ("SCRAM-SHA-256$4096:QQ==$a", "ServerKey"),
            ("SCRAM-SHA-256$0:QQ==$a:b", "iterations"),
            ("SCRAM-SHA-256$+1:QQ==$a:b", "iterations"),
            ("SCRAM-SHA-256$1000001:QQ==$a:b", "iterations"),
            ("SCRAM-SHA-256$4096:?$a:b", "salt"),
            ("SCRAM-SHA-256$4096:$a:b", "salt"),
            ("SCRAM-SHA-256$4096:QQ==$QQ==:QQ==", "StoredKey"),
        ] {
            let why = StoredSecret::parse(bad).expect_err(bad);
            assert!(why.contains(word), "{bad}: {why}");
            assert!(!why.contains("QQ=="), "{why}");
        }
    }
}
