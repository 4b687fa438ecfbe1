//! Runs the scenarios of `loadtest/scenarios`: everything on loopback, contestants in turns, each repetition in a different order.
//! Called by `scripts/bench.sh`. One thread; the processes it starts end with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crossfade_loadtest::bench::claims::{Sample, judge};
use crossfade_loadtest::bench::contestants::{self, Program};
use crossfade_loadtest::bench::dual::Dual;
use crossfade_loadtest::bench::engine::fill;
use crossfade_loadtest::bench::machine;
use crossfade_loadtest::bench::measure::{Measured, Rates, Target, Tools, backfill, calibrate, flips, on_port};
use crossfade_loadtest::bench::plot::svg;
use crossfade_loadtest::bench::postgres_side::Server;
use crossfade_loadtest::bench::report::Run;
use crossfade_loadtest::bench::scenario::{Block, Book, Load, Scenario};

const HELP: &str = "bench [--quick] [--repetitions N] [--only NAME,NAME] [--results DIRECTORY] [--name NAME] [--list]
  Measures every scenario of loadtest/scenarios, or those named; writes NAME.json, NAME.svg and NAME.txt (default: quick or full).
  CROSSFADE_BIN names the binary (default target/release/crossfade).";

struct Options {
    quick: bool,
    repetitions: u32,
    only: Vec<String>,
    results: PathBuf,
    name: String,
    list: bool,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut options = Options {
        quick: false,
        repetitions: 0,
        only: vec![],
        results: here.join("results"),
        name: String::new(),
        list: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{HELP}"));
        match word.as_str() {
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--repetitions" => options.repetitions = value()?.parse().map_err(|_| "--repetitions: a number")?,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--results" => options.results = value()?.into(),
            "--name" => options.name.clone_from(value()?),
            other => return Err(format!("unknown argument {other:?}\n{HELP}")),
        }
    }
    if options.repetitions == 0 {
        options.repetitions = if options.quick { 1 } else { 5 };
    }
    if options.name.is_empty() {
        (if options.quick { "quick" } else { "full" }).clone_into(&mut options.name);
    }
    Ok(options)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match parse(&words).and_then(|options| carry_out(&options, &words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(options: &Options, words: &[String]) -> Result<(), String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = Book::read(&here.join("scenarios"))?;
    let named = |scenario: &&Scenario| options.only.is_empty() || options.only.contains(&scenario.name);
    if let Some(stranger) = options.only.iter().find(|name| book.scenarios.iter().all(|known| known.name != **name)) {
        return Err(format!("there is no scenario {stranger}; --list shows them"));
    }
    let chosen: Vec<&Scenario> = book.scenarios.iter().filter(named).collect();
    if options.list {
        chosen.iter().for_each(|scenario| println!("{:<28} {}", scenario.name, scenario.row));
        return Ok(());
    }
    let left_out = |scenario: &Scenario| options.quick && scenario.full_only;
    let blocks = book.blocks(chosen.iter().copied().filter(|scenario| !left_out(scenario)));
    let mut session = Session::new(options, &book)?;
    session.run.command = format!("bench {}", words.join(" "));
    let began = Instant::now();
    session.all(&blocks)?;
    let mut run = session.run;
    run.seconds = began.elapsed().as_secs_f64();
    run.load_after = machine::load_average();
    run.judged =
        chosen.iter().flat_map(|scenario| judge(scenario, &run.samples, &run.absent, left_out(scenario))).collect();
    print!("{}", run.text());
    let write = |extension: &str, text: String| {
        let path = options.results.join(format!("{}.{extension}", options.name));
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(&options.results).map_err(|error| format!("{}: {error}", options.results.display()))?;
    let json = serde_json::to_string_pretty(&run.json()).map_err(|error| error.to_string())?;
    write("json", json + "\n")?;
    write("svg", svg(&run))?;
    write("txt", run.text())?;
    println!("written: {}/{}.json, .svg, .txt", options.results.display(), options.name);
    Ok(())
}

/// Contestants that stand in front of one server.
struct Standing {
    target: Target,
    program: Option<Program>,
}

struct Session<'a> {
    tools: Tools,
    loads: &'a BTreeMap<String, Load>,
    repetitions: u32,
    rates: Rates,
    run: Run,
}

impl<'a> Session<'a> {
    fn new(options: &Options, book: &'a Book) -> Result<Self, String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = repository.join("target/release/crossfade");
        let crossfade = std::env::var_os("CROSSFADE_BIN").map_or(built, PathBuf::from);
        let beside = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("loadgen");
        for (what, path) in [("the product: cargo build --release", &crossfade), ("loadgen", &beside)] {
            if !path.is_file() {
                return Err(format!("{} does not exist; it is {what}", path.display()));
            }
        }
        let run = Run {
            machine: machine::described(&crossfade.display().to_string()),
            quick: options.quick,
            repetitions: options.repetitions,
            load_before: machine::load_average(),
            ..Run::default()
        };
        let tools = Tools { crossfade, loadgen: beside, quick: options.quick };
        Ok(Self { tools, loads: &book.loads, repetitions: options.repetitions, rates: Rates::new(), run })
    }

    fn all(&mut self, blocks: &[Block]) -> Result<(), String> {
        let is_postgres = |block: &Block| block.loads.iter().any(|load| self.loads[load].is_postgres());
        let (postgres, redis): (Vec<&Block>, Vec<&Block>) = blocks.iter().partition(|block| is_postgres(block));
        let (alone, shared): (Vec<&Block>, Vec<&Block>) = redis.into_iter().partition(|block| block.alone);
        // One group after the other, so that only the contestants being measured are running.
        if !shared.is_empty() {
            self.redis(&shared)?;
        }
        for repetition in 0..self.repetitions {
            for block in &alone {
                self.alone(block, repetition);
            }
        }
        if !postgres.is_empty() {
            self.postgres(&postgres);
        }
        Ok(())
    }

    fn absent(&mut self, who: &str, why: String) {
        eprintln!("*** bench: {who} IS LEFT OUT: {why}");
        self.run.absent.insert(who.to_owned(), why);
    }

    fn redis(&mut self, blocks: &[&Block]) -> Result<(), String> {
        let server = contestants::redis()?;
        let direct = Target { port: server.port, proxy: None, servers: vec![server.pid()] };
        let mut standing = BTreeMap::from([("direct".to_owned(), Standing { target: direct, program: None })]);
        for name in blocks.iter().flat_map(|block| &block.contestants) {
            if standing.contains_key(name) || self.run.absent.contains_key(name) {
                continue;
            }
            match contestants::start(name, &self.tools.crossfade, server.port) {
                Ok(program) => {
                    let target = Target { port: program.port, proxy: Some(program.pid()), servers: vec![server.pid()] };
                    standing.insert(name.clone(), Standing { target, program: Some(program) });
                }
                Err(why) => self.absent(name, why),
            }
        }
        let mut filled = None;
        for repetition in 0..self.repetitions {
            for (number, block) in blocks.iter().enumerate() {
                let load = &block.loads[0];
                let wanted = self.loads[load].fill();
                if let Some((keys, value_bytes)) = wanted.filter(|_| wanted != filled) {
                    redis::cmd("FLUSHALL")
                        .exec(&mut contestants::client(server.port))
                        .and_then(|()| fill(server.address(), keys, value_bytes).map_err(Into::into))
                        .map_err(|error| format!("filling the server: {error}"))?;
                    filled = wanted;
                }
                if matches!(self.loads[load], Load::OpenLoop { .. }) && !self.rates.contains_key(load) {
                    let (rate, command) = calibrate(&self.loads[load], server.port, &self.tools)?;
                    self.rates.insert(load.clone(), rate);
                    self.run.rates.insert(load.clone(), (rate, command));
                }
                for name in rotated(&block.contestants, repetition as usize + number) {
                    if let Some(standing) = standing.get(name) {
                        let measured = on_port(&self.loads[load], load, &standing.target, &self.tools, &self.rates);
                        let measured = measured.map_err(|why| with_log(why, standing.program.as_ref()));
                        self.keep(load, name, false, repetition, measured);
                    }
                }
            }
        }
        Ok(())
    }

    /// Each contestant alone, from its start to its end.
    fn alone(&mut self, block: &Block, repetition: u32) {
        for name in rotated(&block.contestants, repetition as usize) {
            if self.run.absent.contains_key(name) {
                continue;
            }
            if let Some(feed) = contestants::migrating_over(name) {
                for load in &block.loads {
                    let measured = match &self.loads[load] {
                        Load::Backfill { .. } => backfill(&self.loads[load], &self.tools, feed),
                        _ => flips(&self.loads[load], &self.tools, feed),
                    };
                    self.keep(load, name, true, repetition, measured);
                }
                continue;
            }
            if let Err(why) = self.one_alone(name, block, repetition) {
                if repetition == 0 {
                    self.absent(name, why);
                } else {
                    eprintln!("*** bench: {name} did not start again: {why}");
                }
            }
        }
    }

    fn one_alone(&mut self, name: &str, block: &Block, repetition: u32) -> Result<(), String> {
        let (keys, value_bytes) = block.loads.iter().find_map(|load| self.loads[load].fill()).unwrap_or((1, 1));
        let (dual, server, replica, program);
        let target = if let Some(feed) = contestants::dual_over(name) {
            dual = Dual::prepare(&self.tools.crossfade, keys, value_bytes, feed)?;
            dual.compare()?;
            let servers = vec![dual.source.pid(), dual.target.pid()];
            Target { port: dual.proxy.port, proxy: Some(dual.proxy.pid()), servers }
        } else {
            server = contestants::redis()?;
            fill(server.address(), keys, value_bytes).map_err(|error| format!("filling the server: {error}"))?;
            if name == "direct" {
                Target { port: server.port, proxy: None, servers: vec![server.pid()] }
            } else {
                let mut servers = vec![server.pid()];
                if name == contestants::WITH_REPLICA {
                    replica = contestants::replica(server.port)?;
                    servers.push(replica.pid());
                }
                program = contestants::start(name, &self.tools.crossfade, server.port)?;
                Target { port: program.port, proxy: Some(program.pid()), servers }
            }
        };
        for load in &block.loads {
            let measured = on_port(&self.loads[load], load, &target, &self.tools, &self.rates);
            self.keep(load, name, true, repetition, measured);
        }
        Ok(())
    }

    fn postgres(&mut self, blocks: &[&Block]) {
        let server = match Server::start() {
            Ok(server) => server,
            Err(why) => {
                blocks.iter().flat_map(|block| &block.contestants).for_each(|name| self.absent(name, why.clone()));
                return;
            }
        };
        let direct = Target { port: server.port(), proxy: None, servers: vec![server.pid()] };
        let mut standing = BTreeMap::from([("direct".to_owned(), Standing { target: direct, program: None })]);
        for name in blocks.iter().flat_map(|block| &block.contestants) {
            if standing.contains_key(name) || self.run.absent.contains_key(name) {
                continue;
            }
            match server.contestant(name, &self.tools.crossfade) {
                Ok(program) => {
                    let target = Target { port: program.port, proxy: Some(program.pid()), servers: vec![server.pid()] };
                    standing.insert(name.clone(), Standing { target, program: Some(program) });
                }
                Err(why) => self.absent(name, why),
            }
        }
        for repetition in 0..self.repetitions {
            for (number, block) in blocks.iter().enumerate() {
                let load = &block.loads[0];
                for name in rotated(&block.contestants, repetition as usize + number) {
                    if let Some(standing) = standing.get(name) {
                        let measured = on_port(&self.loads[load], load, &standing.target, &self.tools, &self.rates);
                        let measured = measured.map_err(|why| with_log(why, standing.program.as_ref()));
                        self.keep(load, name, false, repetition, measured);
                    }
                }
            }
        }
    }

    fn keep(&mut self, load: &str, contestant: &str, alone: bool, repetition: u32, measured: Result<Measured, String>) {
        let (measured, failed) = match measured {
            Ok(measured) => (measured, None),
            Err(why) => (Measured::default(), Some(why)),
        };
        let told = match (&failed, measured.metrics.get("per_s")) {
            (Some(why), _) => format!("FAILED: {why}"),
            (None, Some(per_s)) => format!("{per_s:.0}/s"),
            (None, None) => measured.metrics.iter().map(|(name, value)| format!("{name} {value:.1} ")).collect(),
        };
        eprintln!("bench: {}/{} {load} {contestant}: {told}", repetition + 1, self.repetitions);
        self.run.samples.push(Sample {
            load: load.to_owned(),
            contestant: contestant.to_owned(),
            alone,
            repetition,
            metrics: measured.metrics,
            command: measured.command,
            curve: measured.curve,
            failed,
        });
    }
}

fn with_log(why: String, program: Option<&Program>) -> String {
    program.map_or(why.clone(), |program| format!("{why}\n{}", program.log_tail(3)))
}

/// A different contestant is first each time.
fn rotated(names: &[String], by: usize) -> impl Iterator<Item = &String> {
    let count = names.len().max(1);
    (0..names.len()).map(move |at| &names[(at + by) % count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contestant_is_first_once_in_as_many_repetitions() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let firsts: Vec<&String> = (0..3).map(|by| rotated(&names, by).next().unwrap()).collect();
        assert_eq!(firsts, ["a", "b", "c"]);
        assert_eq!(rotated(&names, 7).count(), 3);
        assert_eq!(rotated(&[], 1).count(), 0);
    }

    #[test]
    fn a_quick_run_repeats_once_and_has_its_own_name() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let quick = parsed("--quick --only a,b").unwrap();
        assert_eq!((quick.repetitions, quick.name.as_str(), quick.only.len()), (1, "quick", 2));
        let full = parsed("--name x").unwrap();
        assert_eq!((full.repetitions, full.name.as_str()), (5, "x"));
        assert!(parsed("--repetitions").is_err() && parsed("--fast").is_err());
    }
}
