//! The data plane: one pinned thread per core, each with its own monoio runtime, listeners, connections and counters.
//!
//! The only place that names monoio. Learns by [`bus::Directive`]s, answers with [`Report`]s, shares nothing else.

mod client;
mod connect;
mod core;
mod directives;
mod exchange;
mod link_task;
mod links;
mod listener;
mod mapped_file;
mod notify;
mod outbox;
mod policies;
mod pump;
mod run;
mod socket;
mod syscalls;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;

use std::net::TcpListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

use base::model::{ClientTls, CoreId, InterlaySpec, limits};
use bus::{Mailbox, Published, Report, Switchboard};
use core::CoreMessage;
use run::{CoreSetup, InterlayStart};
use tls::TlsKit;

/// Submission entries of a core's ring; a batch larger than this costs a second entry into the kernel.
const RING_ENTRIES: u32 = 4096;

/// What the cores need at start. Every interlay has a first plan, so that a core never has a listener without orders.
#[derive(Debug)]
pub struct DataplaneConfig {
    pub cores: u16,
    pub interlays: Vec<(InterlaySpec, Published)>,
    /// Of every endpoint a plan may name.
    pub endpoint_tls: Vec<ClientTls>,
    /// Where files are kept that must outlive the process.
    pub data_dir: PathBuf,
}

/// The running cores. Stop them with [`bus::Directive::Drain`] to each, then [`Dataplane::join`].
#[derive(Debug)]
pub struct Dataplane {
    threads: Vec<JoinHandle<()>>,
    /// "io_uring", or "epoll" with the reason io_uring was refused; shown in the log and in `/readyz`.
    pub driver: String,
}

impl Dataplane {
    /// Binds every listener (so that a port in use is an error here, naming the interlay and the address) and starts the cores.
    ///
    /// # Errors
    /// A sentence that names the interlay, the address and what to do.
    pub fn start(config: DataplaneConfig, switchboard: &Switchboard) -> Result<Self, String> {
        let driver = driver_name();
        if driver != "io_uring" {
            tracing::warn!(%driver, "running without io_uring");
        }
        let tls = TlsKit::new(&config.endpoint_tls)?;
        let starts = config
            .interlays
            .iter()
            .map(|(spec, first)| {
                Ok(InterlayStart { spec: spec.clone(), first: first.clone(), tls: tls::server_config(spec)? })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let mut listeners = bind_all(&config)?;
        let handovers = (0..config.cores)
            .map(|_| Mailbox::<CoreMessage>::new(limits::HANDOVER_QUEUE_LEN))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| format!("cannot make an eventfd ({error}): raise the open-files limit"))?;
        let start = std::time::Instant::now();
        let token = syscalls::now(start).wall_ms as u64 ^ (u64::from(std::process::id()) << 44);
        let seed = syscalls::seed().map_err(|error| format!("no randomness from the operating system: {error}"))?;
        let mut threads = Vec::new();
        for index in (0..config.cores).rev() {
            let setup = CoreSetup {
                id: CoreId(index),
                cores: config.cores,
                token,
                seed,
                start,
                interlays: starts.iter().cloned().zip(listeners.iter_mut().filter_map(Vec::pop)).collect(),
                tls: tls.clone(),
                directives: switchboard.cores[usize::from(index)].clone(),
                reports: switchboard.reports.clone(),
                handovers: handovers.clone(),
                data_dir: config.data_dir.clone(),
            };
            let reports = switchboard.reports.clone();
            let thread = std::thread::Builder::new()
                .name(format!("core-{index}"))
                .spawn(move || run_core(setup, &reports))
                .map_err(|error| format!("cannot start the thread of core {index}: {error}"))?;
            threads.push(thread);
        }
        Ok(Self { threads, driver })
    }

    /// Waits until every core has ended.
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn bind_all(config: &DataplaneConfig) -> Result<Vec<Vec<TcpListener>>, String> {
    config
        .interlays
        .iter()
        .map(|(spec, _)| {
            syscalls::listeners(spec.listen, config.cores).map_err(|error| {
                format!(
                    "interlay '{}' cannot listen on {}: {error}; stop what listens there or choose another [interlays.{}].listen",
                    spec.name, spec.listen, spec.name
                )
            })
        })
        .collect()
}

/// A core that broke one of its own assertions cannot be trusted with anybody's data, and its clients would wait for ever: the
/// process ends at once, as by kill -9, and what is durable decides at the next start.
struct EndProcessOnPanic(CoreId);

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                core = self.0.0,
                "a core broke an assertion; the process ends. Start it again: nothing acknowledged is lost"
            );
            std::process::abort();
        }
    }
}

fn run_core(setup: CoreSetup, reports: &Mailbox<Report>) {
    let id = setup.id;
    let _end = EndProcessOnPanic(id);
    if setup.cores > 1 {
        syscalls::pin_to_cpu(usize::from(id.0));
    }
    if let Err(error) = block_on_best(setup) {
        let reason = format!("core {} has neither io_uring nor epoll: {error}", id.0);
        let _ = reports.push(Report::CoreFailed { core: id, reason });
    }
}

/// Completions are run when the core enters the kernel anyway, not by interrupting it (`DEFER_TASKRUN`, kernel 6.1); an older kernel
/// gets the plain ring, one without io_uring epoll.
fn block_on_best(setup: CoreSetup) -> std::io::Result<()> {
    if driver_name() == "io_uring" {
        let mut flags = io_uring::IoUring::builder();
        flags.setup_single_issuer().setup_defer_taskrun();
        let ring = |flags| {
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .with_entries(RING_ENTRIES)
                .uring_builder(flags)
                .enable_timer()
                .build()
        };
        let mut runtime = ring(flags).or_else(|_| ring(io_uring::IoUring::builder()))?;
        runtime.block_on(run::run(setup));
    } else {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build()?;
        runtime.block_on(run::run(setup));
    }
    Ok(())
}

fn driver_name() -> String {
    if std::env::var("MONOIO_FORCE_LEGACY_DRIVER").is_ok_and(|value| value == "1") {
        return "epoll (MONOIO_FORCE_LEGACY_DRIVER=1)".to_owned();
    }
    if monoio::utils::detect_uring() {
        return "io_uring".to_owned();
    }
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    format!("epoll (io_uring is refused here: kernel too old, seccomp, or io_uring_disabled={})", disabled.trim())
}
