//! What the commands do.

use super::{Command, Failure, LogFormat, Settings, Surroundings};
use crate::audit::{Audit, Format, Sink};
use crate::engine::Engine;
use crate::judge::Agent;
use crate::listen;
use crate::lookup::{Lookup, Memory};
use crate::server::{self, Guard};
use crate::world::Sockets;
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
        Command::Health(given) => health(&super::socket_path(&given)?.1),
        Command::Check(given) => {
            let settings = super::settings(&given, &surroundings())?;
            print(&format!("policy {}: fine\n", settings.agent.policy.name))
        }
        Command::Serve(given) => serve(super::settings(&given, &surroundings())?),
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        pid: std::process::id(),
        docker_host: std::env::var("DOCKER_HOST").ok(),
        terminal: std::io::stderr().is_terminal(),
    }
}

/// Writes to the standard output. When nobody reads it any more, that is no reason to stop.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// A line about the start on the standard error stream, in the log's format.
fn note(format: LogFormat, text: &str) {
    let line = match format {
        LogFormat::Text => format!("sockguard: {text}\n"),
        LogFormat::Json => format!("{}\n", serde_json::json!({ "message": text })),
    };
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn serve(settings: Settings) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Socket(format!("cannot start: {e}")))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, guard(settings))
}

async fn guard(settings: Settings) -> Result<(), Failure> {
    let Settings { filename, socket, socket_on_host, permissions, upstream, agent, log_format, notes, .. } = settings;
    let stop = stop_signal().map_err(|e| Failure::Socket(format!("cannot wait for signals: {e}")))?;
    let (listener, file) = listen::listen(&socket, permissions).map_err(Failure::Socket)?;
    print(&format!(
        "Listening on {} (socket UID {} GID {} permissions {:04o}), upstream is {}\nexport DOCKER_HOST=unix://{}\n",
        filename.display(),
        permissions.owner(),
        permissions.group(),
        permissions.mode,
        upstream.display(),
        socket.display()
    ))?;
    for text in &notes {
        note(log_format, text);
    }
    note(log_format, &format!("policy {}, owner {}", agent.policy.name, agent.owner));
    let served = async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        server::serve(listener, guard_for(agent, upstream, socket_on_host, log_format), stop).await
    }
    .await;
    file.remove();
    served.map_err(|e| Failure::Socket(format!("cannot serve {}: {e}", socket.display())))
}

fn guard_for(agent: Agent, upstream: PathBuf, guarded: PathBuf, format: LogFormat) -> Rc<Guard> {
    let format = match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let audit = Audit::new(Sink::stderr(format), "fixed", agent.owner.as_str(), &agent.policy.name);
    let usual = ["/var/run/docker.sock", "/run/docker.sock"].map(PathBuf::from);
    let sockets = Sockets { guarded, engine: usual.into_iter().chain([upstream.clone()]).collect() };
    let world =
        Lookup { engine: Rc::new(Engine::new(upstream)), agent: Rc::new(agent), memory: Memory::default(), sockets };
    Guard::new(world, audit)
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
