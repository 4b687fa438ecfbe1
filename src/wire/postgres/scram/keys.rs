//! The cryptography of SCRAM-SHA-256: keys, verifiers, signatures. Pure; any thread. Knows no messages.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use base::model::login::ScramVerifier;

/// The one mechanism offered and used.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// What PostgreSQL makes of a new password: `SCRAM_SHA_256_DEFAULT_ITERATIONS`, `SCRAM_DEFAULT_SALT_LEN`.
const DEFAULT_ITERATIONS: u32 = 4096;
const DEFAULT_SALT_BYTES: usize = 16;
/// Block of SHA-256 (FIPS 180-4).
const BLOCK_BYTES: usize = 64;

/// Random bytes for one handshake; they travel in base64.
pub type Nonce = [u8; 18];

/// A user's ClientKey, which logs in to every server that holds the same verifier. Never printed; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey(pub(super) [u8; 32]);

impl ClientKey {
    /// ClientKey of RFC 5802, section 3.
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

/// HMAC-SHA-256 with a key of any length: RFC 2104 hashes one that is longer than a block and fills up one that is shorter.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    Hmac::new(&block.into())
}

pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(super) fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| left[at] ^ right[at])
}

/// Hi() of RFC 5802, 2.2: PBKDF2 with HMAC-SHA-256 and one block.
pub(super) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
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

/// ClientKey and ServerKey of RFC 5802, section 3.
pub(super) fn keys(salted: &[u8; 32]) -> (ClientKey, [u8; 32]) {
    (ClientKey(hmac(salted, &[b"Client Key"])), hmac(salted, &[b"Server Key"]))
}

/// The verifier of a password (RFC 5802, section 3). Costs `iterations` HMACs.
#[must_use]
pub fn verifier_from_password(password: &[u8], salt: &[u8], iterations: u32) -> ScramVerifier {
    let (client_key, server_key) = keys(&salted_password(password, salt, iterations));
    ScramVerifier { iterations, salt: salt.to_vec(), stored_key: sha256(&client_key.0), server_key }
}

/// A verifier that no password fits. It is the same for a user as long as `seed` is, so that a client cannot tell an unknown user from a
/// wrong password (PostgreSQL's `mock_scram_secret`, src/backend/libpq/auth-scram.c).
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
