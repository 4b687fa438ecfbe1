//! The hold: control asks a core to let no client begin a new unit of work, and later to release them. Both types cross the bus.

/// What control asks of one interlay on one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldOrder {
    /// Let no client begin a new unit of work (a statement or transaction from idle; an open transaction goes on). Answered by
    /// [`HoldEvent::Drained`] when nothing is outstanding any more, which may never happen: control keeps the deadline.
    /// New sessions are still let in, because a thread that waits for one may have another open in a transaction.
    Begin { ticket: u64 },
    /// After every core has drained: hold clients that log in as well. Answered by [`HoldEvent::Drained`] when no log-in is under way.
    Shut { ticket: u64 },
    /// After a change of authority, clients held: send the blocking commands that began to wait at or before this time of the monotonic clock to the new
    /// authority. Answered by [`HoldEvent::Moved`] when it has them waiting, or has answered them. What is not moved so is moved at the release.
    Move { ticket: u64, until_us: u64 },
    /// Release all clients. Answered by [`HoldEvent::Released`]. Harmless when nothing is held; ignored when a `Begin` with a higher
    /// ticket came before it.
    Release { ticket: u64 },
}

impl HoldOrder {
    #[must_use]
    pub fn ticket(self) -> u64 {
        match self {
            Self::Begin { ticket } | Self::Shut { ticket } | Self::Move { ticket, .. } | Self::Release { ticket } => {
                ticket
            }
        }
    }
}

/// What a core answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEvent {
    /// Clients are held and no unit of work is outstanding on this core: nothing reaches the server until the release.
    Drained,
    /// The blocking commands of the order wait at the new authority; when the next one on this core began to wait.
    Moved { next_us: Option<u64> },
    /// The hold is over: `held` clients had been waiting, the longest of them for `longest_hold_us`.
    Released { held: u64, longest_hold_us: u64 },
    /// An interlay of this kind cannot hold its clients.
    Unsupported,
}
