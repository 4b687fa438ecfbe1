//! Confirmations: a core withholds the replies to writes until the shadow has these too. Both types cross the bus.

/// What control tells one interlay on one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmOrder {
    /// From now on withhold replies until they are confirmed. Harmless when repeated.
    Begin,
    /// No more: what was withheld is delivered. The shadow is not in step, and will not be for some time.
    End,
    /// The shadow has every write that was answered when the core asked under this ticket.
    Confirmed { ticket: u64 },
    /// That will never be known: the authority was lost, or is another one. The clients are closed, as when a server dies.
    Unknown { ticket: u64 },
}
