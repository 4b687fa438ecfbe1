//! What is known of one client session, for the list of sessions and for a pause that waits for one. Crosses from a core to control.

use std::net::SocketAddr;

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    LoggingIn,
    /// Logging in on the server.
    Connecting,
    /// Nothing outstanding, no transaction.
    Idle,
    /// A statement is running, outside a transaction block.
    Active,
    /// A statement is running inside a transaction block.
    ActiveInTransaction,
    IdleInTransaction,
    /// The block has failed and waits for ROLLBACK.
    FailedTransaction,
    CopyIn,
    CopyOut,
    /// Wants to begin a unit of work and is held by a pause.
    Held,
}

impl SessionState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoggingIn => "logging in",
            Self::Connecting => "being let in",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::ActiveInTransaction => "active in transaction",
            Self::IdleInTransaction => "idle in transaction",
            Self::FailedTransaction => "idle in failed transaction",
            Self::CopyIn => "copy in",
            Self::CopyOut => "copy out",
            Self::Held => "held",
        }
    }
}

/// One session at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Unique over all cores of the process; what the client was given as its backend process id.
    pub id: u32,
    pub user: String,
    pub database: String,
    pub application: String,
    pub peer: Option<SocketAddr>,
    pub state: SessionState,
    /// Since it entered that state; for a transaction, since the transaction began.
    pub age_us: u64,
    /// Classes of session state it has (see `wire::postgres::facts`), such as "set", "listen", "temp table".
    pub keeps: Vec<&'static str>,
}
