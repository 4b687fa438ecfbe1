//! The binary: parses the command line and runs the command.

mod boot;
mod cli;
mod demo;

use cli::{Cli, FilterCommand, Parser, Top};

/// The lane allocates and frees several small values for each command; compared with the C library's allocator in docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let Cli { admin, output, command } = Cli::parse();
    let code = match command {
        Top::Serve { config } => boot::serve(&config),
        Top::Check { config } => boot::check(&config, output),
        Top::Demo { kind, keep, seconds, valkey, auto_rollback, compare_seconds, feed } => {
            demo::run(&demo::DemoOptions { kind, keep, seconds, valkey, auto_rollback, compare_seconds, feed })
        }
        Top::Filter(FilterCommand::Test { file, cases }) => boot::filter_test(&file, cases.as_deref(), output),
        Top::Filter(FilterCommand::Bench { file, config }) => boot::filter_bench(&file, &config, output),
        command @ (Top::Status | Top::Endpoint(_) | Top::Interlay(_) | Top::Migration(_) | Top::Filter(_)) => {
            cli::run(&admin, output, command)
        }
    };
    std::process::exit(code);
}
