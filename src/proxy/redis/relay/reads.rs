//! Reads kept for a comparison: copies of what clients read while the shadow is followed, until control collects them.
//!
//! Lives on one core. The client's own read is not touched: a comparison repeats the copy on both servers.

use base::model::{SampledRead, limits};

/// See the head of this file. When full, nothing is copied until it has been collected.
#[derive(Debug, Default)]
pub struct SampledReads {
    reads: Vec<SampledRead>,
    bytes: usize,
}

impl SampledReads {
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.reads.len() < limits::SAMPLED_READS_MAX && self.bytes < limits::SAMPLED_READS_BYTES_MAX
    }

    pub fn add(&mut self, database: u32, frame: &[u8]) {
        if self.has_room() && self.bytes + frame.len() <= limits::SAMPLED_READS_BYTES_MAX {
            self.bytes += frame.len();
            self.reads.push(SampledRead { database, frame: frame.into() });
        }
    }

    pub fn take(&mut self) -> Vec<SampledRead> {
        self.bytes = 0;
        std::mem::take(&mut self.reads)
    }
}
