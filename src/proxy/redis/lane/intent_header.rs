//! What an intent log says of itself: whose it is, what it covers, and which servers it speaks of. Lives on the lane's core.
//!
//! It is written twice, in turn, and one word tells which of the two counts: a process killed while it writes leaves the one before.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use base::model::{Authority, Epoch, RoutePlan, Side};

/// "cfintent", and the version of everything in the memory.
const MAGIC: u64 = 0x7466_6e69_7465_6e74;
const VERSION: u64 = 1;
/// Words of the header; two more are the ring's.
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const WHICH_AT: usize = 4;
const FORMS_AT: [usize; 2] = [64, 128];
const FORM_WORDS: usize = 32;
/// Bytes of a server's identity that are kept; a longer one counts as not known.
const SERVER_BYTES_MAX: usize = 64;

/// What a reader may conclude from the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Nothing: there are keys that were never copied.
    NotCopied = 0,
    /// Nothing: there were more keys in doubt than fit.
    Overflowed = 1,
    /// Every key that is not named is in step.
    Whole = 2,
    /// The same, and no write was let through since the lane was drained: the authority may have changed.
    Drained = 3,
}

impl Coverage {
    const ALL: [Self; 4] = [Self::NotCopied, Self::Overflowed, Self::Whole, Self::Drained];

    fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|coverage| *coverage as u64 == word)
    }
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub coverage: Coverage,
    pub authority: Authority,
    /// Of the interlay and its two servers.
    pub servers_named: u128,
    /// Of the host.
    pub boot: u128,
    /// What the two server processes call themselves, source and target; empty: not known.
    pub processes: [Vec<u8>; 2],
    /// When a script was first sent; 0: none was. Milliseconds since the Unix epoch.
    pub scripts_at_ms: u64,
    /// Since every key was copied there was a records policy, which may have changed some of them.
    pub records_policy: bool,
}

impl Header {
    /// Of a lane that begins.
    #[must_use]
    pub fn new(plan: &RoutePlan, boot: u128) -> Self {
        let names = [Side::Source, Side::Target].map(|side| {
            let endpoint = plan.endpoint(side);
            format!("{} {:?} {}", endpoint.name, endpoint.protocol, endpoint.address)
        });
        let text = format!("{}\n{}\n{}", plan.interlay, names[0], names[1]);
        Self {
            coverage: Coverage::NotCopied,
            authority: plan.authority,
            servers_named: xxh3_128(text.as_bytes()),
            boot,
            processes: [Vec::new(), Vec::new()],
            scripts_at_ms: 0,
            records_policy: false,
        }
    }

    /// Makes memory that is all zero a log. The ring is there already.
    pub fn begin(&self, words: &[AtomicU64]) {
        self.write(words);
        words[VERSION_AT].store(VERSION, Ordering::Release);
        words[MAGIC_AT].store(MAGIC, Ordering::Release);
    }

    /// # Errors
    /// Why it is not to be relied on.
    pub fn read(words: &[AtomicU64]) -> Result<Self, String> {
        let word = |at: usize| words[at].load(Ordering::Acquire);
        if word(MAGIC_AT) != MAGIC {
            return Err("it is no intent log, or was never finished".to_owned());
        }
        if word(VERSION_AT) != VERSION {
            return Err(format!("it is of version {}, and this program reads version {VERSION}", word(VERSION_AT)));
        }
        let at = usize::try_from(word(WHICH_AT)).ok().and_then(|which| FORMS_AT.get(which).copied());
        let form = at.map(|at| std::array::from_fn(|index| word(at + index)));
        form.and_then(|form| Self::decode(&form)).ok_or_else(|| "its header is damaged".to_owned())
    }

    pub fn write(&self, words: &[AtomicU64]) {
        let which = usize::from(words[WHICH_AT].load(Ordering::Relaxed) == 0);
        for (index, word) in self.encode().into_iter().enumerate() {
            words[FORMS_AT[which] + index].store(word, Ordering::Relaxed);
        }
        words[WHICH_AT].store(which as u64, Ordering::Release);
        // The next one is written over the other after this.
        compiler_fence(Ordering::SeqCst);
    }

    fn encode(&self) -> [u64; FORM_WORDS] {
        let mut form = [0; FORM_WORDS];
        form[1] = self.coverage as u64;
        form[2] = self.authority.epoch.0;
        form[3] = side_word(self.authority.side);
        (form[4], form[5]) = halves(self.servers_named);
        (form[6], form[7]) = halves(self.boot);
        form[8] = self.scripts_at_ms;
        form[9] = u64::from(self.records_policy);
        for (process, at) in self.processes.iter().zip([10, 20]) {
            let known = if process.len() > SERVER_BYTES_MAX { &[] } else { process.as_slice() };
            form[at] = known.len() as u64;
            for (word, chunk) in form[at + 1..].iter_mut().zip(known.chunks(8)) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                *word = u64::from_le_bytes(bytes);
            }
        }
        form[0] = checksum(&form);
        form
    }

    fn decode(form: &[u64; FORM_WORDS]) -> Option<Self> {
        let process = |at: usize| {
            let bytes: Vec<u8> = form[at + 1..].iter().take(8).flat_map(|word| word.to_le_bytes()).collect();
            bytes.get(..usize::try_from(form[at]).ok()?).map(<[u8]>::to_vec)
        };
        let side = [Side::Source, Side::Target].into_iter().find(|side| side_word(*side) == form[3])?;
        (form[0] == checksum(form)).then_some(Self {
            coverage: Coverage::from_word(form[1])?,
            authority: Authority { side, epoch: Epoch(form[2]) },
            servers_named: whole(form[4], form[5]),
            boot: whole(form[6], form[7]),
            processes: [process(10)?, process(20)?],
            scripts_at_ms: form[8],
            records_policy: form[9] != 0,
        })
    }
}

fn side_word(side: Side) -> u64 {
    match side {
        Side::Source => 0,
        Side::Target => 1,
    }
}

fn halves(number: u128) -> (u64, u64) {
    (number as u64, (number >> 64) as u64)
}

fn whole(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

fn checksum(form: &[u64; FORM_WORDS]) -> u64 {
    let bytes: Vec<u8> = form[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
    xxh3_64(&bytes)
}
