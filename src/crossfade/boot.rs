//! Start and stop: the only place that knows both the data plane and control, and gives each its end of the bus.
//!
//! Order of a start: configuration → store → filters → admin port → cores with their first plans and filters → movers' thread → control
//! loop (which starts that thread) → API. Order of a stop: cores drain → control ends, and with it the movers' thread.
//! Every error that can be found at start is found before a client is accepted.

use std::path::Path;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::cli;
use crate::cli::Output;
use bus::Switchboard;
use control::api;
use control::config::Config;
use control::reconcile::Intent;
use proxy::cores::{Dataplane, DataplaneConfig};

/// Serves until a signal. Returns the exit code.
#[must_use]
pub fn serve(config: &Path) -> i32 {
    start_log();
    match serve_inner(config) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("crossfade: {reason}");
            1
        }
    }
}

/// Reads a configuration, probes its servers, prints what was found. Returns the exit code.
#[must_use]
pub fn check(config: &Path, output: Output) -> i32 {
    let run = || -> Result<i32, String> {
        let config = Config::load(config).map_err(|error| error.to_string())?;
        let found = LocalSet::new().block_on(&runtime()?, control::reconcile::preflight(&config));
        let (endpoints, pairs, filters) = api::preflight(&found?);
        Ok(cli::print_check(output, &endpoints, &pairs, &filters))
    };
    code(run())
}

/// Runs the recorded cases of a filter, without a proxy. Returns the exit code.
#[must_use]
pub fn filter_test(file: &Path, cases: Option<&Path>, output: Output) -> i32 {
    code(api::filter_test(file, cases).map(|found| cli::print_filter_test(output, &found)))
}

/// Measures the hooks of a filter, without a proxy. Returns the exit code.
#[must_use]
pub fn filter_bench(file: &Path, config: &str, output: Output) -> i32 {
    code(api::filter_bench(file, config).map(|found| cli::print_filter_bench(output, &found)))
}

fn code(run: Result<i32, String>) -> i32 {
    run.unwrap_or_else(|reason| {
        eprintln!("crossfade: {reason}");
        1
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| format!("the control thread's runtime cannot be created: {error}"))
}

fn start_log() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("CROSSFADE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A program that embeds this may already have installed a log; that one is kept.
    if std::io::stderr().is_terminal() {
        let _ = builder.try_init();
    } else {
        let _ = builder.json().try_init();
    }
}

fn serve_inner(config: &Path) -> Result<i32, String> {
    // The standard library ignores SIGPIPE before main: a peer that closes its end causes an error of one write.
    let config = Config::load(config).map_err(|error| error.to_string())?;
    let cores = config.core_count();
    let admin = config.admin_listen;
    let data_dir = config.data_dir.clone();
    let endpoint_tls = config.endpoints.iter().map(|endpoint| endpoint.tls.clone()).collect();
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async move {
        let mut intent = Intent::load(config).await?;
        // Before the cores start: a signal during the start must not be lost.
        let mut signals = Signals::new()?;
        let listener = TcpListener::bind(admin).await.map_err(|error| {
            format!(
                "the admin API cannot listen on {admin}: {error}; stop the program that uses the port, or set [admin].listen"
            )
        })?;
        let bus = Switchboard::new(cores).map_err(|error| format!("the bus cannot be created: {error}"))?;
        intent.send_filters(&bus)?;
        let interlays = intent.plans.clone();
        let dataplane = Dataplane::start(DataplaneConfig { cores, interlays, endpoint_tls, data_dir }, &bus)?;
        let (running, handle) = control::reconcile::start(intent, bus, dataplane.driver.clone()).await?;
        let api = tokio::task::spawn_local(api::serve(listener, handle));
        tracing::info!(admin = %admin, cores, driver = %dataplane.driver, "serving");
        let code = tokio::select! {
            () = signals.next() => 0,
            reason = running.failure() => {
                eprintln!("crossfade: {reason}");
                1
            }
            ended = api => {
                eprintln!("crossfade: the admin API ended: {ended:?}");
                1
            }
        };
        tokio::select! {
            drained = running.drain() => {
                if drained {
                    // The threads of drained cores end without further action.
                    dataplane.join();
                    Ok(code)
                } else {
                    eprintln!("crossfade: a core did not drain in time; stopping without waiting for it");
                    Ok(1)
                }
            }
            () = signals.next() => {
                eprintln!("crossfade: received a second signal; stopping at once");
                Ok(1)
            }
        }
    })
}

/// SIGTERM and SIGINT, handled alike.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let watch = |kind| signal(kind).map_err(|error| format!("signals cannot be handled: {error}"));
        Ok(Self { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
