//! The bus: the only place where the control thread and the cores meet.
//!
//! Control sends a [`Directive`], a core answers with a [`Report`]. Both travel in bounded [`Mailbox`]es woken by eventfd.

mod companion;
mod confirm;
pub mod counters;
mod hold;
mod lane;
mod mailbox;

use std::sync::Arc;

pub use companion::{CompanionEvent, CompanionOrder, companion_core};
pub use confirm::ConfirmOrder;
pub use hold::{HoldEvent, HoldOrder};
pub use lane::{LaneEvent, LaneOrder, LaneStatus, PassKind};
pub use mailbox::Mailbox;

use crate::counters::CoreCounters;
use base::model::{CoreId, Generation, InterlayName, RoutePlan, SampledRead, SessionInfo, StatementSample};
use policy::{CorePolicies, PolicyNote, SeatStats, ViewContext};

/// A plan, and the context that policies' views show while it is in force.
#[derive(Debug, Clone)]
pub struct Published {
    pub plan: Arc<RoutePlan>,
    pub view: ViewContext,
}

/// From the control thread to one core.
#[derive(Debug)]
pub enum Directive {
    /// Adopt this plan; answered by [`Report::PlanAcked`] once no command of the previous plan is outstanding on this core.
    /// A plan that changes the authority in dual operation comes while the lane is fenced; it stays fenced until [`LaneOrder::Release`].
    Publish(Published),
    /// For the companion of an interlay; sent to core [`companion_core`] only.
    Companion { interlay: InterlayName, order: CompanionOrder },
    /// Whether clients of an interlay may begin new units of work. Answered by [`Report::Hold`].
    Hold { interlay: InterlayName, order: HoldOrder },
    /// When the replies to writes may be delivered.
    Confirm { interlay: InterlayName, order: ConfirmOrder },
    /// Use these filters from the next command on. Answered by [`Report::PoliciesAdopted`].
    Policies { interlay: InterlayName, policies: Box<CorePolicies> },
    /// Send [`Report::Sessions`].
    Sessions { interlay: InterlayName, ticket: u64 },
    /// Send [`Report::Counters`], [`Report::Policies`] for interlays with filters, [`Report::Statements`] and [`Report::Reads`] for those
    /// that sample.
    Sample,
    /// Stop accepting, let outstanding commands finish for at most this long, close, answer [`Report::Drained`].
    Drain { deadline_ms: u64 },
}

/// From one core to the control thread.
#[derive(Debug)]
pub enum Report {
    PlanAcked {
        core: CoreId,
        interlay: InterlayName,
        generation: Generation,
    },
    Companion {
        interlay: InterlayName,
        event: CompanionEvent,
    },
    Counters {
        core: CoreId,
        interlays: Vec<(InterlayName, CoreCounters)>,
    },
    Hold {
        core: CoreId,
        interlay: InterlayName,
        ticket: u64,
        event: HoldEvent,
    },
    /// Replies are withheld until [`ConfirmOrder::Confirmed`] comes with this ticket. A core has one outstanding at a time.
    Confirm {
        core: CoreId,
        interlay: InterlayName,
        ticket: u64,
    },
    /// At most [`base::model::limits::SESSIONS_LISTED_MAX`]; those that a hold waits for come first, the oldest of them first. `total` are all sessions
    /// of this core, `busy` those that are inside a unit of work.
    Sessions {
        core: CoreId,
        interlay: InterlayName,
        ticket: u64,
        total: u64,
        busy: u64,
        sessions: Vec<SessionInfo>,
    },
    /// The set of filters of this generation is in force on this core. `before`: the final statistics of the filters it replaced.
    PoliciesAdopted {
        core: CoreId,
        interlay: InterlayName,
        generation: u64,
        before: Vec<SeatStats>,
    },
    /// Statistics of the filters in force since they were adopted.
    Policies {
        core: CoreId,
        interlay: InterlayName,
        generation: u64,
        seats: Vec<SeatStats>,
    },
    /// Notes for the operator about the filters of this generation; sent as they arise.
    PolicyNotes {
        core: CoreId,
        interlay: InterlayName,
        generation: u64,
        notes: Vec<PolicyNote>,
    },
    /// Statements sampled since the last [`Directive::Sample`].
    Statements {
        interlay: InterlayName,
        samples: Vec<StatementSample>,
    },
    /// Reads of clients sampled since the last [`Directive::Sample`], at most [`base::model::limits::SAMPLED_READS_MAX`].
    Reads {
        interlay: InterlayName,
        reads: Vec<SampledRead>,
    },
    Drained {
        core: CoreId,
    },
    /// The core cannot continue (for example because io_uring and epoll are both unavailable); the process should stop with this reason.
    CoreFailed {
        core: CoreId,
        reason: String,
    },
}

/// Control's end of the bus: one mailbox to each core, one shared mailbox for all reports.
#[derive(Debug, Clone)]
pub struct Switchboard {
    pub cores: Vec<Mailbox<Directive>>,
    pub reports: Mailbox<Report>,
}

impl Switchboard {
    /// # Errors
    /// The operating system's, when an eventfd cannot be made.
    pub fn new(cores: u16) -> std::io::Result<Self> {
        use base::model::limits;
        let cores =
            (0..cores).map(|_| Mailbox::new(limits::DIRECTIVE_QUEUE_LEN)).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { cores, reports: Mailbox::new(limits::REPORT_QUEUE_LEN)? })
    }
}
