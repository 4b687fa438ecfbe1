//! What the standard library lacks. Knows nothing about databases.

pub mod clock;
pub mod histogram;
pub mod prng;
pub mod slab;
pub mod spares;
