//! An engine that a test plays, a guard in front of it, and a client that sends bytes.

use sockguard::audit::{Audit, Format, Sink};
use sockguard::engine::Engine;
use sockguard::judge::Agent;
use sockguard::lookup::{Lookup, Memory};
use sockguard::owner::{IMAGE_LABEL, OWNER_LABEL, Owner, SEAL_LABEL};
use sockguard::policy::Policy;
use sockguard::server::{self, Guard, Identity, Limits};
use sockguard::world::Sockets;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing here takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The ID of a container that is the agent's own.
pub const OWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The ID of an exec in it.
pub const EXEC: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// Runs a test as the program runs: on one thread.
pub fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new()
        .block_on(&runtime, async { timeout(PATIENCE * 3, test()).await.expect("a test hangs") });
}

/// One side of a connection, with what was read ahead.
pub struct Peer {
    pub stream: UnixStream,
    pub ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads more; false at the end, and when the connection is cut.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("nothing comes");
        matches!(read, Ok(length) if length > 0)
    }

    /// Everything up to and including `end`; nothing when the connection ends before.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|w| w == end.as_bytes()) {
                let rest = self.ahead.split_off(at + end.len());
                let text = std::mem::replace(&mut self.ahead, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            assert!(self.more().await, "ended after {:?}", String::from_utf8_lossy(&self.ahead));
        }
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// All that comes until the other side ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.ahead)
    }

    /// Is the other side silent, and still there?
    pub async fn is_silent(&mut self) -> bool {
        self.ahead.is_empty()
            && timeout(Duration::from_millis(150), self.stream.read_buf(&mut self.ahead)).await.is_err()
    }

    /// The head of a message, and its body by the length or the chunks that the head tells of.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.until("\r\n\r\n").await?;
        let mut message = Message { head, body: String::new() };
        if let Some(length) = message.header("content-length").and_then(|l| l.parse().ok()) {
            message.body = String::from_utf8(self.exactly(length).await).unwrap();
        } else if message.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.until("\r\n").await?;
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                message.body.push_str(std::str::from_utf8(&self.exactly(size).await).unwrap());
                self.exactly(2).await;
                if size == 0 {
                    break;
                }
            }
        }
        Some(message)
    }
}

/// A request or an answer.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: String,
    pub body: String,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn first_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

/// A JSON answer of an engine.
pub fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

type Play = Rc<dyn Fn(Message, Peer) -> Pin<Box<dyn Future<Output = Option<Peer>>>>>;

/// The engine.
pub struct Fake {
    /// The requests it was sent, but for the look-up of the own container.
    pub seen: Rc<RefCell<Vec<Message>>>,
    /// The connections that were made to it.
    pub connections: Rc<Cell<usize>>,
    /// Those that are open.
    pub open: Rc<Cell<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    fn start(socket: PathBuf, play: Play) -> Self {
        drop(std::fs::remove_file(&socket));
        let listener = UnixListener::bind(&socket).unwrap();
        let (seen, connections, open) = (Rc::default(), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (s, c, o) = (Rc::clone(&seen), Rc::clone(&connections), Rc::clone(&open));
        let task = tokio::task::spawn_local(async move {
            let mut set = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                c.set(c.get() + 1);
                o.set(o.get() + 1);
                let (play, seen, open) = (Rc::clone(&play), Rc::clone(&s), Rc::clone(&o));
                set.spawn_local(async move {
                    serve(Peer::new(stream), play, seen).await;
                    open.set(open.get() - 1);
                });
            }
        });
        Self { seen, connections, open, task }
    }
}

async fn serve(mut peer: Peer, play: Play, seen: Rc<RefCell<Vec<Message>>>) {
    let owner = Owner::new("me").unwrap();
    let image = format!("sha256:{}", "0".repeat(64));
    let labels = format!(r#""{OWNER_LABEL}":"me","{SEAL_LABEL}":"{}","{IMAGE_LABEL}":"{image}""#, owner.seal());
    let own = format!(r#"{{"Id":"{OWN}","Image":"{image}","Config":{{"Labels":{{{labels}}}}}}}"#);
    let exec = format!(r#"{{"ID":"{EXEC}","ContainerID":"{OWN}"}}"#);
    while let Some(head) = peer.until("\r\n\r\n").await {
        let mut request = Message { head, body: String::new() };
        let target = request.head.split(' ').nth(1).unwrap().to_owned();
        if target == "/containers/own/json" || target == format!("/containers/{OWN}/json") {
            peer.send(json("200 OK", &own)).await;
            continue;
        }
        if target == format!("/exec/{EXEC}/json") {
            peer.send(json("200 OK", &exec)).await;
            continue;
        }
        if let Some(length) = request.header("content-length").and_then(|l| l.parse().ok()) {
            request.body = String::from_utf8(peer.exactly(length).await).unwrap();
        }
        seen.borrow_mut().push(request.clone());
        match play(request, peer).await {
            Some(back) => peer = back,
            None => return,
        }
    }
}

/// A guard with its engine.
pub struct Setup {
    pub fake: Option<Fake>,
    pub socket: PathBuf,
    pub upstream: PathBuf,
    /// Ends the server.
    pub stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub server: JoinHandle<std::io::Result<()>>,
    _directory: tempfile::TempDir,
}

/// A guard whose engine answers by `play`; without a connection given back, the engine closes it.
pub async fn guarded<F>(play: impl Fn(Message, Peer) -> F + 'static) -> Setup
where
    F: Future<Output = Option<Peer>> + 'static,
{
    let mut setup = guard_alone(Duration::from_secs(10)).await;
    setup.fake = Some(Fake::start(setup.upstream.clone(), boxed(play)));
    setup
}

fn boxed<F>(play: impl Fn(Message, Peer) -> F + 'static) -> Play
where
    F: Future<Output = Option<Peer>> + 'static,
{
    Rc::new(move |request, peer| Box::pin(play(request, peer)))
}

/// What the guard between these sockets knows.
pub fn world(guarded: &Path, engine: &Path) -> Lookup {
    let agent =
        Agent { owner: Owner::new("me").unwrap(), policy: Rc::new(Policy::load("ci-agent").unwrap()), caller: None };
    Lookup {
        engine: Rc::new(Engine::new(engine.to_owned())),
        agent: Rc::new(agent),
        memory: Rc::new(Memory::default()),
        sockets: Sockets { guarded: guarded.to_owned(), engine: Vec::new() },
    }
}

/// A guard without an engine.
pub async fn guard_alone(drain: Duration) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("guarded.sock");
    let upstream = directory.path().join("engine.sock");
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let audit = Audit::new(Sink::new(Format::Json, null), "fixed", "me", "ci-agent");
    let world = world(&socket, &upstream);
    let limits = Limits { drain, ..Limits::default() };
    let guard = Rc::new(Guard { world: Rc::new(world), audit: Rc::new(audit), limits, agent_process: None });
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server =
        tokio::task::spawn_local(server::serve(listener, Identity::Fixed(guard), async move { drop(stopped.await) }));
    Setup { fake: None, socket, upstream, stop: Some(stop), server, _directory: directory }
}

impl Setup {
    pub async fn client(&self) -> Peer {
        Peer::new(UnixStream::connect(&self.socket).await.unwrap())
    }

    pub fn fake(&self) -> &Fake {
        self.fake.as_ref().unwrap()
    }

    /// Starts an engine where there was none.
    pub fn start<F>(&mut self, play: impl Fn(Message, Peer) -> F + 'static)
    where
        F: Future<Output = Option<Peer>> + 'static,
    {
        self.fake = Some(Fake::start(self.upstream.clone(), boxed(play)));
    }

    /// The first lines of the requests that the engine was sent.
    pub fn seen(&self) -> Vec<String> {
        self.fake().seen.borrow().iter().map(|request| request.first_line().to_owned()).collect()
    }
}

/// An engine that says OK to everything.
pub async fn fine(_: Message, mut peer: Peer) -> Option<Peer> {
    peer.send("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: text/plain\r\nX-Secret: no\r\nContent-Length: 2\r\n\r\nOK").await;
    Some(peer)
}

/// Completes when the condition holds.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Completes when the other side of a socket is closed altogether.
pub async fn hung_up(stream: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        let mut fds = [PollFd::new(stream, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        if fds[0].revents().contains(PollFlags::HUP) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
