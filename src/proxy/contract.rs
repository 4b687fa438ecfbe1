//! The contract between the data plane, which moves bytes, and what knows a protocol: one [`Relay`] per interlay and core.
//!
//! Bytes, plans and orders go in; bytes and [`Ask`]s come out. A relay is sans-io: it opens nothing, reads no clock and no randomness,
//! knows no phase. Nothing here names a protocol; the relays themselves are in `interlay`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::redis::lane::request::{LaneBatch, LaneReply};
use base::model::{CoreId, Generation, InterlaySpec, RoutePlan, SessionInfo, Side, StatementSample};
use base::stdx::clock::Now;
use base::stdx::slab::SlabKey;
use bus::counters::CoreCounters;
use bus::{HoldEvent, HoldOrder};
pub use policy::SharedPolicies;

/// Key of a client connection in its relay.
pub type ClientKey = SlabKey;
/// Key of an upstream connection in its relay.
pub type UpstreamKey = SlabKey;

/// What a relay is made with.
#[derive(Debug)]
pub struct RelaySetup {
    pub spec: InterlaySpec,
    pub plan: Arc<RoutePlan>,
    pub core: CoreId,
    pub cores: u16,
    /// Different for every process; part of the names of its connections.
    pub token: u64,
    /// From the operating system, one for the process; whoever draws from it mixes in who it is.
    pub seed: [u8; 32],
    pub policies: SharedPolicies,
}

/// Something only the owner of the sockets can do.
#[derive(Debug)]
pub enum Ask {
    /// Open a connection to the plan's endpoint of `side`, then call `upstream_opened` or `upstream_failed`.
    Connect {
        upstream: UpstreamKey,
        side: Side,
    },
    /// From now on this connection speaks TLS, as its endpoint is configured; then call `upstream_secured` or `upstream_failed`.
    SecureUpstream {
        upstream: UpstreamKey,
        side: Side,
    },
    /// Send `prologue` in the clear, then speak TLS with this client, beginning with the bytes it has sent already; then call
    /// `client_secured`. A handshake that fails ends the connection.
    SecureClient {
        client: ClientKey,
        prologue: &'static [u8],
        begun: Vec<u8>,
    },
    CloseUpstream(UpstreamKey),
    CloseClient(ClientKey),
    /// The client may be read again.
    ReadClient(ClientKey),
    /// The server may be read again.
    ReadUpstream(UpstreamKey),
    /// Hand this to the relay of the same interlay on another core.
    Hand {
        to: CoreId,
        interrupt: Interrupt,
    },
}

/// A request to stop what a session is running; may come in on any core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    pub session: u32,
    /// What the asker knows; compared with the session's own.
    pub key: Vec<u8>,
}

/// Why an upstream connection is not there.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The server answered the log-in with this error frame.
    Refused(Vec<u8>),
    /// It could not be reached; nothing was sent.
    Unreachable(String),
    /// It broke; what was outstanding has an unknown outcome.
    Lost(String),
}

/// Who knocks.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub peer: Option<SocketAddr>,
    pub now: Now,
}

/// What a TLS handshake with a client agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// ALPN.
    pub application_protocol: Option<Vec<u8>>,
}

/// Sessions for a list.
#[derive(Debug, Default)]
pub struct SessionList {
    pub total: u64,
    pub busy: u64,
    pub sessions: Vec<SessionInfo>,
}

/// One interlay on one core. After every call that changes something the caller drains `take_asks` and the lists of ready
/// connections; see `dataplane::core::pump`.
pub trait Relay {
    // ---- clients ------------------------------------------------------------------------------------------------------

    /// A client connected.
    ///
    /// # Errors
    /// It is not let in: what to tell it, in its protocol, before the connection is closed.
    fn client_opened(&mut self, arrival: Arrival) -> Result<ClientKey, Vec<u8>>;

    /// Bytes arrived from a client, out of its TLS if it has one.
    fn client_input(&mut self, key: ClientKey, bytes: &[u8], now: Now);

    /// The TLS asked for with [`Ask::SecureClient`] stands.
    fn client_secured(&mut self, _key: ClientKey, _secured: &Secured) {}

    /// The client's connection is gone. What it had outstanding still runs; the replies go nowhere.
    fn client_closed(&mut self, key: ClientKey);

    /// Whether more may be read from this client's socket now. Each time the answer turns to yes there is an [`Ask::ReadClient`].
    fn may_read_client(&self, key: ClientKey) -> bool;

    /// Moves a client's unsent bytes out; `recycled` becomes its next buffer. `None` when there is nothing to send.
    fn take_client_output(&mut self, key: ClientKey, recycled: Vec<u8>) -> Option<Vec<u8>>;

    /// All that was taken has been sent; true when the connection should now be closed.
    fn client_written(&mut self, key: ClientKey) -> bool;

    // ---- servers ------------------------------------------------------------------------------------------------------

    /// The socket asked for with [`Ask::Connect`] is open; logging in is the relay's business.
    fn upstream_opened(&mut self, key: UpstreamKey, now: Now);

    /// The TLS asked for with [`Ask::SecureUpstream`] stands.
    fn upstream_secured(&mut self, _key: UpstreamKey) {}

    /// Whether the connection is ready for use; one that is not within `limits::CONNECT_TIMEOUT` is closed.
    fn upstream_ready(&self, key: UpstreamKey) -> bool;

    /// It could not be made, or it broke. Everything outstanding on it gets its due.
    fn upstream_failed(&mut self, key: UpstreamKey, failure: &Failure);

    /// Bytes arrived from a server. `Err`: they are not the protocol; the caller closes and calls `upstream_failed`.
    ///
    /// # Errors
    /// Says what was wrong.
    fn upstream_input(&mut self, key: UpstreamKey, bytes: &[u8], now: Now) -> Result<(), String>;

    /// Whether more may be read from this server's socket now. Each time the answer turns to yes there is an [`Ask::ReadUpstream`].
    fn may_read_upstream(&self, _key: UpstreamKey) -> bool {
        true
    }

    /// Moves a connection's unsent bytes out; `recycled` becomes its next buffer.
    fn take_upstream_output(&mut self, key: UpstreamKey, recycled: Vec<u8>) -> Option<Vec<u8>>;

    /// Whether unsent bytes are to be sent now, and not only when all clients who are ready have been heard: nobody shares the
    /// connection, or there are many. A connection is named again as ready when this turns true.
    fn upstream_is_urgent(&self, key: UpstreamKey) -> bool;

    // ---- what the caller must do --------------------------------------------------------------------------------------

    fn take_asks(&mut self) -> Vec<Ask>;

    /// Clients with bytes to be sent.
    fn take_ready_clients(&mut self) -> Vec<ClientKey>;

    /// Upstream connections with bytes to be sent.
    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey>;

    /// Housekeeping, some times per second: whatever has waited too long.
    fn tick(&mut self, _now: Now) {}

    // ---- plans --------------------------------------------------------------------------------------------------------

    fn plan(&self) -> &Arc<RoutePlan>;

    /// Adopts `plan` for everything from now on. [`Relay::take_acked_plan`] tells when the old one is over.
    fn publish(&mut self, plan: Arc<RoutePlan>);

    /// Generation of a plan of whose predecessor nothing is outstanding any more, since the last call.
    fn take_acked_plan(&mut self) -> Option<Generation>;

    /// True while a published plan is not acked.
    fn barrier_pending(&self) -> bool;

    /// Tries again to end what holds up a plan. Called every few milliseconds while one is not acked.
    fn nudge_barrier(&mut self) {}

    /// The old plan's commands did not end in time: their connections are closed, their clients with them (the outcome is unknown).
    fn break_barrier(&mut self);

    /// No new clients; those with nothing outstanding are closed now, the others as soon as their replies are sent.
    fn drain(&mut self);

    fn is_drained(&self) -> bool;

    // ---- the lane (dual operation) -------------------------------------------------------------------------------------

    /// Commands for the lane, in the order in which they must enter it.
    fn take_lane_batches(&mut self) -> Vec<LaneBatch> {
        Vec::new()
    }

    fn lane_reply(&mut self, _reply: LaneReply) {}

    // ---- the gate and those who wait at it -------------------------------------------------------------------------------

    /// Closes or opens the gate; `None` where this kind of interlay has none. Answers come from [`Relay::take_hold_events`].
    fn hold(&mut self, _order: HoldOrder, _now: Now) -> Option<()> {
        None
    }

    /// Answers by ticket.
    fn take_hold_events(&mut self) -> Vec<(u64, HoldEvent)> {
        Vec::new()
    }

    fn sessions(&self, _now: Now) -> SessionList {
        SessionList::default()
    }

    /// An [`Interrupt`] from another core.
    fn interrupt(&mut self, _interrupt: &Interrupt) {}

    // ---- what is counted -------------------------------------------------------------------------------------------------

    fn counters(&self) -> CoreCounters;

    fn take_statements(&mut self) -> Vec<StatementSample> {
        Vec::new()
    }
}
