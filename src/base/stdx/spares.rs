//! Empty buffers kept for reuse, so that a busy connection allocates nothing and an idle one holds no memory.
//!
//! Lives on one core.

/// A bounded number of buffers of bounded size.
#[derive(Debug)]
pub struct Spares {
    buffers: Vec<Vec<u8>>,
    count_max: usize,
    bytes_max: usize,
}

impl Spares {
    #[must_use]
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { buffers: Vec::new(), count_max, bytes_max }
    }

    /// An empty buffer; a spare one with its capacity if there is one.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Clears a buffer and keeps it, unless it is too large or enough are kept.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if (1..=self.bytes_max).contains(&buffer.capacity()) && self.buffers.len() < self.count_max {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_bounded() {
        let mut spares = Spares::new(2, 100);
        spares.give(Vec::new());
        spares.give(Vec::with_capacity(1000));
        assert_eq!(spares.take().capacity(), 0, "neither is worth keeping");
        for _ in 0..3 {
            spares.give(b"used".to_vec());
        }
        let (first, second, third) = (spares.take(), spares.take(), spares.take());
        assert!(first.is_empty() && first.capacity() > 0 && second.capacity() > 0);
        assert_eq!(third.capacity(), 0, "no more than two");
    }
}
