//! Why work on a server ended early: typed, with the server or interlay it is about, and one sentence made of it.
//!
//! Not what an operator is refused (that is control's). Crosses from the movers' thread to the control thread.

use std::fmt;
use std::time::Duration;

use base::model::InterlayName;
pub use follow::error::{ServerError, ServerFault};

/// Why a job ended early. Trying again is safe after every one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    Cancelled,
    Server(ServerError),
    /// The data plane did not take or not answer an order.
    Order {
        interlay: InterlayName,
        order: &'static str,
        cause: OrderFault,
    },
    /// This kind of database cannot do that in this version.
    Unsupported(Unsupported),
    /// The two sides of this interlay are not kept in step, so there is nothing to do it with.
    NotInStep(InterlayName),
    /// The movers' thread has ended, or the job ended without a result.
    Stopped,
}

/// What became of an order to the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderFault {
    /// The core's mailbox stayed full.
    Full,
    NoAnswer(Duration),
    /// The answer can no longer come.
    Abandoned,
    Failed(String),
    /// It was answered by something else.
    Mismatched(String),
}

/// Something a mover cannot do, with the reason and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl JobError {
    pub(crate) fn server(server: impl Into<String>, cause: ServerFault) -> Self {
        Self::Server(ServerError::unusable(server, cause))
    }

    pub(crate) fn answer(server: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Server(ServerError::answer(server, what))
    }
}

impl From<ServerError> for JobError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Server(error) => error.fmt(f),
            Self::Order { interlay, order, cause } => match cause {
                OrderFault::Full => {
                    write!(f, "interlay {interlay}: the core takes no more orders, so the {order} was not sent")
                }
                OrderFault::NoAnswer(after) => {
                    write!(f, "interlay {interlay}: the {order} was not answered within {} s", after.as_secs())
                }
                OrderFault::Abandoned => write!(f, "interlay {interlay}: the {order} was abandoned"),
                OrderFault::Failed(why) => write!(f, "interlay {interlay}: the {order} failed: {why}"),
                OrderFault::Mismatched(answer) => {
                    write!(f, "interlay {interlay}: the {order} was answered by {answer}")
                }
            },
            Self::Unsupported(why) => why.fmt(f),
            Self::NotInStep(interlay) => write!(f, "interlay {interlay}: the two sides are not kept in step"),
            Self::Stopped => f.write_str("the job ended without a result: the movers' thread has stopped or failed"),
        }
    }
}

impl std::error::Error for JobError {}
