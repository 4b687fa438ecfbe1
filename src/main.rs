//! The binary: reads the command line and hands over.

use crossfade::cli::{Cli, Parser, Top};

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
        command @ (Top::Status | Top::Endpoint(_) | Top::Interlay(_) | Top::Migration(_)) => {
            crossfade::cli::run(&admin, output, command)
        }
    };
    std::process::exit(code);
}
