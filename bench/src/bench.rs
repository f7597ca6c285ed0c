//! The run: every case against every target in turn.

use std::fs::metadata;
use std::io::{Error, Result};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::bulk;
use crate::cases::{self, Case, Work};
use crate::memory;
use crate::report::{Limit, Measure, Report, Samples};
use crate::target::{Kind, Place, Target};
use crate::{Cores, Plan};

/// Nothing that works takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells whether everything ran.
pub fn run(plan: Plan) -> Result<bool> {
    let size = metadata(&plan.sockguard)
        .map_err(|why| Error::new(why.kind(), format!("{}: {why}", plan.sockguard.display())))?
        .len();
    // A thousand connections have two ends in a proxy; the processes started here inherit this.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    if plan.cores == Cores::One {
        stay_on_one_core()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut stop = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Leaving this function ends the processes and removes their sockets.
        tokio::select! {
            done = compare(&plan, size) => done,
            _ = stop.recv() => Err(Error::other("stopped")),
            _ = interrupt.recv() => Err(Error::other("stopped")),
        }
    })
}

/// Waking a thread on another core costs more, and how much more changes with what else the machine does: kept on one
/// core, with all processes started here, CPU times hold within a few per cent.
fn stay_on_one_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rfind(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.unwrap_or(0))?;
    Ok(sched_setaffinity(this, &one)?)
}

async fn compare(plan: &Plan, size: u64) -> Result<bool> {
    let place = Place::new(plan.sockguard.clone(), plan.bulk)?;
    let mut targets = Vec::new();
    for kind in Kind::ALL {
        let target = place.start(kind).await;
        targets.push(target.map_err(|why| Error::other(format!("{}: {why}", kind.name())))?);
    }
    let mut report = Report::default();
    let cores = match plan.cores {
        Cores::One => "all on one core",
        Cores::All => "on all cores",
    };
    report.head(&format!(
        "{cores}, medians of {} rounds; rates and times as clients see them, CPU and memory of the proxy",
        plan.rounds
    ));
    for case in cases::all().iter().filter(|case| case.name.contains(&plan.only)) {
        measure(plan, case, &targets, &mut report).await;
    }
    if plan.only.is_empty() {
        left(&targets, &mut report);
        alone(plan, &place, &mut report).await;
        let mut samples = [Samples::default()];
        samples[0].add(Kind::Sockguard, size as f64 / 1024.0);
        report.case("binary", &[Measure::Taken("KiB", Limit::AtMost(8192.0))], &samples);
    }
    Ok(report.end())
}

async fn measure(plan: &Plan, case: &Case, targets: &[Target], report: &mut Report) {
    let mut samples: Vec<_> = case.measures.iter().map(|_| Samples::default()).collect();
    let rounds = match case.work {
        Work::Down | Work::Up | Work::BothWays => plan.bulk_rounds,
        Work::Requests(_) | Work::Echo | Work::LogLine => plan.rounds,
    };
    let mut failed = Vec::new();
    for round in 0..rounds {
        // There and back, so that nobody profits from its place in the row.
        let there = targets.iter();
        let turns: Vec<_> = if round % 2 == 0 { there.collect() } else { there.rev().collect() };
        for target in turns {
            if failed.contains(&target.kind) || (target.kind == Kind::Peers && !case.peers) {
                continue;
            }
            match in_time(sample(plan, &case.work, target)).await {
                Ok(numbers) => add(&mut samples, target.kind, &numbers),
                Err(why) => {
                    report.failure(case.name, target.kind, &why);
                    report.said(&target.process.said());
                    failed.push(target.kind);
                }
            }
        }
    }
    report.case(case.name, &case.measures, &samples);
}

async fn sample(plan: &Plan, work: &Work, target: &Target) -> Result<Vec<f64>> {
    match work {
        Work::Requests(requests) => requests.measure(target, plan.turn).await,
        Work::Down => bulk::down(target, plan.bulk).await,
        Work::Up => bulk::up(target, plan.bulk).await,
        Work::BothWays => bulk::both_ways(target, plan.bulk).await,
        Work::Echo => bulk::echo(target, plan.turn).await,
        // Lines come slowly: more time for as good a median.
        Work::LogLine => bulk::log_line(target, plan.turn * 4).await,
    }
}

/// What each proxy holds after all of the cases.
fn left(targets: &[Target], report: &mut Report) {
    let mut samples = [Samples::default()];
    for target in targets.iter().filter(|target| !matches!(target.kind, Kind::Direct | Kind::Peers)) {
        match target.process.resident() {
            Ok(resident) => samples[0].add(target.kind, resident),
            Err(why) => report.failure("memory", target.kind, &why),
        }
    }
    report.case("memory, after all above", &[Measure::Taken("KiB", Limit::Open)], &samples);
}

/// What needs fresh processes.
async fn alone(plan: &Plan, place: &Place, report: &mut Report) {
    let memory = [
        ("memory, idle", Limit::AtMost(10.0 * 1024.0)),
        ("memory, 1,000 connections", Limit::AtMost(20.0 * 1024.0)),
        ("memory, 1,000 streams", Limit::AtMost(32.0 * 1024.0)),
        ("memory, for each idle stream", Limit::AtMost(16.0)),
        // Held once is the list's own 1 MiB and what is around it.
        ("memory, peak added by 1 list", Limit::AtMost(2048.0)),
    ];
    let mut samples: Vec<_> = memory.iter().map(|_| Samples::default()).collect();
    for kind in Kind::PROXIES {
        match in_time(memory::measure(place, kind)).await {
            Ok(numbers) => add(&mut samples, kind, &numbers),
            Err(why) => report.failure("memory", kind, &why),
        }
    }
    for ((name, limit), samples) in memory.iter().zip(samples) {
        report.case(name, &[Measure::Taken("KiB", *limit)], &[samples]);
    }

    let mut samples = [Samples::default()];
    for _ in 0..plan.rounds {
        for kind in Kind::PROXIES {
            match in_time(memory::start_up(place, kind)).await {
                Ok(numbers) => add(&mut samples, kind, &numbers),
                Err(why) => report.failure("start to first answer", kind, &why),
            }
        }
    }
    report.case("start to first answer", &[Measure::Taken("ms", Limit::AtMost(20.0))], &samples);
}

fn add(samples: &mut [Samples], kind: Kind, numbers: &[f64]) {
    for (samples, number) in samples.iter_mut().zip(numbers) {
        samples.add(kind, *number);
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::other("it took too long")),
    }
}
