//! Measures what sockguard costs: the same work against a fake engine's own socket, through a plain relay, and
//! through sockguard, in turn within one run. The figure that holds on a busy machine is CPU time in the proxy.
//!
//!     sockguard-bench [--sockguard PATH] [--quick] [--all-cores] [--only WORD]
//!
//! Limits are marked, never enforced: it fails only where something did not run or an answer was wrong.

mod archive;
mod bench;
mod bulk;
mod cases;
mod clock;
mod engine;
mod load;
mod memory;
mod process;
mod relay;
mod report;
mod target;
mod wire;

use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: sockguard-bench [--sockguard PATH] [--quick] [--all-cores] [--only WORD]";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    One,
    All,
}

pub struct Plan {
    pub sockguard: PathBuf,
    /// Part of the names of the cases to run.
    pub only: String,
    pub cores: Cores,
    /// Many short rounds: noise then hits all targets alike.
    pub rounds: usize,
    pub bulk_rounds: usize,
    /// How long one target's turn takes.
    pub turn: Duration,
    /// Bytes of one bulk transfer.
    pub bulk: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["engine", socket, bulk] => number(bulk).and_then(|bulk| engine::run(socket.into(), bulk)).map(|()| true),
        ["relay", socket, upstream, threads] => number(threads)
            .and_then(|threads| relay::run(socket.into(), upstream.into(), threads as usize))
            .map(|()| true),
        words => plan(words).and_then(bench::run),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("sockguard-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::other(USAGE))
}

fn plan(words: &[&str]) -> Result<Plan> {
    let mut plan = Plan {
        sockguard: "target/release/sockguard".into(),
        only: String::new(),
        cores: Cores::One,
        rounds: 21,
        bulk_rounds: 5,
        turn: Duration::from_millis(100),
        bulk: 1 << 30,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--sockguard" => plan.sockguard = words.next().ok_or_else(|| Error::other(USAGE))?.into(),
            "--only" => plan.only = words.next().ok_or_else(|| Error::other(USAGE))?.to_string(),
            "--all-cores" => plan.cores = Cores::All,
            "--quick" => {
                plan.rounds = 7;
                plan.turn = Duration::from_millis(50);
                plan.bulk = 128 << 20;
            }
            _ => return Err(Error::other(USAGE)),
        }
    }
    Ok(plan)
}
