//! Why work on a server ended early: typed, with the server or interlay it is about, and one sentence made of it.
//!
//! Not what an operator is refused (that is control's). Crosses from the movers' thread to the control thread.

use std::fmt;
use std::time::Duration;

use base::model::InterlayName;

/// Why a job ended early. Trying again is safe after every one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    Cancelled,
    /// A server could not be reached, was lost, or refused the login. `server` is "endpoint NAME (ADDRESS)".
    Server {
        server: String,
        cause: ServerFault,
    },
    /// A server answered something that no server should.
    Answer {
        server: String,
        what: String,
    },
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

/// What kept a job from its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFault {
    /// Url, TLS or socket path do not fit.
    Settings(String),
    /// The endpoint is of another kind than this work is done on.
    Kind(String),
    Connect(String),
    ConnectTimeout(Duration),
    LoginRefused(String),
    /// The server's own words to something that should work.
    Refused(String),
    Lost(String),
    Closed,
    ReplyTimeout(Duration),
    /// It was tried so often; the last cause.
    Repeated {
        attempts: u32,
        last: Box<ServerFault>,
    },
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
        Self::Server { server: server.into(), cause }
    }

    pub(crate) fn answer(server: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Answer { server: server.into(), what: what.into() }
    }
}

impl fmt::Display for ServerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(why) | Self::Kind(why) | Self::Refused(why) => f.write_str(why),
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::ConnectTimeout(after) => {
                write!(f, "no answer within {} s: is the address right and the server up?", after.as_secs())
            }
            Self::LoginRefused(why) => write!(f, "login refused: {why}"),
            Self::Lost(why) => write!(f, "the connection was lost: {why}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::ReplyTimeout(after) => write!(f, "no reply within {} s", after.as_secs()),
            Self::Repeated { attempts, last } => write!(f, "{last} (after {attempts} attempts)"),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Server { server, cause } => write!(f, "{server}: {cause}"),
            Self::Answer { server, what } => write!(f, "{server}: {what}"),
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
