//! A client's read that is to be repeated on both servers. Crosses from a core to the mover, never to a log: it names keys.

/// One whole request, as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledRead {
    pub database: u32,
    pub frame: Box<[u8]>,
}
