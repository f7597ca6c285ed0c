//! What the commands do.

use super::flags::{self, Given};
use super::{Command, Failure, Settings, Surroundings, needs};
use crate::audit::{Audit, Format, Sink};
use crate::config::{Config, Identity, Listener};
use crate::duration::duration;
use crate::engine::Engine;
use crate::identity::{NO_AGENT, Peers};
use crate::judge::Agent;
use crate::listen::SocketFile;
use crate::lookup::{Lookup, Memories};
use crate::owner::SealKey;
use crate::policy::Policy;
use crate::route::{GUARDED_PING, PING};
use crate::server::{self, Guard};
use crate::world::Sockets;
use crate::{hold, listen, log, reap, seal};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long `health` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits until it asks again.
const PAUSE: Duration = Duration::from_millis(200);

/// Does what the command line asks for.
///
/// # Errors
/// Why it cannot be done.
pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help => print(&super::help()),
        Command::Version => print(&format!("sockguard {}\n", super::VERSION)),
        Command::Reap(given) => run_alone(super::reap::run(super::reap::settings(&given, &surroundings())?))?,
        Command::Health(given) => health(&given)?,
        Command::Check(given) => check(&super::settings(&given, &surroundings())?)?,
        Command::Serve(given) => serve(super::settings(&given, &surroundings())?)?,
    }
    Ok(())
}

/// Says that all is well, and what would be guarded how.
fn check(settings: &Settings) -> Result<(), Failure> {
    let Config { upstream, seal_key, listeners, agents, .. } = &settings.config;
    if let Some(path) = seal_key {
        seal::read(path).map_err(|e| Failure::setting(format!("seal-key: {e}")))?;
    }
    let about = |policy: &Policy| {
        let about = match policy.description.as_str() {
            "" => String::new(),
            about => format!(" ({about})"),
        };
        let roots = match policy.bind.roots.len() {
            1 => "1 bind root".to_owned(),
            many => format!("{many} bind roots"),
        };
        format!("policy {}{about}, {roots}", policy.name)
    };
    let fixed = listeners.iter().map(|listener| {
        let (upstream, socket) = (upstream.display(), listener.socket.display());
        match &listener.identity {
            Identity::Fixed { policy, .. } => format!("ok: {}; would guard {upstream} at {socket}\n", about(policy)),
            Identity::Peer => format!("ok: agents by rule; would guard {upstream} at {socket}\n"),
        }
    });
    let rules = agents.iter().map(|rule| format!("ok: {}: owner {}, {}\n", rule.who, rule.owner, about(&rule.policy)));
    print(&fixed.chain(rules).collect::<String>());
    Ok(())
}

fn surroundings() -> Surroundings {
    Surroundings {
        pid: std::process::id(),
        docker_host: std::env::var("DOCKER_HOST").ok(),
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
fn run_alone(work: impl Future<Output = Result<(), Failure>> + 'static) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Socket(format!("cannot start: {e}")))?;
    let local = tokio::task::LocalSet::new();
    // As a task of its own, since the future that is run here is polled whenever any task is.
    let done = local.block_on(&runtime, async { tokio::task::spawn_local(work).await });
    done.unwrap_or_else(|e| Err(Failure::Socket(format!("cannot go on: {e}"))))
}

/// Each connection takes two descriptors or more, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A lower limit than wished for is no reason not to start.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn guard(Settings { mut config, notes }: Settings) -> Result<(), Failure> {
    let log_format = config.log_format.unwrap_or(match std::io::stderr().is_terminal() {
        true => Format::Text,
        false => Format::Json,
    });
    log::start(log_format, config.debug);
    let cannot = |what: &str, e: std::io::Error| Failure::Socket(format!("cannot {what}: {e}"));
    let stop = stop_signal().map_err(|e| cannot("wait for signals", e))?;
    let engine = Rc::new(Engine::new(config.upstream.clone()));
    let key = match &config.seal_key {
        Some(path) => seal::open(path).map_err(|e| Failure::setting(format!("sockguard: seal-key: {e}")))?,
        None => SealKey::default(),
    };
    if config.listeners.iter().any(|listener| matches!(listener.identity, Identity::Peer)) {
        needs::host_processes(&config.upstream).await?;
    }
    for policy in config.policies_mut() {
        needs::settle(Rc::make_mut(policy), &engine).await?;
    }
    let policies: Vec<Rc<Policy>> = config.policies_mut().map(|policy| Rc::clone(policy)).collect();
    let on_host: Vec<PathBuf> = config.listeners.iter().map(|listener| listener.socket_on_host.clone()).collect();
    let sink = Sink::stderr(log_format);

    let mut open = Vec::new();
    let memories = Rc::new(Memories::default());
    let opened = config.listeners.iter().try_for_each(|listener| {
        let (socket, file) = listen::listen(&listener.socket, listener.permissions).map_err(Failure::Socket)?;
        let sockets = Sockets { guarded: listener.socket_on_host.clone(), engine: engine_paths(&config.upstream) };
        let identity = match &listener.identity {
            Identity::Fixed { owner, policy } => {
                let owner = key.owner(owner).map_err(Failure::setting)?;
                let audit = Audit::new(Rc::clone(&sink), "fixed", owner.as_str(), &policy.name);
                let agent = Rc::new(Agent { owner, policy: Rc::clone(policy), caller: None });
                let memory = memories.of(&agent.owner);
                let world = Lookup { engine: Rc::clone(&engine), agent, memory, sockets };
                let guard = Guard::new(world, audit);
                server::Identity::Fixed(guard)
            }
            Identity::Peer => {
                let (rules, sink, memories) = (config.agents.clone(), Rc::clone(&sink), Rc::clone(&memories));
                server::Identity::Peers(Peers::new(Rc::clone(&engine), key.clone(), rules, sockets, sink, memories))
            }
        };
        open.push(Open { socket, file, identity });
        Ok(())
    });
    if let Err(failure) = opened {
        // All or nothing.
        open.into_iter().for_each(|open| open.file.remove());
        return Err(failure);
    }
    for listener in &config.listeners {
        print(&format!(
            "Listening on {0} (socket UID {1} GID {2} permissions {3:04o}), upstream is {4}\nexport DOCKER_HOST=unix://{0}\n",
            listener.socket.display(),
            listener.permissions.owner(),
            listener.permissions.group(),
            listener.permissions.mode,
            config.upstream.display(),
        ));
        match &listener.identity {
            Identity::Fixed { owner, policy } => tracing::info!("policy {}, owner {owner}", policy.name),
            Identity::Peer => tracing::info!("{} agent rules", config.agents.len()),
        }
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    let peers = open.iter().filter_map(|open| match &open.identity {
        server::Identity::Peers(peers) => Some(Rc::clone(peers)),
        server::Identity::Fixed(_) => None,
    });
    let peers: Vec<Rc<Peers>> = peers.collect();
    if !peers.is_empty() {
        tokio::task::spawn_local(reap::watch::watch(Rc::clone(&engine), key, config.reap, peers));
    }
    // The engine may take its time, or not be there yet: agents are served meanwhile.
    tokio::task::spawn_local(async move {
        needs::report(&engine, &policies, &on_host).await;
        for guarded in &on_host {
            if let Err(refusal) = hold::recover(&engine, guarded).await {
                tracing::warn!("paused containers cannot be looked for: {}", refusal.message(""));
            }
        }
    });
    serve_all(open, stop).await.map_err(|e| cannot("go on listening", e))
}

/// A guarded socket that listens.
struct Open {
    socket: UnixListener,
    file: SocketFile,
    identity: server::Identity,
}

/// Serves all sockets until it is time to stop, or one fails: then all end.
async fn serve_all(open: Vec<Open>, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    let (go_on, stopped) = tokio::sync::watch::channel(());
    let mut serving = JoinSet::new();
    for Open { socket, file, identity } in open {
        let mut stopped = stopped.clone();
        serving.spawn_local(async move {
            // It ends with its sender.
            let stopped = async move { while stopped.changed().await.is_ok() {} };
            let listening = socket.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(socket));
            let served = match listening {
                Ok(socket) => server::serve(socket, identity, stopped).await,
                Err(e) => Err(e),
            };
            file.remove();
            served
        });
    }
    drop(stopped);
    let mut stop = pin!(stop);
    let mut go_on = Some(go_on);
    let mut ended = Ok(());
    loop {
        tokio::select! {
            () = &mut stop, if go_on.is_some() => go_on = None,
            served = serving.join_next() => match served {
                None => return ended,
                Some(served) => {
                    go_on = None;
                    ended = ended.and(served.unwrap_or_else(|e| Err(e.into())));
                }
            },
        }
    }
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

/// Asks for a sign of life: of one socket, or of all that the configuration has.
fn health(given: &Given) -> Result<(), Failure> {
    let wait = match given.get(flags::WAIT.name) {
        Some(text) => duration(text).map_err(|e| Failure::setting(format!("-{}: {e}", flags::WAIT.name)))?,
        None => Duration::ZERO,
    };
    match super::configuration(given) {
        None => {
            let socket = super::socket_path(given)?;
            within(wait, || match ask_guard(&socket) {
                // Only the guard's configuration says where the engine is.
                Ok(answer) if answer.is_for_a_stranger() => Ok(()),
                answer => healthy(&socket, answer),
            })
        }
        Some(_) => {
            let config = super::settings(given, &surroundings())?.config;
            within(wait, || all_healthy(&config))
        }
    }
}

/// Asks until all is well or the time is over, and once at least.
fn within(wait: Duration, asked: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        match asked() {
            Err(Failure::No(_)) if begun.elapsed() < wait => std::thread::sleep(PAUSE),
            Err(Failure::No(why)) if !wait.is_zero() => {
                return Err(Failure::No(format!("{why} (waited {:.1?})", begun.elapsed())));
            }
            outcome => return outcome,
        }
    }
}

/// Asks for a sign of life of all guarded sockets, and of the engine through them.
fn all_healthy(config: &Config) -> Result<(), Failure> {
    for Listener { socket, identity, .. } in &config.listeners {
        let answer = ask_guard(socket);
        match (identity, &answer) {
            (Identity::Peer, Ok(told)) if told.is_for_a_stranger() => {
                healthy(&config.upstream, ask(&config.upstream, PING))?;
            }
            (Identity::Peer | Identity::Fixed { .. }, _) => healthy(socket, answer)?,
        }
    }
    Ok(())
}

/// Is this answer of a socket a sign of life?
fn healthy(socket: &Path, answer: Result<Answer, String>) -> Result<(), Failure> {
    let no = |what: String| Failure::No(format!("not healthy: {}: {what}", socket.display()));
    match answer.map_err(no)? {
        Answer { status, .. } if status == "200" => Ok(()),
        Answer { message, .. } => Err(no(message)),
    }
}

/// What the engine says to a ping.
struct Answer {
    status: String,
    message: String,
}

impl Answer {
    /// Whoever asks after a guard's health need not be one of its agents: that it says so is a sign of life.
    fn is_for_a_stranger(&self) -> bool {
        self.status == "403" && self.message.starts_with(&format!("sockguard: {NO_AGENT}"))
    }
}

/// Pings the engine through this socket, if it is a guarded one.
fn ask_guard(socket: &Path) -> Result<Answer, String> {
    match ask(socket, GUARDED_PING)? {
        Answer { status, .. } if status == "404" => Err("it is not a guarded socket".to_owned()),
        answer => Ok(answer),
    }
}

/// Pings the engine through this socket, by this path.
fn ask(socket: &Path, path: &str) -> Result<Answer, String> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => format!("no answer within {} s", PATIENCE.as_secs()),
        std::io::ErrorKind::NotFound => "there is no socket".to_owned(),
        std::io::ErrorKind::ConnectionRefused => "nobody listens on it".to_owned(),
        _ => e.to_string(),
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).ok_or("it does not speak HTTP")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let message = serde_json::from_str::<serde_json::Value>(body.trim())
        .ok()
        .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| format!("answer {status}"));
    Ok(Answer { status: status.to_owned(), message })
}
