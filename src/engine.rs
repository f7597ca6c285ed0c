//! The Docker Engine behind its socket: a small pool of kept connections, and sockguard's own calls.

use crate::body::{Body, Gather, Rest};
use crate::hold::Turns;
use crate::json::{self, Value};
use crate::refusal::Refusal;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// This many connections are kept.
const KEPT: usize = 64;

/// A connection that was not used for so long is not used again.
const IDLE: Duration = Duration::from_secs(60);

/// An answer to a call of our own is at most this long.
const CALL_LIMIT: usize = 32 << 20;

/// One answer at a time is read that is longer than this.
const SMALL: usize = 64 << 10;

/// A call of our own that takes longer is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// So long a full queue of the engine's socket is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How we introduce ourselves to the engine.
const AGENT: &str = concat!("sockguard/", env!("CARGO_PKG_VERSION"));

/// The engine.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    kept: RefCell<Vec<Kept>>,
    /// Held while a large answer to a call of our own is read.
    large: Semaphore,
    /// Who may change what its containers mount, and who checks it.
    pub turns: Turns,
}

/// A connection that may take the next request: some still transfer an answer and say so.
#[derive(Debug)]
struct Kept {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Engine {
    /// The engine behind this socket. Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, kept: RefCell::default(), large: Semaphore::new(1), turns: Turns::default() }
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request and gives the answer as soon as its head is there. Dropping the answer's body before its end, or
    /// this future, closes the connection that it came on, by which the engine knows that nobody listens.
    ///
    /// A request is sent once: again only if nothing of it was written, or if it only reads and has no body.
    ///
    /// # Errors
    /// `Refusal::Engine`, naming the socket, when the engine cannot be reached or does not answer in HTTP.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Refusal> {
        while let Some(mut sender) = self.take() {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
            let spare = reads.then(|| Spare::of(&request));
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(sender);
                    return Ok(response);
                }
                Err(mut failed) => match failed.take_message().or_else(|| spare.map(Spare::request)) {
                    // The engine closed the connection while nobody used it.
                    Some(unsent) => request = unsent,
                    None => return Err(self.broken(failed.error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        self.keep(sender);
        Ok(response)
    }

    /// Sends a request on a connection of its own. If `leaves` says so of the answer's head, the connection leaves HTTP.
    ///
    /// # Errors
    /// As `send`.
    pub async fn send_apart(
        &self,
        request: Request<Body>,
        leaves: impl FnOnce(&Response<Incoming>) -> bool,
    ) -> Result<Apart, Refusal> {
        let passes = Rc::new(Cell::new(false));
        let wire = HeadFirst::new(self.stream().await?, Rc::clone(&passes));
        let (mut sender, mut connection) =
            builder().handshake(TokioIo::new(wire)).await.map_err(|e| self.broken(&e))?;
        let mut answer = pin!(sender.send_request(request));
        let answer = poll_fn(|cx| {
            // Its errors are the request's errors.
            let ended = connection.poll_without_shutdown(cx).is_ready();
            match answer.as_mut().poll(cx) {
                Poll::Pending if ended => Poll::Ready(Err(self.failed("broke off"))),
                answered => answered.map_err(|e| self.broken(&e)),
            }
        });
        let response = answer.await?;
        if leaves(&response) {
            let wire = connection.into_parts().io.into_inner();
            let early_output = wire.read.freeze();
            return Ok(Apart::Stream(Stream { head: response.map(drop), engine: wire.stream, early_output }));
        }
        passes.set(true);
        tokio::task::spawn_local(async { drop(connection.await) });
        Ok(Apart::Answer(response))
    }

    /// A call of sockguard's own: a small JSON document there and back (bounded), without a version prefix, so that
    /// the engine answers in its own newest version. An answer without a body is `null`.
    ///
    /// # Errors
    /// As `send`; also an answer that is no JSON, exceeds the bound or takes too long.
    pub async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Refusal> {
        self.call_with(method, path_and_query, body, None).await
    }

    /// The same with a header more.
    ///
    /// # Errors
    /// As `call`.
    pub async fn call_with(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
        header: Option<(&'static str, HeaderValue)>,
    ) -> Result<(StatusCode, Value), Refusal> {
        let document = body.map_or(Body::Empty, |value| Body::full(value.to_string()));
        let mut request = self.request(method, path_and_query, document)?;
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value);
        }
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let (status, bytes) = self.exchange(request).await?;
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            json::parse(&bytes).map_err(|e| self.failed(&format!("answered what is no JSON: {e}")))?
        };
        Ok((status, value))
    }

    /// As `call`, for an answer that is looked at where it lies.
    ///
    /// # Errors
    /// As `send`; also an answer that exceeds the bound or takes too long.
    pub async fn get(&self, path_and_query: &str) -> Result<(StatusCode, Bytes), Refusal> {
        self.exchange(self.request(Method::GET, path_and_query, Body::Empty)?).await
    }

    /// A request of sockguard's own.
    ///
    /// # Errors
    /// The path is none.
    pub fn request(&self, method: Method, path_and_query: &str, body: Body) -> Result<Request<Body>, Refusal> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path_and_query.parse().map_err(|_| self.failed("is asked for a path that is none"))?;
        introduce(request.headers_mut());
        Ok(request)
    }

    async fn exchange(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), Refusal> {
        let exchange = async {
            let response = self.send(request).await?;
            let status = response.status();
            let mut body = Limited::new(response.into_body(), CALL_LIMIT);
            let (mut whole, mut room) = (Vec::new(), None);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.failed(&format!("broke off its answer: {e}")))?;
                whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                if whole.len() > SMALL && room.is_none() {
                    room = Some(self.large.acquire().await);
                }
            }
            Ok((status, Bytes::from(whole)))
        };
        timeout(CALL_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(self.failed("does not answer")))
    }

    /// A kept connection that is ready for a request.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut kept = self.kept.borrow_mut();
        let now = Instant::now();
        kept.retain(|entry| !entry.sender.is_closed() && now.duration_since(entry.since) < IDLE);
        let place = kept.iter().rposition(|entry| entry.sender.is_ready())?;
        Some(kept.remove(place).sender)
    }

    /// Keeps a connection. Its answer may still be on its way: it is not taken before that has ended.
    fn keep(&self, sender: SendRequest<Body>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            // One that has been busy for long (a followed stream) ends by itself when nobody holds it.
            let place = kept.iter().position(|entry| !entry.sender.is_ready()).unwrap_or(0);
            kept.remove(place);
        }
        kept.push(Kept { sender, since: Instant::now() });
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Refusal> {
        let stream = self.stream().await?;
        let (sender, connection) = builder().handshake(Wire::new(stream)).await.map_err(|e| self.broken(&e))?;
        // Its errors are the requests' errors.
        tokio::task::spawn_local(async { drop(connection.await) });
        Ok(sender)
    }

    async fn stream(&self) -> Result<UnixStream, Refusal> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            match UnixStream::connect(&self.socket).await {
                // A Unix socket does not wait while its queue is full.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(Duration::from_millis(5)).await
                }
                result => return result.map_err(|e| self.unreachable(&e)),
            }
        }
    }

    fn unreachable(&self, why: &io::Error) -> Refusal {
        let why = match why.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::NotFound => "no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => why.to_string(),
        };
        Refusal::Engine { message: format!("cannot reach the Docker Engine at {}: {why}", self.socket.display()) }
    }

    fn broken(&self, why: &hyper::Error) -> Refusal {
        self.failed(&format!("broke off: {why}"))
    }

    fn failed(&self, what: &str) -> Refusal {
        Refusal::Engine { message: format!("the Docker Engine at {} {what}", self.socket.display()) }
    }
}

/// What comes of a request on a connection of its own.
#[derive(Debug)]
pub enum Apart {
    /// An answer as any other.
    Answer(Response<Incoming>),
    /// The connection has left HTTP.
    Stream(Stream),
}

/// A connection that has left HTTP.
#[derive(Debug)]
pub struct Stream {
    /// The head of the answer.
    pub head: Response<()>,
    /// The engine's socket.
    pub engine: UnixStream,
    /// What was read behind the head.
    pub early_output: Bytes,
}

/// A connection of which hyper reads the head of the answer, and for now nothing behind it.
struct HeadFirst {
    stream: UnixStream,
    /// What was read from the socket and not by hyper.
    read: BytesMut,
    /// How much of it is the head's, as soon as the head is there.
    head: Option<usize>,
    /// Does what is behind it pass as well?
    passes: Rc<Cell<bool>>,
}

impl HeadFirst {
    fn new(stream: UnixStream, passes: Rc<Cell<bool>>) -> Self {
        Self { stream, read: BytesMut::new(), head: None, passes }
    }

    /// Reads until the head is there.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(length) = self.head {
                return Poll::Ready(Ok(length));
            }
            let mut piece = [0; 4 << 10];
            let mut space = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            self.read.extend_from_slice(space.filled());
            self.head = loop {
                let end = memmem::find(&self.read, END_OF_HEAD).map(|at| at + END_OF_HEAD.len());
                match end {
                    // The answer is still to come.
                    Some(end) if no_answer(&self.read) => self.read.advance(end),
                    end => break end,
                }
            };
            if space.filled().is_empty() || self.head.is_none() && self.read.len() > BUFFER {
                // hyper says what is wrong with it.
                self.passes.set(true);
                self.head = Some(self.read.len());
            }
        }
    }
}

/// Is this head, by its beginning, one that says that the answer will come?
fn no_answer(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.1 1") && !head.starts_with(b"HTTP/1.1 101")
}

impl AsyncRead for HeadFirst {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let head = ready!(this.poll_head(cx))?;
        let known = if this.passes.get() { this.read.len() } else { head };
        if known > 0 {
            let given = this.read.split_to(known.min(buf.remaining()));
            this.head = Some(head.saturating_sub(given.len()));
            buf.put_slice(&given);
            return Poll::Ready(Ok(()));
        }
        if this.passes.get() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        // Nobody waits for this: when it passes, it is asked for anew.
        Poll::Pending
    }
}

impl AsyncWrite for HeadFirst {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection in hyper's hand.
struct Wire {
    io: TokioIo<UnixStream>,
    gather: Gather,
}

impl Wire {
    fn new(stream: UnixStream) -> Self {
        Self { io: TokioIo::new(stream), gather: Gather::default() }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gather.waits(bufs.iter().map(|buf| buf.len()).sum(), Rest::None, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// So many headers has every request to the engine.
const INTRODUCED: usize = 2;

/// The headers of every request to the engine.
pub fn introduce(headers: &mut HeaderMap) {
    headers.insert(HOST, HeaderValue::from_static("docker"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
}

/// So much hyper buffers of an answer; a head that is longer is an error.
const BUFFER: usize = 128 << 10;

/// What ends a head.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true).max_buf_size(BUFFER);
    builder
}

/// What makes a request without a body once more.
struct Spare {
    method: Method,
    uri: Uri,
    /// Those that not every request has.
    headers: Option<HeaderMap>,
}

impl Spare {
    fn of(request: &Request<Body>) -> Self {
        let headers = (request.headers().len() > INTRODUCED).then(|| request.headers().clone());
        Self { method: request.method().clone(), uri: request.uri().clone(), headers }
    }

    fn request(self) -> Request<Body> {
        let mut again = Request::new(Body::Empty);
        *again.method_mut() = self.method;
        *again.uri_mut() = self.uri;
        match self.headers {
            Some(headers) => *again.headers_mut() = headers,
            None => introduce(again.headers_mut()),
        }
        again
    }
}
