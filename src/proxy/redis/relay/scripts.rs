//! Scripts that clients have loaded, kept so that a new authority has them too: the stream of changes does not say them, and a client that has
//! once loaded a script, or run it by EVAL, calls it by its digest for ever.
//!
//! Lives on one core: each core keeps those of its own clients, and all load them at a change of authority. The shadow is given them before:
//! while clients are held only what it does not know yet has to be compiled. Pure.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use base::model::limits;
use wire::resp::{Args, encode};

/// See the head of this file. The oldest give way.
#[derive(Debug, Default)]
pub struct Scripts {
    bodies: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// How many of the newest the shadow has not been given.
    unsent: usize,
    /// Of the bodies: EVAL says them again each time.
    known: HashSet<u64>,
    hasher: RandomState,
}

impl Scripts {
    /// SCRIPT, EVAL or EVAL_RO of a client.
    pub fn note(&mut self, frame: &[u8]) {
        let mut args = Args::new(frame);
        let is = |arg: Option<&[u8]>, word: &[u8]| arg.is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        let name = args.next();
        if is(name, b"EVAL") || is(name, b"EVAL_RO") {
            return args.next().map_or((), |body| self.keep(body));
        }
        if !is(name, b"SCRIPT") {
            return;
        }
        let what = args.next();
        if is(what, b"FLUSH") {
            *self = Self::default();
        }
        if is(what, b"LOAD")
            && let Some(body) = args.next()
        {
            self.keep(body);
        }
    }

    fn keep(&mut self, body: &[u8]) {
        let hash = self.hasher.hash_one(body);
        if body.len() > limits::SCRIPTS_KEPT_BYTES_MAX || !self.known.insert(hash) {
            return;
        }
        self.bodies.push_back(body.into());
        self.bytes += body.len();
        self.unsent += 1;
        while self.bodies.len() > limits::SCRIPTS_KEPT_MAX || self.bytes > limits::SCRIPTS_KEPT_BYTES_MAX {
            let Some(oldest) = self.bodies.pop_front() else { return };
            self.bytes -= oldest.len();
            self.known.remove(&self.hasher.hash_one(&*oldest));
            self.unsent = self.unsent.min(self.bodies.len());
        }
    }

    /// The requests that load them all, and how many.
    #[must_use]
    pub fn loads(&self) -> (Vec<u8>, usize) {
        self.newest(self.bodies.len())
    }

    /// The requests that load what the shadow has not been given, and how many; it has been given them then.
    #[must_use]
    pub fn take_unsent(&mut self) -> (Vec<u8>, usize) {
        let count = std::mem::take(&mut self.unsent);
        self.newest(count)
    }

    /// The shadow is another, or has had no time to be given any.
    pub fn send_all_again(&mut self) {
        self.unsent = self.bodies.len();
    }

    fn newest(&self, count: usize) -> (Vec<u8>, usize) {
        let mut requests = Vec::new();
        let newest = self.bodies.iter().skip(self.bodies.len().saturating_sub(count));
        newest.for_each(|body| encode::push_request(&mut requests, &[b"SCRIPT", b"LOAD", body]));
        (requests, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(commands: &[&[&[u8]]]) -> usize {
        let mut scripts = Scripts::default();
        commands.iter().for_each(|words| scripts.note(&encode::request(words)));
        scripts.loads().1
    }

    #[test]
    fn what_was_loaded_is_loaded_again_once_each() {
        let load: &[&[u8]] = &[b"script", b"load", b"return 1"];
        let mut scripts = Scripts::default();
        [load, load].iter().for_each(|words| scripts.note(&encode::request(words)));
        assert_eq!(scripts.loads(), (encode::request(&[b"SCRIPT", b"LOAD", b"return 1"]), 1));
        assert_eq!(
            kept(&[load, &[b"EVAL", b"return 1", b"0"], &[b"eval_ro", b"return 2", b"0"]]),
            2,
            "also what is only run"
        );
        assert_eq!(kept(&[load, &[b"SCRIPT", b"FLUSH"]]), 0);
        assert_eq!(kept(&[&[b"SCRIPT", b"EXISTS", b"x"], &[b"FUNCTION", b"LOAD", b"x"], &[b"SCRIPT", b"LOAD"]]), 0);
    }

    #[test]
    fn the_shadow_is_given_each_once() {
        let mut scripts = Scripts::default();
        scripts.keep(b"a");
        scripts.keep(b"b");
        let load = |body: &[u8]| encode::request(&[b"SCRIPT", b"LOAD", body]);
        assert_eq!(scripts.take_unsent(), ([load(b"a"), load(b"b")].concat(), 2));
        scripts.keep(b"a");
        assert_eq!(scripts.take_unsent(), (Vec::new(), 0));
        scripts.keep(b"c");
        assert_eq!(scripts.take_unsent(), (load(b"c"), 1));
        scripts.send_all_again();
        scripts.keep(&vec![b'x'; limits::SCRIPTS_KEPT_BYTES_MAX]);
        assert_eq!(scripts.take_unsent().1, 1, "what gave way is not sent");
    }

    #[test]
    fn the_oldest_give_way() {
        let mut scripts = Scripts::default();
        for n in 0..=limits::SCRIPTS_KEPT_MAX {
            scripts.keep(n.to_string().as_bytes());
        }
        assert_eq!((scripts.loads().1, &*scripts.bodies[0]), (limits::SCRIPTS_KEPT_MAX, b"1".as_slice()));
        scripts.keep(&vec![b'x'; limits::SCRIPTS_KEPT_BYTES_MAX]);
        assert_eq!(scripts.loads().1, 1);
        scripts.keep(&vec![b'y'; limits::SCRIPTS_KEPT_BYTES_MAX + 1]);
        assert_eq!(scripts.loads().1, 1, "larger than all that may be kept");
    }
}
