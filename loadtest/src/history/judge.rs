//! Checks replies: each client sends commands with one possible reply, on keys that no other client uses, to a server of its own as well. Both must
//! reply alike.

use super::Random;
use super::commands::{READS, is_determined, is_redis_own, owned_by, request};
use super::load::Mix;
use crate::server::connect;

/// A client's own keys, and the server that gets the same commands: the reference for replies.
pub struct Judge {
    reference: redis::Connection,
    worker: u64,
    /// A new set of keys after a command with an unknown outcome.
    generation: u64,
    judged: u64,
}

impl Judge {
    #[must_use]
    pub fn new(reference_port: u16, worker: u64) -> Self {
        Self { reference: connect(reference_port), worker, generation: 0, judged: 0 }
    }

    /// How many replies were checked.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// Runs one command on both.
    ///
    /// # Errors
    /// The answers differ.
    pub fn ask(
        &mut self,
        random: &mut Random,
        mix: &Mix,
        through: &mut redis::Connection,
    ) -> Result<redis::RedisResult<()>, String> {
        let template = loop {
            let candidate = if random.below(2) == 0 { random.pick(READS) } else { mix.pick(random) };
            if is_determined(candidate) {
                break candidate;
            }
        };
        let template = owned_by(&format!("w{}.{}", self.worker, self.generation), template);
        let command = request(random, &template, 6);
        let word = |answer: redis::RedisResult<redis::Value>| answer.map_err(|error| error.code().map(str::to_owned));
        let seen = command.query::<redis::Value>(through);
        if let Err(error) = &seen
            && !is_redis_own(error)
        {
            self.generation += 1;
            return Ok(seen.map(drop));
        }
        let (expected, seen) = (word(command.query(&mut self.reference)), word(seen));
        self.judged += 1;
        let line = String::from_utf8_lossy(&command.get_packed_command()).replace("\r\n", " ");
        if expected == seen { Ok(Ok(())) } else { Err(format!("{line}: {seen:?} instead of {expected:?}")) }
    }
}
