//! Parts of the design that can be left out, to see that the checks notice. None of it is in the product: each is done to it from outside.

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ablation {
    Nothing,
    /// No feed: what cores send to the authority is sent to the other server as well, on a connection of its own.
    NaiveDualWrite,
    /// Deadlines are stored on the shadow as they are.
    NoGrace,
    /// The position is stored a moment behind the transaction that leads to it.
    PositionApart,
    /// The authority changes while clients go on.
    FlipWithoutDrain,
    /// The way back begins a moment after the flip, at what is then the end of the stream.
    ReverseLate,
}
