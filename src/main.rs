//! The program: reads the command line, does what it says, and turns the outcome into an exit status.

use sockguard::cli::{self, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::command(std::env::args_os().skip(1), |name| std::env::var(name).ok()).and_then(cli::start::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        eprintln!("{line}");
    }
    ExitCode::from(failure.status())
}
