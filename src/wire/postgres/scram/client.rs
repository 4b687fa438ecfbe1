//! The side of a SCRAM log-in that proves itself to a server, with a password or with the key of an earlier log-in. Pure; lives on one
//! core, in a log-in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::attributes::{attribute, nonce_is_good};
use super::keys::{ClientKey, Nonce, hmac, keys, salted_password, sha256, xor};
use base::model::limits;
use base::model::login::ScramVerifier;

/// What the client's side proves itself with.
pub(super) enum Proves {
    Password(Vec<u8>),
    Key(ClientKey, ScramVerifier),
}

impl Drop for Proves {
    fn drop(&mut self) {
        if let Self::Password(bytes) = self {
            bytes.fill(0);
            std::hint::black_box(bytes);
        }
    }
}

/// The side that logs in. One per log-in.
pub struct ScramClient {
    proves: Proves,
    pub(super) nonce: String,
    /// After the server's first message.
    server_signature: Option<[u8; 32]>,
}

impl std::fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramClient(***)")
    }
}

impl ScramClient {
    /// Proves itself with a password. `nonce` must be random and used once.
    #[must_use]
    pub fn with_password(password: &[u8], nonce: Nonce) -> Self {
        Self::new(Proves::Password(password.to_vec()), STANDARD.encode(nonce))
    }

    /// Proves itself with the key of an earlier handshake against `verifier`. `nonce` must be random and used once.
    #[must_use]
    pub fn with_key(client_key: ClientKey, verifier: ScramVerifier, nonce: Nonce) -> Self {
        Self::new(Proves::Key(client_key, verifier), STANDARD.encode(nonce))
    }

    pub(super) fn new(proves: Proves, nonce: String) -> Self {
        Self { proves, nonce, server_signature: None }
    }

    /// The data of the SASLInitialResponse. The user's name is left empty, as libpq does, because the startup packet has it.
    #[must_use]
    pub fn client_first(&self) -> Vec<u8> {
        format!("n,,n=,r={}", self.nonce).into_bytes()
    }

    /// Takes the data of the AuthenticationSASLContinue and returns that of the SASLResponse. With a password it costs as many HMACs as
    /// the server asks for, at most [`limits::SCRAM_ITERATIONS_MAX`].
    ///
    /// # Errors
    /// What is wrong with the server's message, or that its verifier is another one.
    pub fn client_final(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let bare = format!("n=,r={}", self.nonce);
        self.prove(&bare, server_first)
    }

    pub(super) fn prove(&mut self, client_first_bare: &str, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let text = std::str::from_utf8(server_first).map_err(|_| "the server's SCRAM message is not UTF-8")?;
        let mut parts = text.split(',');
        let nonce = attribute(parts.next(), 'r').ok_or("the server's SCRAM message has no nonce")?;
        if !nonce.strip_prefix(self.nonce.as_str()).is_some_and(nonce_is_good) {
            return Err("the server's SCRAM nonce does not continue ours".to_owned());
        }
        let salt = attribute(parts.next(), 's').and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.filter(|salt| (1..=limits::SCRAM_SALT_BYTES_MAX).contains(&salt.len()));
        let salt = salt.ok_or("the server's SCRAM message has no usable salt")?;
        let iterations = attribute(parts.next(), 'i').and_then(|number| number.parse::<u32>().ok());
        let iterations = iterations
            .filter(|number| (1..=limits::SCRAM_ITERATIONS_MAX).contains(number))
            .ok_or("the server's SCRAM message asks for no number of iterations, or for too many")?;
        let (client_key, stored_key, server_key) = match &self.proves {
            Proves::Password(password) => {
                let (client_key, server_key) = keys(&salted_password(password, &salt, iterations));
                let stored_key = sha256(&client_key.0);
                (client_key, stored_key, server_key)
            }
            Proves::Key(_, verifier) if verifier.salt != salt || verifier.iterations != iterations => {
                let why = "the server holds another verifier for this user: copy the role with its verifier";
                return Err(why.to_owned());
            }
            Proves::Key(key, verifier) => (key.clone(), verifier.stored_key, verifier.server_key),
        };
        // "biws" is base64 of "n,,".
        let unproven = format!("c=biws,r={nonce}");
        let message: &[&[u8]] = &[client_first_bare.as_bytes(), b",", server_first, b",", unproven.as_bytes()];
        let proof = STANDARD.encode(xor(&client_key.0, &hmac(&stored_key, message)));
        self.server_signature = Some(hmac(&server_key, message));
        Ok(format!("{unproven},p={proof}").into_bytes())
    }

    /// Takes the data of the AuthenticationSASLFinal: only a server that holds the verifier can have made it.
    ///
    /// # Errors
    /// The server's own error, or that its signature is not the right one.
    pub fn check_server_final(&self, data: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(data).map_err(|_| "the server's SCRAM message is not UTF-8")?;
        if let Some(error) = attribute(Some(text), 'e') {
            return Err(format!("the server refused the SCRAM exchange: {}", error.escape_debug()));
        }
        let signature = attribute(text.split(',').next(), 'v').and_then(|text| STANDARD.decode(text).ok());
        match (signature, &self.server_signature) {
            (Some(theirs), Some(ours)) if bool::from(theirs.ct_eq(ours)) => Ok(()),
            _ => Err("the server's SCRAM signature is wrong: it does not hold this user's verifier".to_owned()),
        }
    }
}
