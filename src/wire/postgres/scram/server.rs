//! The side of a SCRAM log-in that checks the client's proof. Pure; lives on one core, in a log-in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::attributes::{attribute, nonce_is_good};
use super::keys::{ClientKey, Nonce, hmac, sha256, xor};
use base::model::login::ScramVerifier;

/// Where the client's TLS ends: the reason given when channel binding is refused depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnds {
    /// At Crossfade: the client cannot be bound to the server's certificate.
    AtCrossfade,
    /// Nowhere: the connection has no TLS.
    Nowhere,
}

/// Why a log-in failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// The client's message breaks the protocol; the text may be sent to the client.
    Malformed(String),
    /// The password is wrong or the user unknown; the client is not told which.
    Wrong,
}

fn malformed<T>(why: impl Into<String>) -> Result<T, AuthFailure> {
    Err(AuthFailure::Malformed(why.into()))
}

/// The side of a log-in that checks. One per log-in, on one core.
#[derive(Debug)]
pub struct ScramServer {
    verifier: ScramVerifier,
    nonce: Nonce,
    channel: TlsEnds,
    /// After the first message.
    pub(super) begun: Option<Begun>,
}

/// What was agreed in the first two messages.
#[derive(Debug)]
pub(super) struct Begun {
    /// "n,," or "y,,".
    pub(super) gs2_header: String,
    pub(super) client_first_bare: String,
    pub(super) server_first: String,
    /// The client's and ours.
    pub(super) nonce: String,
}

impl ScramServer {
    /// Whether the client's first message has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// The verifier that the client was checked against.
    #[must_use]
    pub fn into_verifier(self) -> ScramVerifier {
        self.verifier
    }

    /// Checks a client against `verifier`. `nonce` must be random and used once.
    #[must_use]
    pub fn new(verifier: ScramVerifier, nonce: Nonce, channel: TlsEnds) -> Self {
        Self { verifier, nonce, channel, begun: None }
    }

    /// Takes the data of the SASLInitialResponse and returns that of the AuthenticationSASLContinue.
    ///
    /// # Errors
    /// [`AuthFailure::Malformed`]: not a client-first-message, or one that asks for channel binding.
    pub fn first(&mut self, client_first: &[u8]) -> Result<Vec<u8>, AuthFailure> {
        let Ok(text) = std::str::from_utf8(client_first) else {
            return malformed("malformed SCRAM message: not UTF-8");
        };
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(identity), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return malformed("malformed SCRAM message: no header");
        };
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return malformed(self.no_channel_binding()),
            _ => return malformed("malformed SCRAM message: unexpected channel-binding flag"),
        }
        if !identity.is_empty() {
            return malformed("client uses authorization identity, but it is not supported");
        }
        if bare.starts_with("m=") {
            return malformed("client requires an unsupported SCRAM extension");
        }
        let mut parts = bare.split(',');
        // The name is empty or ignored: the startup packet has it (PostgreSQL, sasl-authentication).
        if attribute(parts.next(), 'n').is_none() {
            return malformed("malformed SCRAM message: no user name attribute");
        }
        let Some(client_nonce) = attribute(parts.next(), 'r').filter(|nonce| nonce_is_good(nonce)) else {
            return malformed("malformed SCRAM message: no printable nonce");
        };
        let nonce = format!("{client_nonce}{}", STANDARD.encode(self.nonce));
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let reply = server_first.clone().into_bytes();
        let (gs2_header, client_first_bare) = (format!("{flag},,"), bare.to_owned());
        self.begun = Some(Begun { gs2_header, client_first_bare, server_first, nonce });
        Ok(reply)
    }

    fn no_channel_binding(&self) -> String {
        let why = match self.channel {
            TlsEnds::AtCrossfade => "TLS ends at Crossfade, so the client cannot be bound to the server's certificate",
            TlsEnds::Nowhere => "the connection to Crossfade has no TLS",
        };
        format!(
            "channel binding is not possible through Crossfade: {why}; connect with channel_binding=prefer or disable"
        )
    }

    /// Takes the data of the SASLResponse and returns that of the AuthenticationSASLFinal, and the key that the right proof
    /// reveals.
    ///
    /// # Errors
    /// [`AuthFailure::Wrong`] for a wrong proof, [`AuthFailure::Malformed`] for anything else; also when [`Self::first`] was not called.
    pub fn last(&mut self, client_final: &[u8]) -> Result<(Vec<u8>, ClientKey), AuthFailure> {
        let Some(begun) = self.begun.take() else { return malformed("malformed SCRAM message: out of order") };
        let Some((unproven, proof)) = std::str::from_utf8(client_final).ok().and_then(|text| text.rsplit_once(",p="))
        else {
            return malformed("malformed SCRAM message: no proof");
        };
        let mut parts = unproven.split(',');
        if attribute(parts.next(), 'c') != Some(STANDARD.encode(&begun.gs2_header).as_str()) {
            return malformed("unexpected SCRAM channel-binding attribute in client-final-message");
        }
        if attribute(parts.next(), 'r') != Some(begun.nonce.as_str()) {
            return malformed("invalid SCRAM response: nonce does not match");
        }
        let Some(proof) = STANDARD.decode(proof).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else {
            return malformed("malformed SCRAM message: malformed proof in client-final-message");
        };
        let message: &[&[u8]] =
            &[begun.client_first_bare.as_bytes(), b",", begun.server_first.as_bytes(), b",", unproven.as_bytes()];
        let client_key = ClientKey(xor(&proof, &hmac(&self.verifier.stored_key, message)));
        if !bool::from(sha256(&client_key.0).ct_eq(&self.verifier.stored_key)) {
            return Err(AuthFailure::Wrong);
        }
        let signature = STANDARD.encode(hmac(&self.verifier.server_key, message));
        Ok((format!("v={signature}").into_bytes(), client_key))
    }
}
