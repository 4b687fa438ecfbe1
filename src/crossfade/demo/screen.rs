//! The output while the demo runs: a progress bar per step on a terminal, a line every few seconds otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value as Json;

/// Time between two lines when the output is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    started: Instant,
    step: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Screen {
    pub fn new() -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, started: now, step: String::new(), bar: None, last_line: now }
    }

    fn clock(&self) -> String {
        format!("{:5.1} s", self.started.elapsed().as_secs_f64())
    }

    /// Begins a step; the previous one is complete.
    pub fn step(&mut self, name: &str) {
        self.end_bar();
        name.clone_into(&mut self.step);
        self.last_line = Instant::now();
        if self.terminal {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{elapsed:>4} {prefix:<28} {bar:30} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(self.step.clone());
            self.bar = Some(bar);
        } else {
            eprintln!("{}  {name}", self.clock());
        }
    }

    /// Progress of the present step.
    pub fn update(&mut self, done: u64, total: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(done));
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{}    {done} of {total}  {message}", self.clock());
        }
    }

    /// Prints a line that stays.
    pub fn say(&mut self, text: &str) {
        let line = format!("{}    {text}", self.clock());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Shows a migration as the API describes it, with the clients' requests so far.
    pub fn migration(&mut self, now: &Json, requests: u64, errors: u64) {
        let backfill = &now["backfill"];
        let message = format!(
            "{} {}  {:.0} keys/s  dirty {}  in flight {}  | clients: {requests} requests, {errors} errors",
            now["phase"].as_str().unwrap_or("?"),
            now["authority"].as_str().unwrap_or("?"),
            backfill["rate_per_second"].as_f64().unwrap_or(0.0),
            now["dirty"],
            now["in_flight"],
        );
        self.update(backfill["done"].as_u64().unwrap_or(0), backfill["total"].as_u64().unwrap_or(0), &message);
    }

    fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}
