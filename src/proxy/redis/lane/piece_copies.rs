//! Values that are being copied in pieces, and how far each copy is. Lives on the lane's core; what is done with them is in `pieces`.

use std::collections::HashMap;

use super::keys::{KeyId, KeyRef};
use wire::resp::copy::pieces::Pieces;

/// One value that is being read.
#[derive(Debug)]
pub struct PieceCopy {
    pub key: KeyRef,
    pub token: u64,
    pub pieces: Pieces,
    pub bytes: u64,
    /// When the next piece is asked for; `None`: it is on its way.
    pub next_us: Option<u64>,
}

/// All of them.
pub type PieceCopies = HashMap<KeyId, PieceCopy>;
