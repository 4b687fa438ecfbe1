//! The lane's connections to its two servers: what is to be sent, what state each is in, and which server is the authority.
//!
//! Lives on the lane's core.

use super::introduction::Introduction;
use base::model::Side;
use bus::counters::SideCounters;
use wire::resp::ReplyFeed;
use wire::resp::encode::push_request;

/// A sent buffer larger than this is not used again.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One of the two connections. The bytes for it wait here until they are taken.
#[derive(Debug, Default)]
pub struct Link {
    pub connected: bool,
    /// While it is being made ready.
    pub introduction: Option<Introduction>,
    /// CLIENT ID of the last connection that was ready.
    pub predecessor: u64,
    pub run_id: Vec<u8>,
    pub output: Vec<u8>,
    /// An empty buffer for what comes after.
    spare: Vec<u8>,
    /// Logical database the connection is in after all that was sent.
    database: u32,
    /// Protocol version the connection speaks after all that was sent; the shadow's is always 2.
    pub resp: u8,
    pub feed: ReplyFeed,
    pub gathered: Vec<u8>,
    /// The reply that is arriving is too long to be gathered: only its beginning is kept.
    pub discarding: bool,
    /// Forms of dump this server has refused as a shadow, by their first byte.
    refused_types: u32,
    /// What the server has answered in this lane.
    pub counters: SideCounters,
}

/// Which server process a connection was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// The first, or the same as before.
    Same,
    Another,
}

impl Link {
    /// A connection is up: logged in, in database 0, speaking RESP2, its predecessor dead.
    pub fn connect(&mut self, run_id: &[u8]) -> Process {
        let process = if self.run_id.is_empty() || self.run_id == run_id { Process::Same } else { Process::Another };
        *self = Self {
            connected: true,
            run_id: run_id.to_vec(),
            resp: 2,
            refused_types: self.refused_types,
            predecessor: self.predecessor,
            counters: std::mem::take(&mut self.counters),
            ..Self::default()
        };
        process
    }

    /// Keeps of the reply that is arriving what tells its length and type.
    pub fn discard(&mut self) {
        self.discarding = true;
        self.gathered.truncate(64);
        self.gathered.shrink_to_fit();
    }

    #[must_use]
    pub fn has_output(&self) -> bool {
        match &self.introduction {
            Some(introduction) => !introduction.output.is_empty(),
            None => self.connected && !self.output.is_empty(),
        }
    }

    /// Moves unsent bytes out; `recycled` becomes the next buffer.
    pub fn take_output(&mut self, recycled: Vec<u8>) -> Option<Vec<u8>> {
        if recycled.capacity() > self.spare.capacity() && recycled.capacity() <= SPARE_BYTES_MAX {
            self.spare = recycled;
        }
        if !self.has_output() {
            return None;
        }
        let spare = std::mem::take(&mut self.spare);
        let output = self.introduction.as_mut().map_or(&mut self.output, |introduction| &mut introduction.output);
        Some(std::mem::replace(output, spare))
    }

    /// Brings the connection into this database; how many requests that took.
    #[inline]
    pub fn select(&mut self, database: u32) -> usize {
        if self.database == database {
            return 0;
        }
        self.database = database;
        push_request(&mut self.output, &[b"SELECT", database.to_string().as_bytes()]);
        1
    }

    /// Brings the connection to this protocol version; how many requests that took.
    #[inline]
    pub fn speak(&mut self, resp: u8) -> usize {
        if self.resp == resp {
            return 0;
        }
        self.resp = resp;
        push_request(&mut self.output, &[b"HELLO", resp.to_string().as_bytes()]);
        1
    }

    /// This server does not know dumps of this form.
    pub fn refuse_type(&mut self, form: u8) {
        self.refused_types |= 1 << u32::from(form.min(31));
    }

    /// Whether this server has refused a dump of this form before.
    #[must_use]
    pub fn refuses_type(&self, form: u8) -> bool {
        self.refused_types & (1 << u32::from(form.min(31))) != 0
    }
}

/// Both connections.
#[derive(Debug)]
pub struct Links {
    /// The side whose replies clients see.
    pub authority: Side,
    source: Link,
    target: Link,
}

impl Links {
    #[must_use]
    pub fn new(authority: Side) -> Self {
        Self { authority, source: Link::default(), target: Link::default() }
    }

    #[inline]
    pub fn of(&self, side: Side) -> &Link {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    #[inline]
    pub fn of_mut(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    #[inline]
    pub fn authority(&self) -> &Link {
        self.of(self.authority)
    }

    #[inline]
    pub fn authority_mut(&mut self) -> &mut Link {
        self.of_mut(self.authority)
    }

    #[inline]
    pub fn shadow(&self) -> &Link {
        self.of(self.authority.other())
    }

    #[inline]
    pub fn shadow_mut(&mut self) -> &mut Link {
        self.of_mut(self.authority.other())
    }
}
