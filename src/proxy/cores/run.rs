//! The life of one core: what its thread is started with, and the loops that take directives, other cores' messages and time.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::{Core, CoreMessage, Interlay, SharedCore};
use super::directives::obey;
use super::links::Links;
use super::mapped_file::MappedFile;
use super::outbox::Outbox;
use super::pump::pump;
use super::tls::TlsKit;
use super::{connect, listener};
use crate::contract::{RelaySetup, SharedPolicies};
use crate::protocols;
use base::model::{CoreId, InterlaySpec};
use base::stdx::slab::SlabMap;
use bus::{Directive, Mailbox, Published, Report, companion_core};

/// Time between two ticks of a core on which something is under way.
const BUSY_TICK: Duration = Duration::from_millis(2);
/// Of a core on which nothing is.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// What a core's thread is started with.
pub struct CoreSetup {
    pub id: CoreId,
    pub cores: u16,
    /// Different for every process; part of the names of its connections.
    pub token: u64,
    pub seed: [u8; 32],
    /// What all cores count their monotonic time from: clients of different cores are put in order by it.
    pub start: Instant,
    pub interlays: Vec<(InterlayStart, TcpListener)>,
    pub tls: TlsKit,
    pub directives: Mailbox<Directive>,
    pub reports: Mailbox<Report>,
    pub handovers: Vec<Mailbox<CoreMessage>>,
    /// Where files are kept that must outlive the process.
    pub data_dir: PathBuf,
}

/// One interlay as a core begins it.
#[derive(Clone)]
pub struct InterlayStart {
    pub spec: InterlaySpec,
    /// What is in force from the start.
    pub first: Published,
    /// How it presents itself to clients that want TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The life of a core.
pub async fn run(setup: CoreSetup) {
    let CoreSetup { id, cores, token, seed, start, interlays, tls, directives, reports, handovers, data_dir } = setup;
    let own_handover = handovers[usize::from(id.0)].clone();
    let mut sockets = Vec::new();
    let mut built = Vec::new();
    for (InterlayStart { spec, first: Published { plan, view }, tls }, socket) in interlays {
        sockets.push(socket);
        let policies = SharedPolicies::default();
        let name = spec.name.clone();
        let setup = RelaySetup { spec, plan, core: id, cores, token, seed, policies: Rc::clone(&policies) };
        let kept = || Box::new(MappedFile::of_interlay(&data_dir, &name));
        let companion = if companion_core(&name) == id { protocols::companion(setup.clone(), kept()) } else { None };
        built.push(Interlay {
            name,
            relay: protocols::relay(setup),
            policies,
            view,
            companion,
            links: Links::default(),
            clients: SlabMap::default(),
            upstreams: SlabMap::default(),
            tls,
            barrier_deadline_us: None,
        });
    }
    let core = Rc::new(RefCell::new(Core {
        id,
        start,
        interlays: built,
        tls,
        handovers: Outbox::new(handovers),
        reports: Outbox::new(vec![reports]),
        drain_deadline_us: None,
    }));
    for (index, socket) in sockets.into_iter().enumerate() {
        pump(&core, index); // a companion may have asked for its connections
        monoio::spawn(listener::accept(Rc::clone(&core), index, socket));
    }
    monoio::spawn(take_messages(Rc::clone(&core), own_handover));
    monoio::spawn(take_directives(Rc::clone(&core), directives));
    tick_until_drained(&core).await;
    core.borrow_mut().report(Report::Drained { core: id });
}

async fn take_messages(core: SharedCore, mailbox: Mailbox<CoreMessage>) {
    let waker = match connect::MailboxWaker::new(mailbox.wake_fd()) {
        Ok(waker) => waker,
        Err(error) => return core.borrow_mut().fail(&format!("cannot watch the mailbox of other cores: {error}")),
    };
    loop {
        waker.readable().await;
        mailbox.arm();
        let mut touched = Vec::new();
        while let Some(message) = mailbox.pop() {
            let mut borrowed = core.borrow_mut();
            let now = borrowed.now();
            let index = borrowed.receive(message, now);
            if !touched.contains(&index) {
                touched.push(index);
            }
        }
        for index in touched {
            pump(&core, index);
        }
    }
}

async fn take_directives(core: SharedCore, mailbox: Mailbox<Directive>) {
    let waker = match connect::MailboxWaker::new(mailbox.wake_fd()) {
        Ok(waker) => waker,
        Err(error) => return core.borrow_mut().fail(&format!("cannot watch the directive mailbox: {error}")),
    };
    loop {
        waker.readable().await;
        mailbox.arm();
        while let Some(directive) = mailbox.pop() {
            obey(&core, directive);
        }
    }
}

/// Housekeeping; returns when the core is drained.
async fn tick_until_drained(core: &SharedCore) {
    loop {
        let pause = if core.borrow().is_busy() { BUSY_TICK } else { IDLE_TICK };
        monoio::time::sleep(pause).await;
        let count = core.borrow().interlays.len();
        for index in 0..count {
            {
                let mut borrowed = core.borrow_mut();
                let now = borrowed.now();
                borrowed.tick(index, now);
            }
            pump(core, index);
        }
        let mut borrowed = core.borrow_mut();
        borrowed.handovers.retry();
        borrowed.reports.retry();
        let now = borrowed.now();
        if borrowed.is_over(now) {
            return;
        }
    }
}
