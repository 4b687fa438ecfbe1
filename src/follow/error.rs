//! What can go wrong with a server: typed, with the server it is about, and one sentence made of it.

use std::fmt;
use std::time::Duration;

/// Work on a server ended early. Trying again is safe, on a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerError {
    /// It could not be reached, was lost, or refused the login. `server` is "endpoint NAME (ADDRESS)".
    Unusable { server: String, cause: ServerFault },
    /// It answered something that no server should.
    Answer { server: String, what: String },
}

/// What kept work from its server.
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

impl ServerError {
    pub fn unusable(server: impl Into<String>, cause: ServerFault) -> Self {
        Self::Unusable { server: server.into(), cause }
    }

    pub fn answer(server: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Answer { server: server.into(), what: what.into() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable { server, cause } => write!(f, "{server}: {cause}"),
            Self::Answer { server, what } => write!(f, "{server}: {what}"),
        }
    }
}

impl std::error::Error for ServerError {}

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

/// Why following a server ended. Whether its stream can be continued is found by asking it.
#[derive(Debug, Clone)]
pub enum FollowError {
    Server(ServerError),
    /// The server answers, but no longer has the stream behind this place: everything must be copied again.
    Gone {
        server: String,
        why: String,
    },
    /// The snapshot holds what this version cannot read.
    Snapshot {
        what: String,
    },
    /// The stream holds what no server should send.
    Stream {
        server: String,
        what: String,
    },
    /// What waits for its use has no room.
    Spill {
        why: String,
    },
}

impl From<ServerError> for FollowError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<wire::rdb::splitter::SplitError> for FollowError {
    fn from(error: wire::rdb::splitter::SplitError) -> Self {
        Self::Snapshot { what: error.to_string() }
    }
}

impl From<crate::redis::spill::SpillError> for FollowError {
    fn from(error: crate::redis::spill::SpillError) -> Self {
        Self::Spill { why: error.to_string() }
    }
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Gone { server, why } => write!(f, "{server}: its stream cannot be continued: {why}"),
            Self::Snapshot { what } => write!(f, "the source's snapshot cannot be read: {what}"),
            Self::Stream { server, what } => write!(f, "{server}: {what}"),
            Self::Spill { why } => f.write_str(why),
        }
    }
}

impl std::error::Error for FollowError {}
