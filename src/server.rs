//! The agents' side: accepts connections, and speaks HTTP/1.1 on each until it ends or leaves HTTP.

use crate::audit::Audit;
use crate::body::{Body, BodyError, Gather, Rest};
use crate::identity::Peers;
use crate::lookup::Lookup;
use crate::peer::{self, Hold, Peer};
use crate::proxy::{self, Outcome};
use crate::refusal::Refusal;
use crate::tunnel::{self, Hangup, Tunnel};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

/// A head that is longer gets a `431`. Registry credentials of a build may well be 40 KiB.
const HEAD_LIMIT: usize = 128 << 10;

/// A head has to be complete so long after its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// So long a connection may stay that nobody is served on.
const STRANGERS: Duration = Duration::from_secs(10);

/// So many connections an owner's agents have at most. Each whose client does not read holds what the engine sent: some
/// hundred KiB.
const SEATS: usize = 512;

/// How often a connection looks at its watch while a request runs. Only requests that are longer pay for noticing that
/// their client has gone.
const TICK: Duration = Duration::from_millis(500);

/// A pause when the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// What the server keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// This many connections at once; others wait in the socket's queue.
    pub connections: usize,
    /// So long running requests may go on after a shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    /// As many connections as the process has descriptors for: each may need one to the engine, another to see its
    /// client go away, and, when both sides read slowly, one for each of them to see that there is room.
    fn default() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let room = descriptors.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)).saturating_sub(40) / 5;
        Self { connections: room.clamp(16, 10_000), drain: Duration::from_secs(10) }
    }
}

/// What stands between one agent and the engine.
#[derive(Debug)]
pub struct Guard {
    /// Who asks, the engine, and what is known of its objects.
    pub world: Rc<Lookup>,
    /// Where decisions are written.
    pub audit: Rc<Audit>,
    /// What the server keeps to.
    pub limits: Limits,
    /// The first process of the agent's own container, where it is in one: it is over with it.
    pub agent_process: Option<Rc<Hold>>,
}

impl Guard {
    /// Has the agent's container ended? What it left is not served any more.
    pub fn ended(&self) -> bool {
        self.agent_process.as_ref().is_some_and(|first| !first.lives())
    }

    /// A guard with the usual limits.
    pub fn new(world: Lookup, audit: Audit) -> Rc<Self> {
        Rc::new(Self { world: Rc::new(world), audit: Rc::new(audit), limits: Limits::default(), agent_process: None })
    }

    /// The name of the agent's policy, for messages.
    pub fn policy(&self) -> &str {
        &self.world.agent.policy.name
    }
}

/// Whom a listener serves.
#[derive(Debug, Clone)]
pub enum Identity {
    /// One agent, whoever connects.
    Fixed(Rc<Guard>),
    /// Many, told apart by who connects.
    Peers(Rc<Peers>),
}

impl Identity {
    fn limits(&self) -> Limits {
        match self {
            Self::Fixed(guard) => guard.limits,
            Self::Peers(peers) => peers.limits,
        }
    }

    /// What has to be known at the moment when the connection is accepted.
    fn arrived(&self, stream: &UnixStream) -> Arrival {
        match self {
            Self::Fixed(guard) => Arrival::Agent(Rc::clone(guard)),
            Self::Peers(peers) => Arrival::Peer(Rc::clone(peers), Peer::of(stream)),
        }
    }

    fn flush(&self) {
        match self {
            Self::Fixed(guard) => guard.audit.flush(),
            Self::Peers(peers) => peers.sink.flush(),
        }
    }
}

/// Who is at the other end of a connection, as far as the kernel tells.
enum Arrival {
    Agent(Rc<Guard>),
    Peer(Rc<Peers>, Result<Peer, peer::Unknown>),
}

impl Arrival {
    /// Who it is, with a seat among those of the same agent; nothing where it has too many.
    async fn visitor(self) -> Option<(Visitor, Option<Seat>)> {
        let (peers, peer) = match self {
            Self::Agent(guard) => return Some((Visitor::Agent(guard), None)),
            Self::Peer(peers, peer) => (peers, peer),
        };
        let guard = match &peer {
            Ok(peer) => peers.guard(peer).await,
            Err(unknown) => Err(Refusal::Stranger { message: unknown.to_string() }),
        };
        let visitor = guard.map_or_else(
            |refusal| {
                let audit = Audit::new(Rc::clone(&peers.sink), "stranger", "", "");
                Visitor::Stranger(Rc::new(Stranger { refusal, audit: Rc::new(audit) }))
            },
            Visitor::Agent,
        );
        let who = match &visitor {
            Visitor::Agent(guard) => guard.world.agent.owner.to_string(),
            // All of them are one.
            Visitor::Stranger(_) => String::new(),
        };
        Some((visitor, Some(Seat::take(&peers, who)?)))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone)]
enum Visitor {
    /// An agent.
    Agent(Rc<Guard>),
    /// Nobody that is served: all requests are refused alike.
    Stranger(Rc<Stranger>),
}

/// One of the connections of one owner's agents, or of all strangers together. They are counted, so that nobody takes all that
/// the listener has.
struct Seat {
    peers: Rc<Peers>,
    who: String,
}

impl Seat {
    fn take(peers: &Rc<Peers>, who: String) -> Option<Self> {
        let all = peers.limits.connections;
        let most = (all / 4).max((all / 2).min(256)).min(SEATS);
        let mut seats = peers.seats.borrow_mut();
        let taken = seats.entry(who.clone()).or_default();
        if *taken >= most {
            let who = if who.is_empty() { "of strangers" } else { who.as_str() };
            tracing::warn!("a connection is closed at once: there are {most} {who} already");
            return None;
        }
        *taken += 1;
        Some(Self { peers: Rc::clone(peers), who })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.peers.seats.borrow_mut();
        if let Some(taken) = seats.get_mut(&self.who) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.who);
            }
        }
    }
}

/// Somebody who is not served.
#[derive(Debug)]
pub struct Stranger {
    /// Why.
    pub refusal: Refusal,
    /// Where that is written.
    pub audit: Rc<Audit>,
}

impl Visitor {
    fn policy(&self) -> &str {
        match self {
            Self::Agent(guard) => guard.policy(),
            Self::Stranger(_) => "",
        }
    }

    fn audit(&self) -> &Rc<Audit> {
        match self {
            Self::Agent(guard) => &guard.audit,
            Self::Stranger(stranger) => &stranger.audit,
        }
    }
}

/// Serves the listener until `shutdown`: then accepts no more, lets running requests end for a bounded time, and cuts
/// what is left. Runs in a `LocalSet`.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: UnixListener, identity: Identity, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let limits = identity.limits();
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let closing = Rc::new(Notify::new());
    let ended = loop {
        let full = connections.len() >= limits.connections;
        tokio::select! {
            biased;
            () = &mut shutdown => break Ok(()),
            Some(_) = connections.join_next(), if full => (),
            accepted = poll_fn(|cx| listener.poll_accept(cx)), if !full => match accepted {
                Ok((stream, _)) => {
                    // Those that have ended are only counted here: this task need not wake for each.
                    while connections.try_join_next().is_some() {}
                    let arrival = identity.arrived(&stream);
                    connections.spawn_local(connection(stream, arrival, Rc::clone(&closing)));
                }
                Err(e) if passing(&e) => {
                    tracing::warn!("cannot accept a connection for now: {e}");
                    sleep(NO_ROOM).await;
                }
                Err(e) => break Err(e),
            },
        }
    };
    drop(listener);
    closing.notify_waiters();
    // What is left after this is cut.
    drop(timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await);
    connections.shutdown().await;
    identity.flush();
    ended
}

/// Errors of `accept` that say something about the moment or about one client, not about the listener.
fn passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lasting = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP, Errno::FAULT];
    !lasting.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// How a connection's time in HTTP ends.
enum End {
    /// As HTTP ends, or broken.
    Closed,
    /// hyper could not read a head; nothing was answered yet.
    BadHead { status: StatusCode, message: String },
    /// The client is gone, or has ended its side when all was answered: nothing is left to do.
    Gone,
    /// The connection leaves HTTP.
    Tunnel(Box<Tunnel>),
}

async fn connection(stream: UnixStream, arrival: Arrival, closing: Rc<Notify>) {
    let visitor = match arrival {
        Arrival::Agent(guard) => Some((Visitor::Agent(guard), None)),
        // In a box, since it is over before the first request and connections stay.
        arrival @ Arrival::Peer(..) => Box::pin(arrival.visitor()).await,
    };
    let Some((visitor, _seat)) = visitor else { return };
    let wire = Rc::new(Wire::new(stream));
    let (end, early) = match &visitor {
        Visitor::Agent(_) => speak_http(&wire, &visitor, &closing).await,
        // It gets its answer, and no more.
        Visitor::Stranger(_) => match timeout(STRANGERS, speak_http(&wire, &visitor, &closing)).await {
            Ok(spoken) => spoken,
            Err(_) => return,
        },
    };
    drop(closing);
    if matches!(end, End::Gone) {
        return;
    }
    // In a box, since most connections idle and never come here.
    if let Some(stream) = Wire::into_stream(wire) {
        Box::pin(leave(end, stream, early, &visitor)).await;
    }
}

/// Speaks HTTP until it ends. Gives what was read behind the last request as well.
async fn speak_http(wire: &Rc<Wire>, visitor: &Visitor, closing: &Notify) -> (End, Bytes) {
    let handler = Handler { visitor: visitor.clone(), wire: Rc::clone(wire) };
    let mut http = http1::Builder::new()
        .half_close(true)
        .title_case_headers(true)
        .max_header_size(HEAD_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(Hand(Rc::clone(wire), Gather::default())), handler);
    let mut closing = pin!(closing.notified());
    let mut close_asked = false;
    let mut watch = Watch::default();
    let end = poll_fn(|cx| {
        if !close_asked && closing.as_mut().poll(cx).is_ready() {
            close_asked = true;
            Pin::new(&mut http).graceful_shutdown();
        }
        let ended = http.poll_without_shutdown(cx);
        if let Poll::Ready(result) = ended {
            let bad = wire.unsaid.take().zip(result.err());
            let closed = if wire.ended.get() { End::Gone } else { End::Closed };
            return Poll::Ready(bad.map_or(closed, |(status, e)| End::BadHead { status, message: e.to_string() }));
        }
        // The answer to an earlier request must be out before others write to the client.
        if wire.flushed.get()
            && let Some(tunnel) = wire.tunnel.take()
        {
            return Poll::Ready(End::Tunnel(tunnel));
        }
        watch.poll(wire, cx)
    })
    .await;
    (end, http.into_parts().read_buf)
}

/// What is left to do with a connection that speaks HTTP no more.
async fn leave(end: End, mut stream: UnixStream, early: Bytes, visitor: &Visitor) {
    match end {
        End::Gone => {}
        End::Closed => tunnel::linger(&stream).await,
        End::BadHead { status, message } => {
            let refusal = Refusal::malformed(message);
            let body = proxy::message_body(&refusal.message(visitor.policy()));
            let mut record = visitor.audit().begin(&hyper::Method::from_bytes(b"-").unwrap_or_default());
            record.refused(&refusal);
            record.answered(status);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            drop(stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await);
            tunnel::linger(&stream).await;
        }
        End::Tunnel(tunnel) => tunnel.run(stream, early).await,
    }
}

/// Looks after a connection while it works: a head that does not come to its end, a client that went away.
#[derive(Default)]
struct Watch {
    tick: Option<Pin<Box<Sleep>>>,
    hangup: Option<Hangup>,
}

impl Watch {
    fn poll(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(hangup) = &mut self.hangup {
                if hangup.poll(cx).is_ready() {
                    return Poll::Ready(End::Gone);
                }
                if self.tick.is_none() && !matches!(wire.phase.get(), Phase::Head(_)) {
                    return Poll::Pending;
                }
            }
            let Some(tick) = &mut self.tick else {
                if matches!(wire.phase.get(), Phase::Idle) {
                    return Poll::Pending;
                }
                self.tick = Some(Box::pin(sleep(TICK)));
                continue;
            };
            ready!(tick.as_mut().poll(cx));
            self.tick = None;
            match wire.phase.get() {
                Phase::Head(since) if since.elapsed() > HEAD_TIMEOUT => {
                    return Poll::Ready(End::BadHead {
                        status: StatusCode::REQUEST_TIMEOUT,
                        message: "the request's head did not come to its end in time".to_owned(),
                    });
                }
                Phase::Busy(since) if since.elapsed() >= TICK && self.hangup.is_none() => {
                    self.hangup = Hangup::watch(&*wire.io.borrow());
                }
                Phase::Idle | Phase::Head(_) | Phase::Busy(_) => (),
            }
        }
    }
}

/// Where a connection is.
#[derive(Clone, Copy)]
enum Phase {
    /// Between requests.
    Idle,
    /// The first bytes of a head came.
    Head(Instant),
    /// A request is judged, sent or answered.
    Busy(Instant),
}

/// A connection's socket, and what has to be known about its use.
struct Wire {
    io: RefCell<UnixStream>,
    /// The client has ended its side, and all it wrote before was read.
    ended: Cell<bool>,
    phase: Cell<Phase>,
    /// The answer's body has been handed over whole.
    answered: Cell<bool>,
    /// hyper has written all it had.
    flushed: Cell<bool>,
    /// The status of an answer of hyper's own, kept back: it has no body, and ours has.
    unsaid: Cell<Option<StatusCode>>,
    /// Set when the connection is to leave HTTP.
    tunnel: Cell<Option<Box<Tunnel>>>,
}

impl Wire {
    fn new(stream: UnixStream) -> Self {
        Self {
            io: RefCell::new(stream),
            ended: Cell::new(false),
            phase: Cell::new(Phase::Idle),
            answered: Cell::new(false),
            flushed: Cell::new(true),
            unsaid: Cell::new(None),
            tunnel: Cell::new(None),
        }
    }

    /// The socket, when nobody else uses it any more.
    fn into_stream(this: Rc<Self>) -> Option<UnixStream> {
        Rc::into_inner(this).map(|wire| wire.io.into_inner())
    }

    /// Takes what hyper writes between requests: its answer to a head that it cannot read.
    fn keep_back(&self, bytes: &[u8]) -> bool {
        if !matches!(self.phase.get(), Phase::Idle | Phase::Head(_)) {
            return false;
        }
        let status = bytes.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
        self.unsaid.set(self.unsaid.get().or(Some(status.unwrap_or(StatusCode::BAD_REQUEST))));
        true
    }
}

/// The socket in hyper's hand.
struct Hand(Rc<Wire>, Gather);

impl Hand {
    fn with<R>(&self, work: impl FnOnce(Pin<&mut UnixStream>) -> R) -> R {
        work(Pin::new(&mut *self.0.io.borrow_mut()))
    }
}

impl AsyncRead for Hand {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.with(|io| io.poll_read(cx, buf));
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            self.0.ended.set(true);
        }
        if read.is_ready() && matches!(self.0.phase.get(), Phase::Idle) {
            self.0.phase.set(Phase::Head(Instant::now()));
        }
        read
    }
}

impl AsyncWrite for Hand {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.0.keep_back(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        self.0.flushed.set(false);
        self.with(|io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.keep_back(bufs.first().map_or(&[], |first| first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        self.0.flushed.set(false);
        let rest = if self.0.answered.get() { Rest::None } else { Rest::Comes };
        if self.1.waits(bufs.iter().map(|buf| buf.len()).sum(), rest, cx) {
            return Poll::Pending;
        }
        self.with(|io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.flushed.set(true);
        if self.0.answered.take() {
            self.0.phase.set(Phase::Idle);
        }
        self.with(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }
}

/// hyper's way to us.
struct Handler {
    visitor: Visitor,
    wire: Rc<Wire>,
}

impl Service<Request<Incoming>> for Handler {
    type Response = Response<Answered>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answered>, io::Error>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (visitor, wire) = (self.visitor.clone(), Rc::clone(&self.wire));
        wire.phase.set(Phase::Busy(Instant::now()));
        Box::pin(async move {
            let outcome = match &visitor {
                Visitor::Agent(guard) => proxy::handle(guard, request).await,
                Visitor::Stranger(stranger) => proxy::turn_away(stranger, request),
            };
            match outcome {
                Outcome::Answer(response) => Ok(response.map(|body| Answered { body, wire })),
                Outcome::Tunnel(tunnel) => {
                    wire.tunnel.set(Some(tunnel));
                    drop((wire, visitor));
                    // hyper never hears of it: the connection is taken away from it.
                    std::future::pending().await
                }
            }
        })
    }
}

/// The body of an answer. Its end, or its being dropped, is the end of the request.
struct Answered {
    body: Body,
    wire: Rc<Wire>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.wire.answered.set(true);
    }
}
