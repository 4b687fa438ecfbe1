//! The binary: reads the command line and hands over.

use crossfade::cli::{Cli, FilterCommand, Parser, Top};

/// The lane makes and drops several small values for each command; measured against the C library's: docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let Cli { admin, output, command } = Cli::parse();
    let code = match command {
        Top::Serve { config } => crossfade::boot::serve(&config),
        Top::Check { config } => crossfade::boot::check(&config, output),
        Top::Demo { kind, keep, seconds, valkey, auto_rollback, compare_seconds } => {
            crossfade::demo::run(&crossfade::demo::DemoOptions {
                kind,
                keep,
                seconds,
                valkey,
                auto_rollback,
                compare_seconds,
            })
        }
        Top::Filter(FilterCommand::Test { file, cases }) => {
            crossfade::boot::filter_test(&file, cases.as_deref(), output)
        }
        Top::Filter(FilterCommand::Bench { file, config }) => crossfade::boot::filter_bench(&file, &config, output),
        command @ (Top::Status | Top::Endpoint(_) | Top::Interlay(_) | Top::Migration(_) | Top::Filter(_)) => {
            crossfade::cli::run(&admin, output, command)
        }
    };
    std::process::exit(code);
}
