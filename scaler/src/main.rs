//! Sets how many agents of a Buildkite queue an ECS service runs: a function for AWS Lambda, invoked each minute, that
//! looks every few seconds. `scaler/README.md` says what it does, and with which settings.

mod aws;
mod config;
mod decide;
mod failure;
mod metrics;
mod runtime;
mod scaler;
mod secret;
mod sigv4;
mod web;

use config::Config;
use runtime::Runtime;
use scaler::Scaler;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(problem) => {
            eprintln!("sockguard-scaler: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Works for as long as Lambda lets it.
fn run() -> Result<std::convert::Infallible, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(address) = variable("AWS_LAMBDA_RUNTIME_API") else {
        return Err("this is a function for AWS Lambda, which sets AWS_LAMBDA_RUNTIME_API; that is not set".to_owned());
    };
    let runtime = Runtime::new(&address);
    let config = match Config::read(variable) {
        Ok(config) => config,
        Err(problems) => {
            let problems = problems.join("; ");
            runtime.cannot_start("Scaler.Configuration", &problems)?;
            return Err(problems);
        }
    };
    let mut scaler = Scaler::new(config);
    loop {
        let invocation = runtime.next()?;
        let minute = scaler.minute(invocation.time);
        match minute.in_vain() {
            Some(failure) => runtime.failed(&invocation, "Scaler.Failure", &failure.to_string())?,
            None => runtime.done(&invocation, &minute)?,
        }
    }
}
