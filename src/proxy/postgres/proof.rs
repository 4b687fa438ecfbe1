//! What a client is asked to prove itself with, and what Crossfade then logs in to the server with. Values only; they live on one core,
//! in a session or a server connection.

use base::model::{Credentials, Md5Hash, ScramVerifier, Secret, StoredSecret};
use wire::postgres::scram::{ClientKey, ScramServer};

/// The question a client has been asked and has not answered yet.
#[derive(Debug)]
pub enum Challenge {
    Scram {
        server: Box<ScramServer>,
        /// The password the verifier was made from, where Crossfade knows it.
        password: Option<Secret>,
    },
    Md5 {
        salt: [u8; 4],
        hash: Md5Hash,
        /// What the right answer allows Crossfade to log in with.
        proof: Proof,
    },
}

/// What Crossfade logs in to a server with.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Nothing: the server must let the user in without a password.
    None,
    Password(Secret),
    Md5(Md5Hash),
    /// The key that a client's SCRAM proof revealed. It logs in to every server that holds the same verifier.
    Key(ClientKey, Box<ScramVerifier>),
    /// The client answers the server's questions itself.
    Relay,
}

impl Proof {
    /// What a secret of the auth file allows without the client's help.
    pub fn of_secret(secret: Option<&StoredSecret>) -> Self {
        match secret {
            Some(StoredSecret::Plain(password)) => Self::Password(password.clone()),
            Some(StoredSecret::Md5(hash)) => Self::Md5(hash.clone()),
            Some(StoredSecret::Scram(_)) | None => Self::None,
        }
    }

    /// The credentials in an endpoint's URL.
    pub fn of_credentials(credentials: &Credentials) -> Self {
        if credentials.password.expose().is_empty() { Self::None } else { Self::Password(credentials.password.clone()) }
    }
}
