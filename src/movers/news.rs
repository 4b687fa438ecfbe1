//! What cores report to a mover: events of companions and answers to holds. From the control thread, which reads the bus, to the
//! movers' thread.

use base::model::{CoreId, SampledRead};
use bus::{CompanionEvent, HoldEvent};

#[derive(Debug)]
pub enum News {
    Companion(CompanionEvent),
    Hold {
        core: CoreId,
        ticket: u64,
        event: HoldEvent,
    },
    /// A core withholds replies until it is told, under this ticket, that the shadow has what they answer.
    Confirm {
        core: CoreId,
        ticket: u64,
    },
    Reads(Vec<SampledRead>),
}
