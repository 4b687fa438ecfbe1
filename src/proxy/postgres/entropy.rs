//! Randomness for log-ins and cancel keys, drawn from the seed that the operating system gave to the process: SHA-256 over seed and
//! counter. Reads no randomness itself. Lives on one core, in its relay.

use sha2::{Digest, Sha256};

use base::model::{CoreId, InterlayName};
use wire::postgres::scram::Nonce;

/// One relay's stream of random numbers.
pub struct Entropy {
    /// Of this core and interlay.
    seed: [u8; 32],
    /// Of this interlay, the same on every core.
    lasting: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Entropy {
    /// `seed` is the process's; with core and interlay mixed in, no other relay draws the same numbers.
    pub fn new(seed: [u8; 32], core: CoreId, interlay: &InterlayName) -> Self {
        let lasting = Sha256::new().chain_update(seed).chain_update(interlay.as_str()).finalize().into();
        let own = Sha256::new().chain_update(lasting).chain_update(core.0.to_be_bytes()).chain_update(b"core");
        Self { seed: own.finalize().into(), lasting, counter: 0 }
    }

    /// The same on every core for the life of the process. What an unknown user is shown is derived from it, so that the user cannot
    /// be told from a known one by asking twice.
    pub fn lasting(&self) -> [u8; 32] {
        self.lasting
    }

    /// The salt of a user's verifier, the same on every core for the life of the process.
    pub fn salt_of(&self, user: &str) -> [u8; 16] {
        let drawn: [u8; 32] = Sha256::new().chain_update(self.lasting).chain_update(user).finalize().into();
        std::array::from_fn(|at| drawn[at])
    }

    /// 32 new random bytes.
    pub fn draw(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    /// A nonce for one SCRAM handshake.
    pub fn nonce(&mut self) -> Nonce {
        let drawn = self.draw();
        std::array::from_fn(|at| drawn[at])
    }
}
