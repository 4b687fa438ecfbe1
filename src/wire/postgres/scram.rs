//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as both sides of a PostgreSQL log-in speak it. Pure: nonces are arguments.
//!
//! The server's side reveals the ClientKey to itself when a proof is right; with it and the same verifier the client's side logs in to
//! another server, so no password is stored. Channel binding is not spoken: TLS ends at Crossfade. SASLprep is not done: a password
//! of ASCII is unchanged by it, and one that is not is taken as its bytes, as PostgreSQL does when SASLprep refuses it. A non-ASCII
//! password that SASLprep would change (compatibility characters, unusual spaces) needs its verifier, not its text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use base::model::limits;
use base::model::login::ScramVerifier;

/// The one mechanism offered and used.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// What PostgreSQL makes of a new password: `SCRAM_SHA_256_DEFAULT_ITERATIONS`, `SCRAM_DEFAULT_SALT_LEN`.
const DEFAULT_ITERATIONS: u32 = 4096;
const DEFAULT_SALT_BYTES: usize = 16;

/// Random bytes for one handshake; they travel in base64.
pub type Nonce = [u8; 18];

/// Where the client's TLS ends; it decides why channel binding is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnds {
    /// At Crossfade: the client cannot be bound to the server's certificate.
    AtCrossfade,
    /// Nowhere: the connection has no TLS.
    Nowhere,
}

/// The credential that logs in wherever the verifier is the same. Never printed; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey([u8; 32]);

impl ClientKey {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Drop for ClientKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the writes from being removed as dead.
        std::hint::black_box(&self.0);
    }
}

/// Why a log-in failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// The client does not speak the protocol as it must; the text may be sent to it.
    Malformed(String),
    /// The password is wrong or the user unknown; the client is not told which.
    Wrong,
}

fn malformed<T>(why: impl Into<String>) -> Result<T, AuthFailure> {
    Err(AuthFailure::Malformed(why.into()))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| left[at] ^ right[at])
}

/// Hi() of RFC 5802, 2.2: PBKDF2 with HMAC-SHA-256 and one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mac = keyed(password);
    let mut first = mac.clone();
    first.update(salt);
    first.update(&1u32.to_be_bytes());
    let mut last: [u8; 32] = first.finalize().into_bytes().into();
    let mut all = last;
    for _ in 1..iterations {
        let mut next = mac.clone();
        next.update(&last);
        last = next.finalize().into_bytes().into();
        all = xor(&all, &last);
    }
    all
}

fn keys(salted: &[u8; 32]) -> (ClientKey, [u8; 32]) {
    (ClientKey(hmac(salted, &[b"Client Key"])), hmac(salted, &[b"Server Key"]))
}

/// The verifier of a password (RFC 5802, section 3). Costs `iterations` HMACs.
#[must_use]
pub fn verifier_from_password(password: &[u8], salt: &[u8], iterations: u32) -> ScramVerifier {
    let (client_key, server_key) = keys(&salted_password(password, salt, iterations));
    ScramVerifier { iterations, salt: salt.to_vec(), stored_key: sha256(&client_key.0), server_key }
}

/// A verifier no password fits, the same for a user each time while `seed` is kept, so that a client cannot tell an unknown user from
/// a wrong password (PostgreSQL's `mock_scram_secret`, src/backend/libpq/auth-scram.c).
#[must_use]
pub fn mock_verifier(user: &str, seed: &[u8; 32]) -> ScramVerifier {
    let derive = |purpose: &[u8]| hmac(seed, &[purpose, b"\0", user.as_bytes()]);
    ScramVerifier {
        iterations: DEFAULT_ITERATIONS,
        salt: derive(b"salt")[..DEFAULT_SALT_BYTES].to_vec(),
        stored_key: derive(b"stored key"),
        server_key: derive(b"server key"),
    }
}

/// The value of `name=value`.
fn attribute(part: Option<&str>, name: char) -> Option<&str> {
    part?.strip_prefix(name)?.strip_prefix('=')
}

fn nonce_is_good(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}

/// The side that checks. One per log-in, on one core.
#[derive(Debug)]
pub struct ScramServer {
    verifier: ScramVerifier,
    nonce: Nonce,
    channel: TlsEnds,
    /// After the first message.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    /// "n,," or "y,,".
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    /// The client's and ours.
    nonce: String,
}

impl ScramServer {
    /// Whether the client's first message has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// What the client was checked against.
    #[must_use]
    pub fn into_verifier(self) -> ScramVerifier {
        self.verifier
    }

    /// `nonce` must be random and used once.
    #[must_use]
    pub fn new(verifier: ScramVerifier, nonce: Nonce, channel: TlsEnds) -> Self {
        Self { verifier, nonce, channel, begun: None }
    }

    /// Takes the data of the SASLInitialResponse and gives that of the AuthenticationSASLContinue.
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

    /// Takes the data of the SASLResponse and gives that of the AuthenticationSASLFinal, and the key the right proof reveals.
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

/// What a client proves itself with.
enum Proves {
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
    nonce: String,
    /// After the server's first message.
    server_signature: Option<[u8; 32]>,
}

impl std::fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramClient(***)")
    }
}

impl ScramClient {
    /// `nonce` must be random and used once.
    #[must_use]
    pub fn with_password(password: &[u8], nonce: Nonce) -> Self {
        Self::new(Proves::Password(password.to_vec()), STANDARD.encode(nonce))
    }

    /// With the key of an earlier handshake against `verifier`; `nonce` must be random and used once.
    #[must_use]
    pub fn with_key(client_key: ClientKey, verifier: ScramVerifier, nonce: Nonce) -> Self {
        Self::new(Proves::Key(client_key, verifier), STANDARD.encode(nonce))
    }

    fn new(proves: Proves, nonce: String) -> Self {
        Self { proves, nonce, server_signature: None }
    }

    /// The data of the SASLInitialResponse. The user is left empty, as libpq does: the startup packet has it.
    #[must_use]
    pub fn client_first(&self) -> Vec<u8> {
        format!("n,,n=,r={}", self.nonce).into_bytes()
    }

    /// Takes the data of the AuthenticationSASLContinue and gives that of the SASLResponse. With a password it costs as many HMACs as
    /// the server asks for, at most [`limits::SCRAM_ITERATIONS_MAX`].
    ///
    /// # Errors
    /// What is wrong with the server's message, or that its verifier is another one.
    pub fn client_final(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let bare = format!("n=,r={}", self.nonce);
        self.prove(&bare, server_first)
    }

    fn prove(&mut self, client_first_bare: &str, server_first: &[u8]) -> Result<Vec<u8>, String> {
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
            .ok_or("the server's SCRAM message has no bearable number of iterations")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = *b"sixteen bytes ok";

    fn pencil() -> ScramVerifier {
        verifier_from_password(b"pencil", &SALT, 4096)
    }

    fn server(verifier: ScramVerifier) -> ScramServer {
        ScramServer::new(verifier, [7; 18], TlsEnds::AtCrossfade)
    }

    fn handshake(client: &mut ScramClient, server: &mut ScramServer) -> Result<ClientKey, AuthFailure> {
        let first = server.first(&client.client_first())?;
        let last = client.client_final(&first).expect("the server's message is good");
        let (end, key) = server.last(&last)?;
        assert_eq!(client.check_server_final(&end), Ok(()));
        Ok(key)
    }

    #[test]
    fn the_vector_of_rfc_7677() {
        let (nonce, bare) = ("rOprNGfwEbeRWgbNEkqO", "n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let mut client = ScramClient::new(Proves::Password(b"pencil".to_vec()), nonce.to_owned());
        let last = client.prove(bare, server_first).expect("good");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(last.clone()).expect("text"), expected);
        assert_eq!(client.check_server_final(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(client.check_server_final(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
        // And the checking side takes the same proof.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let mut server = server(verifier_from_password(b"pencil", &salt, 4096));
        server.begun = Some(Begun {
            gs2_header: "n,,".to_owned(),
            client_first_bare: bare.to_owned(),
            server_first: String::from_utf8(server_first.to_vec()).expect("text"),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
        });
        let (end, _) = server.last(&last).expect("right");
        assert_eq!(end, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_key_from_one_handshake_completes_another() {
        let key = handshake(&mut ScramClient::with_password(b"pencil", [1; 18]), &mut server(pencil())).expect("right");
        let mut client = ScramClient::with_key(key.clone(), pencil(), [2; 18]);
        let again = handshake(&mut client, &mut server(pencil())).expect("the key is as good as the password");
        assert_eq!(key, again);
        assert_eq!(format!("{key:?} {client:?}"), "*** ScramClient(***)");
    }

    #[test]
    fn another_verifier_of_the_same_password_is_named() {
        let key = handshake(&mut ScramClient::with_password(b"pencil", [1; 18]), &mut server(pencil())).expect("right");
        for other in [verifier_from_password(b"pencil", &SALT, 4095), verifier_from_password(b"pencil", b"other", 4096)]
        {
            let mut client = ScramClient::with_key(key.clone(), pencil(), [2; 18]);
            let first = server(other).first(&client.client_first()).expect("good");
            assert!(client.client_final(&first).expect_err("refused").contains("copy the role with its verifier"));
        }
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_fail_alike() {
        let mut client = ScramClient::with_password(b"pencils", [1; 18]);
        assert_eq!(handshake(&mut client, &mut server(pencil())), Err(AuthFailure::Wrong));
        let mock = mock_verifier("nobody", &[5; 32]);
        assert_eq!(mock, mock_verifier("nobody", &[5; 32]));
        assert_ne!(mock.salt, mock_verifier("somebody", &[5; 32]).salt);
        assert_eq!((mock.iterations, mock.salt.len()), (4096, 16));
        let mut client = ScramClient::with_password(b"pencil", [1; 18]);
        assert_eq!(handshake(&mut client, &mut server(mock)), Err(AuthFailure::Wrong));
    }

    #[test]
    fn malformed_first_messages() {
        for (bad, word) in [
            (&b""[..], "header"),
            (b"n,,", "user name"),
            (b"n,,n=a", "nonce"),
            (b"n,,n=a,r=", "nonce"),
            (b"n,,n=a,r=a b", "nonce"),
            (b"x,,n=a,r=abc", "channel-binding flag"),
            (b"n,a=ann,n=a,r=abc", "authorization identity"),
            (b"n,,m=x,n=a,r=abc", "extension"),
            (b"p=tls-server-end-point,,n=a,r=abc", "TLS ends at Crossfade"),
            (b"\xff", "UTF-8"),
        ] {
            let Err(AuthFailure::Malformed(why)) = server(pencil()).first(bad) else { panic!("{bad:?}") };
            assert!(why.contains(word), "{why}");
        }
        let mut plain = ScramServer::new(pencil(), [0; 18], TlsEnds::Nowhere);
        let Err(AuthFailure::Malformed(why)) = plain.first(b"p=x,,n=,r=a") else { panic!() };
        assert!(why.contains("no TLS") && why.contains("channel_binding"), "{why}");
        assert!(server(pencil()).first(b"y,,n=a,r=abc,x=ext").is_ok());
    }

    #[test]
    fn malformed_last_messages_and_servers() {
        let client = ScramClient::with_password(b"pencil", [1; 18]);
        let nonce = format!("{}{}", client.nonce, STANDARD.encode([7; 18]));
        let proof = STANDARD.encode([0; 32]);
        for (bad, failure) in [
            (format!("c=biws,r={nonce},p={proof}"), AuthFailure::Wrong),
            (format!("c=biws,r={nonce}"), AuthFailure::Malformed("no proof".to_owned())),
            (format!("c=eSws,r={nonce},p={proof}"), AuthFailure::Malformed("channel-binding".to_owned())),
            (format!("c=biws,r={nonce}x,p={proof}"), AuthFailure::Malformed("nonce".to_owned())),
            (format!("c=biws,r={nonce},p=AAAA"), AuthFailure::Malformed("malformed proof".to_owned())),
        ] {
            let mut server = server(pencil());
            server.first(&client.client_first()).expect("good");
            match (server.last(bad.as_bytes()).expect_err("refused"), failure) {
                (AuthFailure::Wrong, AuthFailure::Wrong) => {}
                (AuthFailure::Malformed(why), AuthFailure::Malformed(word)) => assert!(why.contains(&word), "{why}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
        assert!(matches!(server(pencil()).last(b"c=biws"), Err(AuthFailure::Malformed(_))));
        let ours = ScramClient::with_password(b"pencil", [1; 18]).nonce;
        for bad in [
            "".to_owned(),
            "r=other,s=QQ==,i=4096".to_owned(),
            format!("r={ours},s=QQ==,i=1"),
            format!("r={ours}x,s=?,i=1"),
            format!("r={ours}x,s=QQ==,i=0"),
            format!("r={ours}x,s=QQ==,i=1000001"),
        ] {
            assert!(ScramClient::with_password(b"pencil", [1; 18]).client_final(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(client.check_server_final(b"v=").is_err());
        assert!(client.check_server_final(b"e=other-error").expect_err("error").contains("other-error"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(first: Vec<u8>, last: Vec<u8>) {
            let mut server = server(mock_verifier("a", &[0; 32]));
            let _ = server.first(&first);
            let _ = server.first(b"n,,n=,r=abc");
            proptest::prop_assert!(server.last(&last).is_err());
            let mut client = ScramClient::with_key(ClientKey([0; 32]), mock_verifier("a", &[0; 32]), [0; 18]);
            let _ = client.client_final(&first);
            let _ = client.check_server_final(&last);
        }
    }
}
