//! An open-loop load generator for RESP: due times, latencies from them, no coordinated omission. `loadgen --help`.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crossfade_loadtest::bench::engine::{Drive, Settings, fill, run};
use crossfade_loadtest::bench::idle::Idle;
use crossfade_loadtest::bench::knee::{Bounds, Step, search};
use crossfade_loadtest::bench::latency::Outcome;
use crossfade_loadtest::bench::options::{HELP, Options, Task, parse};
use serde_json::{Value as Json, json};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match parse(&words).and_then(|options| carry_out(&options).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(options: &Options) -> std::io::Result<()> {
    let settings = &options.settings;
    if options.fill {
        fill(settings.address, settings.keys, settings.value_bytes)?;
    }
    if options.until_eof {
        let stop = Arc::clone(&settings.stop);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        });
    }
    match &options.task {
        Task::Help => println!("{HELP}"),
        Task::Run => {
            let outcome = run(settings)?;
            println!("{}", merged(&described(settings), &outcome.json()));
        }
        Task::FindKnee { start, bounds } => println!("{}", knee(settings, *start, bounds)?),
        Task::Idle { connections, hold } => {
            let idle = Idle::open(settings.address, *connections)?;
            println!("{}", json!({ "mode": "idle", "connections": idle.count() }));
            until_input_ends(*hold);
        }
    }
    Ok(())
}

fn described(settings: &Settings) -> Json {
    let (mode, asked) = match settings.drive {
        Drive::Open { per_second, .. } => ("open", Some(per_second)),
        Drive::Closed => ("closed", None),
    };
    json!({
        "mode": mode, "asked_per_s": asked, "connections": settings.connections, "threads": settings.threads,
        "pipeline": settings.pipeline, "keys": settings.keys, "value_bytes": settings.value_bytes,
        "read_share": settings.read_share, "warmup_s": settings.warmup.as_secs_f64(), "seed": settings.seed,
    })
}

fn merged(first: &Json, second: &Json) -> Json {
    let objects = [first, second].into_iter().filter_map(Json::as_object);
    Json::Object(objects.flatten().map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn knee(settings: &Settings, start: f64, bounds: &Bounds) -> std::io::Result<Json> {
    let Drive::Open { spacing, .. } = settings.drive else { unreachable!("options: --find-knee has a rate") };
    let found = search(start, bounds, |per_second| {
        let outcome = run(&Settings { drive: Drive::Open { per_second, spacing }, ..settings.clone() })?;
        let step = step(per_second, &outcome);
        eprintln!("loadgen: {}", shown(&step, bounds));
        Ok::<_, std::io::Error>(step)
    })?;
    let steps: Vec<Json> = found.steps.iter().map(|step| shown(step, bounds)).collect();
    let told = json!({
        "mode": "find-knee", "p99_bound_us": bounds.p99_us_max, "step_s": settings.duration.as_secs_f64(),
        "knee_per_s": found.best.map(|step| step.reached_per_s.round()),
        "best": found.best.map(|step| shown(&step, bounds)), "failed": found.failed.map(|step| shown(&step, bounds)), "steps": steps,
    });
    Ok(merged(&described(settings), &told))
}

fn step(asked_per_s: f64, outcome: &Outcome) -> Step {
    Step {
        asked_per_s,
        due_per_s: outcome.due_per_second(),
        reached_per_s: outcome.reached_per_second(),
        p99_us: outcome.latencies.us(0.99),
        errors: outcome.errors + outcome.unanswered,
    }
}

fn shown(step: &Step, bounds: &Bounds) -> Json {
    json!({
        "asked_per_s": step.asked_per_s.round(), "due_per_s": step.due_per_s.round(), "reached_per_s": step.reached_per_s.round(),
        "p99_us": step.p99_us, "errors": step.errors, "sustained": bounds.sustained(step),
    })
}

/// Returns when standard input ends, so that this process ends with its parent; or when `hold` has passed.
fn until_input_ends(hold: Duration) {
    let (ended, wait) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended);
    });
    let _ = wait.recv_timeout(hold);
}
