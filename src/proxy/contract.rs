//! The contract between the cores, which move bytes, and what knows a protocol: one [`Relay`] per interlay and core, and on one core
//! perhaps a [`Companion`] beside it.
//!
//! Bytes, plans and orders go in; bytes and asks come out. Relays and companions are sans-io: they open nothing, read no clock and no
//! randomness, know no phase. Nothing here names a protocol; `protocols` does. Each value lives on one core.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use crate::protocols::messages::{ToCompanion, ToRelay};
use base::model::{CoreId, Generation, InterlaySpec, RoutePlan, SampledRead, SessionInfo, Side, StatementSample};
use base::stdx::clock::Now;
use base::stdx::slab::SlabKey;
use bus::counters::CoreCounters;
use bus::{CompanionEvent, CompanionOrder, ConfirmOrder, HoldEvent, HoldOrder};
pub use policy::SharedPolicies;

/// Key of a client connection in its relay.
pub type ClientKey = SlabKey;
/// Key of an upstream connection in its relay.
pub type UpstreamKey = SlabKey;

/// Key of a connection of a companion. A companion never gives the same key twice.
pub type LinkKey = u64;

/// What a relay or companion is made with.
#[derive(Debug, Clone)]
pub struct RelaySetup {
    pub spec: InterlaySpec,
    pub plan: Arc<RoutePlan>,
    pub core: CoreId,
    pub cores: u16,
    /// Different for every process; part of the names of its connections.
    pub token: u64,
    /// Randomness of the operating system, the same for all relays of the process: each mixes in its own core and interlay.
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

/// A request to stop what a session is running. A client may send it to any core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    pub session: u32,
    /// The secret that came with the request; compared with the session's own.
    pub key: Vec<u8>,
}

/// Why an upstream connection cannot be used.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The server answered the log-in with this error frame.
    Refused(Vec<u8>),
    /// It could not be reached; nothing was sent.
    Unreachable(String),
    /// It broke; what was outstanding has an unknown outcome.
    Lost(String),
}

/// Which client connects, and when.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub peer: Option<SocketAddr>,
    pub now: Now,
}

/// What a TLS handshake agreed on.
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

/// An interlay of this kind cannot hold its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldUnsupported;

/// One interlay on one core. After every call that changes something the caller takes the asks, the messages and the lists of ready
/// connections; see `cores::pump`.
pub trait Relay {
    // ---- clients ------------------------------------------------------------------------------------------------------

    /// A client connected.
    ///
    /// # Errors
    /// It is not let in: what to tell it, in its protocol, before the connection is closed.
    fn client_opened(&mut self, arrival: Arrival) -> Result<ClientKey, Vec<u8>>;

    /// Bytes arrived from a client, out of its TLS if it has one.
    fn client_input(&mut self, key: ClientKey, bytes: &[u8], now: Now);

    /// The TLS handshake asked for with [`Ask::SecureClient`] is done.
    fn client_secured(&mut self, _key: ClientKey, _secured: &Secured) {}

    /// The client sends no more, and may still read. True when there is nothing to be sent to it any more; false: when all is sent,
    /// [`Self::client_written`] says that it is to be closed.
    fn client_ended(&mut self, _key: ClientKey) -> bool {
        true
    }

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

    /// The TLS handshake asked for with [`Ask::SecureUpstream`] is done.
    fn upstream_secured(&mut self, _key: UpstreamKey) {}

    /// Whether the connection is ready for use; one that is not within `limits::CONNECT_TIMEOUT` is closed.
    fn upstream_ready(&self, key: UpstreamKey) -> bool;

    /// It could not be made, or it broke. Every client with something outstanding on it is answered or closed.
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

    /// Whether unsent bytes should be sent now rather than after all clients that are ready have been read: because the connection
    /// is not shared, or because there are many bytes. A connection is listed again as ready when this turns true.
    fn upstream_is_urgent(&self, key: UpstreamKey) -> bool;

    // ---- what the caller must do --------------------------------------------------------------------------------------

    fn take_asks(&mut self) -> Vec<Ask>;

    /// Clients with bytes to be sent.
    fn take_ready_clients(&mut self) -> Vec<ClientKey>;

    /// Upstream connections with bytes to be sent.
    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey>;

    /// Time passes. Called some times per second: ends what has waited too long.
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

    // ---- the companion -------------------------------------------------------------------------------------------------

    /// Messages for the companion, in the order in which they must reach it.
    fn take_messages(&mut self) -> Vec<ToCompanion> {
        Vec::new()
    }

    /// The companion answers.
    fn companion_message(&mut self, _message: ToRelay) {}

    // ---- holding clients -----------------------------------------------------------------------------------------------

    /// Holds clients, or lets them go on. Answers come from [`Relay::take_hold_events`].
    ///
    /// # Errors
    /// This kind of interlay cannot hold.
    fn hold(&mut self, _order: HoldOrder, _now: Now) -> Result<(), HoldUnsupported> {
        Err(HoldUnsupported)
    }

    /// Answers by ticket.
    fn take_hold_events(&mut self) -> Vec<(u64, HoldEvent)> {
        Vec::new()
    }

    // ---- confirming writes ---------------------------------------------------------------------------------------------

    /// When withheld replies may be delivered. No other kind of interlay is told.
    fn confirm(&mut self, _order: ConfirmOrder, _now: Now) {}

    /// The ticket under which a confirmation is to be asked for, since the last call.
    fn take_confirm_ticket(&mut self) -> Option<u64> {
        None
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

    /// Reads of clients that are to be compared, since the last call.
    fn take_reads(&mut self) -> Vec<SampledRead> {
        Vec::new()
    }
}

/// Something only the owner of the sockets can do for a companion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompanionAsk {
    /// Keep a connection to the plan's endpoint of `side`: connect, and connect again whenever it ends, until [`CompanionAsk::Close`].
    Connect { link: LinkKey, side: Side },
    /// End the connection, or the tries to make it.
    Close(LinkKey),
}

/// Words of memory that outlive the process, as often as they are shared within one core.
pub type KeptWords = Rc<dyn AsRef<[AtomicU64]>>;

/// Where a companion writes down what the next process has to know: memory that a kill of the process does not touch. A crash of the host may do
/// anything to it, which [`KeptMemory::boot`] tells. Implemented by the owner of the sockets.
pub trait KeptMemory: fmt::Debug {
    /// What an earlier process has left.
    ///
    /// # Errors
    /// Why there is nothing to be read.
    fn left(&mut self) -> Result<KeptWords, String>;

    /// Memory in which every word is zero. What was left is gone.
    ///
    /// # Errors
    /// Why there is none.
    fn fresh(&mut self) -> Result<KeptWords, String>;

    /// What was left is of no use any more.
    fn discard(&mut self);

    /// Another number after each start of the host; 0: not known.
    fn boot(&self) -> u128;
}

/// What one core (`bus::companion_core`) keeps beside the relays of one interlay. It exists as long as the interlay does and decides
/// from the plans it is given when it has something to do.
///
/// After every call that changes something the caller takes the asks, the messages and the events.
pub trait Companion {
    /// A plan was published. The relay of this core has adopted it.
    fn publish(&mut self, plan: &Arc<RoutePlan>, now: Now);

    /// Other filters decide from now on.
    fn policies_changed(&mut self, now: Now);

    /// An order of control.
    fn order(&mut self, order: CompanionOrder, now: Now);

    /// A message from the relay of core `from`.
    fn message(&mut self, from: CoreId, message: ToCompanion, now: Now);

    /// Time passes. Called every few milliseconds while [`Companion::is_active`], otherwise some times per second.
    fn tick(&mut self, now: Now);

    // ---- connections ----------------------------------------------------------------------------------------------------

    /// The socket asked for is open; logging in is the companion's business.
    fn link_opened(&mut self, link: LinkKey, now: Now);

    /// Whether the connection is ready for use; one that is not within `limits::CONNECT_TIMEOUT` is closed.
    fn link_is_ready(&self, link: LinkKey) -> bool;

    /// Bytes arrived. `Err`: they are not the protocol; the caller closes the connection and calls `link_lost`.
    ///
    /// # Errors
    /// Says what was wrong.
    fn link_input(&mut self, link: LinkKey, bytes: &[u8], now: Now) -> Result<(), String>;

    /// The connection broke or could not be made; it is tried again.
    fn link_lost(&mut self, link: LinkKey, why: &str, now: Now);

    fn link_has_output(&self, link: LinkKey) -> bool;

    /// Moves a connection's unsent bytes out; `recycled` becomes its next buffer.
    fn take_link_output(&mut self, link: LinkKey, recycled: Vec<u8>) -> Option<Vec<u8>>;

    // ---- what the caller must do ------------------------------------------------------------------------------------------

    fn take_asks(&mut self) -> Vec<CompanionAsk>;

    /// Messages for relays, each with the core of its relay.
    fn take_messages(&mut self) -> Vec<(CoreId, ToRelay)>;

    /// What control is to be told.
    fn take_events(&mut self) -> Vec<CompanionEvent>;

    // ---- state ----------------------------------------------------------------------------------------------------------

    /// Whether the plan gives it something to do.
    fn is_active(&self) -> bool;

    /// Whether no client waits for it and it has sent all that can be sent.
    fn is_idle(&self) -> bool;

    /// Adds what it has counted since the start.
    fn add_counters(&self, counters: &mut CoreCounters);
}
