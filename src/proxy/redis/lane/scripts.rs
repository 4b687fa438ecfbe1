//! Scripts and functions that have run in this lane, and how often. Lives on the lane's core.
//!
//! What one wrote elsewhere than in the keys it declares, only a comparison of every key that began later can find.

use std::collections::HashMap;

use base::model::limits;
use wire::resp::Args;
use wire::resp::command::Command;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Scripts {
    runs: HashMap<u128, u64>,
}

impl Scripts {
    /// One more run: of this body (EVAL), hash of a body (EVALSHA) or function (FCALL). How often it has run.
    pub fn ran(&mut self, command: &Command, frame: &[u8]) -> u64 {
        let mut name = Args::new(frame).nth(1).unwrap_or_default().to_vec();
        if command.name == "evalsha" {
            name.make_ascii_lowercase();
        }
        let id = xxhash_rust::xxh3::xxh3_128_with_seed(&name, u64::from(command.name.as_bytes()[0]));
        if self.runs.len() >= limits::SCRIPTS_KNOWN_MAX && !self.runs.contains_key(&id) {
            return 1; // they are generated: each runs about once
        }
        let runs = self.runs.entry(id).or_insert(0);
        *runs += 1;
        *runs
    }

    #[must_use]
    pub fn known(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::resp::command::lookup;
    use wire::resp::encode::request;

    #[test]
    fn runs_are_counted_by_script() {
        let mut scripts = Scripts::default();
        let mut run = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            scripts.ran(lookup(words[0]), &request(&words))
        };
        assert_eq!((run("EVAL x 1 a"), run("EVAL x 1 b"), run("EVAL y 1 a")), (1, 2, 1));
        assert_eq!((run("EVALSHA aB 1 a"), run("evalsha ab 1 a"), run("FCALL ab 1 a")), (1, 2, 1));
        assert_eq!(scripts.known(), 4);
    }
}
