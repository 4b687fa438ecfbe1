//! Micro-benchmarks of the parts that decide without I/O: what one operation costs in nanoseconds, in one table.
//!
//! Can also run a given number of rounds and nothing else; `scripts/bench-instructions.sh` counts instructions that way. What each
//! operation is: `benches/README.md`. Uses the crates as any other program would.

mod ops {
    pub mod bus;
    pub mod codec;
    pub mod harness;
    pub mod lane;
    pub mod policy;
    pub mod relay;
    pub mod setting;
}

use std::process::ExitCode;

use clap::Parser;
use ops::harness::{Operation, measure};
use ops::{bus, codec, lane, policy, relay};

/// The binary's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what operations cost; without arguments all of them, in a table.
#[derive(Debug, Parser)]
#[command(name = "ops")]
struct Args {
    /// Only operations with this in their name
    names: Vec<String>,
    /// List the operations, how many are in a round of each, and whether their instructions are counted
    #[arg(long)]
    list: bool,
    /// Run this operation and print nothing
    #[arg(long, value_name = "NAME", requires = "rounds", conflicts_with_all = ["names", "list"])]
    run: Option<String>,
    /// Number of rounds
    #[arg(long, value_name = "N", requires = "run")]
    rounds: Option<u64>,
}

fn all() -> impl Iterator<Item = &'static Operation> {
    [codec::OPERATIONS, relay::OPERATIONS, lane::OPERATIONS, policy::OPERATIONS, bus::OPERATIONS].into_iter().flatten()
}

fn main() -> ExitCode {
    match carry_out(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ops: {why}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &Args) -> Result<(), String> {
    if let (Some(name), Some(rounds)) = (&args.run, args.rounds) {
        let operation = all().find(|operation| operation.name == name).ok_or_else(|| unknown(name))?;
        let mut round = (operation.set_up)();
        (0..rounds).for_each(|_| round());
        return Ok(());
    }
    let chosen = chosen(&args.names)?;
    if args.list {
        list(&chosen)
    } else {
        table(&chosen)
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Operation>, String> {
    let fits = |operation: &Operation, part: &String| operation.name.contains(part.as_str());
    if let Some(part) = names.iter().find(|part| !all().any(|operation| fits(operation, part))) {
        return Err(unknown(part));
    }
    let chosen = |operation: &&Operation| names.is_empty() || names.iter().any(|part| fits(operation, part));
    Ok(all().filter(chosen).collect())
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = all().map(|operation| operation.name).collect();
    format!("there is no operation {name:?}; there are:\n  {}", names.join("\n  "))
}

fn list(operations: &[&Operation]) {
    for operation in operations {
        println!("{:<28} {:>5}  {}", operation.name, operation.per_round, operation.uncounted.unwrap_or("counted"));
    }
}

fn table(operations: &[&Operation]) {
    println!("{:<28} {:>12} {:>8}", "operation", "ns, median", "spread");
    for operation in operations {
        let measured = measure(operation);
        println!("{:<28} {:>12.1} {:>7.1}%", operation.name, measured.ns_median, measured.spread_percent);
    }
    println!("spread: from the first quartile of the repetitions to the third, in percent of the median");
}
