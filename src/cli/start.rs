//! What the commands do.

use super::{Command, Failure, Settings, Surroundings, needs};
use crate::audit::{Audit, Sink};
use crate::engine::Engine;
use crate::lookup::{Lookup, Memory};
use crate::server::{self, Guard, Identity};
use crate::world::Sockets;
use crate::{listen, log, steps};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How long `health` waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does what the command line asks for.
///
/// # Errors
/// Why it cannot be done.
pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help => print(&super::help()),
        Command::Version => print(&format!("sockguard {}\n", super::VERSION)),
        Command::Health(given) => health(&super::socket_path(&given)?.1)?,
        Command::Reap(given) => run_alone(super::reap::run(super::reap::settings(&given, &surroundings())?))?,
        Command::Check(given) => check(&super::settings(&given, &surroundings())?),
        Command::Serve(given) => serve(super::settings(&given, &surroundings())?)?,
    }
    Ok(())
}

/// Says that all is well, and what would be guarded how.
fn check(settings: &Settings) {
    let policy = &settings.agent.policy;
    let about = if policy.description.is_empty() { String::new() } else { format!(" ({})", policy.description) };
    let roots = match policy.bind.roots.len() {
        1 => "1 bind root".to_owned(),
        many => format!("{many} bind roots"),
    };
    print(&format!(
        "ok: policy {}{about}, {roots}; would guard {} at {}\n",
        policy.name,
        settings.upstream.display(),
        settings.filename.display()
    ));
}

fn surroundings() -> Surroundings {
    Surroundings {
        pid: std::process::id(),
        docker_host: std::env::var("DOCKER_HOST").ok(),
        terminal: std::io::stderr().is_terminal(),
        variables: std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
    }
}

/// Writes to the standard output. When nobody reads it any more, that is no reason to stop.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn serve(settings: Settings) -> Result<(), Failure> {
    raise_descriptor_limit();
    run_alone(guard(settings))
}

/// Runs a future to its end, on this thread.
fn run_alone(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Socket(format!("cannot start: {e}")))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, work)
}

/// Each connection takes two descriptors or more, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A lower limit than wished for is no reason not to start.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn guard(settings: Settings) -> Result<(), Failure> {
    log::start(settings.log_format, settings.debug);
    let cannot = |what: &str, e: std::io::Error| Failure::Socket(format!("cannot {what}: {e}"));
    let stop = stop_signal().map_err(|e| cannot("wait for signals", e))?;
    let engine = Rc::new(Engine::new(settings.upstream.clone()));
    let mut agent = settings.agent;
    needs::settle(Rc::make_mut(&mut agent.policy), &engine).await?;
    let agent = Rc::new(agent);
    let (listener, file) = listen::listen(&settings.socket, settings.permissions).map_err(Failure::Socket)?;
    let listening = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    let listener = listening.map_err(|e| cannot("listen", e))?;

    let world = Lookup {
        engine,
        agent: Rc::clone(&agent),
        memory: Rc::new(Memory::default()),
        sockets: Sockets { guarded: settings.socket_on_host, engine: engine_paths(&settings.upstream) },
    };
    let audit = Audit::new(Sink::stderr(settings.log_format), "fixed", agent.owner.as_str(), &agent.policy.name);
    let guard = Guard::new(world, audit);

    print(&format!(
        "Listening on {} (socket UID {} GID {} permissions {:04o}), upstream is {}\nexport DOCKER_HOST=unix://{}\n",
        settings.filename.display(),
        settings.permissions.owner(),
        settings.permissions.group(),
        settings.permissions.mode,
        settings.upstream.display(),
        settings.socket.display()
    ));
    tracing::info!("policy {}, owner {}", agent.policy.name, agent.owner);
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    // The engine may take its time, or not be there yet: agents are served meanwhile.
    let world = Rc::clone(&guard.world);
    tokio::task::spawn_local(async move {
        needs::report(&world).await;
        if let Err(refusal) = steps::recover(&world).await {
            tracing::warn!("paused containers cannot be looked for: {}", refusal.message(&world.agent.policy.name));
        }
    });

    let served = server::serve(listener, Identity::Fixed(guard), stop).await;
    file.remove();
    served.map_err(|e| cannot("go on listening", e))
}

/// The paths under which the engine's socket is known. A bind of any of them is a bind of the engine's socket.
fn engine_paths(upstream: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = vec!["/var/run/docker.sock".into(), "/run/docker.sock".into()];
    let absolute = std::path::absolute(upstream).ok();
    let real = upstream.canonicalize().ok();
    for path in absolute.into_iter().chain(real) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Completes when the process is asked to end.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Asks the engine, through the guarded socket, for a sign of life.
fn health(socket: &Path) -> Result<(), Failure> {
    let no = |what: String| Failure::No(format!("not healthy: {}: {what}", socket.display()));
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => no(format!("no answer within {} s", PATIENCE.as_secs())),
        std::io::ErrorKind::NotFound => no("there is no socket".to_owned()),
        std::io::ErrorKind::ConnectionRefused => no("nobody listens on it".to_owned()),
        _ => no(e.to_string()),
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    match status {
        "200" => Ok(()),
        "" => Err(no("it does not speak HTTP".to_owned())),
        status => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let message = serde_json::from_str::<serde_json::Value>(body.trim())
                .ok()
                .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()))
                .unwrap_or_else(|| format!("answer {status}"));
            Err(no(message))
        }
    }
}
