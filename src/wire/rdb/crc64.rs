//! CRC-64 as Redis computes it for DUMP payloads and the end of a snapshot. Pure; any thread.
//!
//! Jones polynomial 0xad93d23594c935a9, reflected, beginning at 0, without a final inversion (Redis `crc64.c`).

static CRC: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_REDIS);

/// A checksum that grows with the bytes it is given. As it begins at 0 and nothing is done at its end, its value is all its state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crc64(u64);

impl Crc64 {
    /// Continues a checksum of which only the value was kept.
    #[must_use]
    pub fn resume(value: u64) -> Self {
        Self(value)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        // The library reflects what it begins with, because catalogues state it unreflected.
        let mut digest = CRC.digest_with_initial(self.0.reverse_bits());
        digest.update(bytes);
        self.0 = digest.finalize();
    }

    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    CRC.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_redis_is_met() {
        assert_eq!(checksum(b""), 0);
        assert_eq!(checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    proptest::proptest! {
        #[test]
        fn parts_give_the_checksum_of_the_whole(bytes: Vec<u8>, cut: proptest::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let mut crc = Crc64::default();
            crc.update(&bytes[..cut]);
            let mut crc = Crc64::resume(crc.value());
            crc.update(&bytes[cut..]);
            proptest::prop_assert_eq!(crc.value(), checksum(&bytes));
        }
    }
}
