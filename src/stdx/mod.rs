//! What the standard library lacks. Knows nothing about databases.

pub mod slab;
