//! Two sockets joined: the streams of attach and exec, once the engine has left HTTP, and the logs that are followed.
//!
//! Each direction's end goes on by itself: what a client sends after it has closed its writing side is nothing, but what
//! it may still read is all of the output.

use bytes::Bytes;
use hyper::StatusCode;
use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// One read takes at most this much: larger buffers gain nothing, smaller ones cost much.
const BUFFER: usize = 64 << 10;

/// Buffers that are kept for the next who needs one.
const SPARE: usize = 4;

/// What a client that has gone had sent before reaches the engine within this time, or not at all.
const LAST_INPUT: Duration = Duration::from_secs(10);

/// A client that still writes when all is said is heard for so long, and so much.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: usize = 1 << 30;

/// One that is silent for so long writes no more.
const SILENCE: Duration = Duration::from_millis(500);

/// The engine's side of a connection that leaves HTTP.
#[derive(Debug)]
pub struct Tunnel {
    /// The status of the answer to the client.
    pub status: StatusCode,
    /// The head of the answer to the client.
    pub head: Vec<u8>,
    /// The engine's socket.
    pub engine: UnixStream,
    /// What the engine said behind its head.
    pub early_output: Bytes,
    /// What becomes of what the client says.
    pub input: Input,
}

/// What becomes of what the client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The engine reads it.
    Taken,
    /// Nobody does. The engine still speaks HTTP: it would be another request.
    Dropped,
}

impl Tunnel {
    /// Answers the client and joins it to the engine until either side has ended. `early_input` is what the client sent
    /// behind its request.
    pub async fn run(self, client: UnixStream, early_input: Bytes) {
        let Self { status: _, mut head, engine, early_output, input: taken } = self;
        let (Ok(client), Ok(engine)) = (Side::of(client), Side::of(engine)) else { return };
        head.extend_from_slice(&early_output);
        if client.write_all(&head).await.is_err() {
            return;
        }
        drop((head, early_output));
        // Without a descriptor for it, a client that goes away is noticed when something is written to it.
        let mut hangup = Hangup::watch(client.socket.get_ref());
        let output_ended = {
            let mut input = pin!(async {
                if !early_input.is_empty() && engine.write_all(&early_input).await.is_err() {
                    return;
                }
                drop(early_input);
                if let Ended::NotTaken = copy(&client, &engine).await {
                    // The engine hears no more: the client should know.
                    client.shutdown(Shutdown::Read);
                }
                engine.shutdown(Shutdown::Write);
            });
            let mut input_ended = taken == Input::Dropped;
            let output_ended = {
                let mut output = pin!(copy(&engine, &client));
                poll_fn(|cx| {
                    if !input_ended {
                        input_ended = input.as_mut().poll(cx).is_ready();
                    }
                    match output.as_mut().poll(cx) {
                        Poll::Ready(Ended::Whole) => Poll::Ready(true),
                        // The client takes no more output. What it has sent still counts.
                        Poll::Ready(Ended::NotTaken) => Poll::Ready(false),
                        Poll::Pending => {
                            hangup.as_mut().map_or(Poll::Pending, |hangup| hangup.poll(cx)).map(|()| false)
                        }
                    }
                })
                .await
            };
            if !output_ended && !input_ended {
                drop(timeout(LAST_INPUT, input).await);
            }
            output_ended
        };
        drop(engine);
        if output_ended {
            // The client's end is not waited for: one at a terminal sends none.
            client.shutdown(Shutdown::Write);
            if let Ok(client) = UnixStream::from_std(client.socket.into_inner()) {
                linger(&client).await;
            }
        }
    }
}

/// How one direction of a stream ended.
enum Ended {
    /// Nothing more comes.
    Whole,
    /// Nobody takes more.
    NotTaken,
}

/// Copies until the end of `from`, or until `to` takes no more. Holds a buffer only while there is something in it.
async fn copy(from: &Side, to: &Side) -> Ended {
    loop {
        // A cut of a raw stream looks like an end to everybody.
        let Ok(buffer) = poll_fn(|cx| from.poll_read(cx)).await else { return Ended::Whole };
        let Some(filled) = buffer.filled() else { return Ended::Whole };
        if to.write_all(filled).await.is_err() {
            return Ended::NotTaken;
        }
    }
}

/// One of the two sockets. The system tells when something can be read from it, and only since a write had to wait also
/// when there is room: otherwise it would wake us whenever the other side has read.
struct Side {
    socket: AsyncFd<StdUnixStream>,
    room: OnceCell<AsyncFd<OwnedFd>>,
}

impl Side {
    fn of(socket: UnixStream) -> io::Result<Self> {
        Ok(Self { socket: watch(socket.into_std()?, Interest::READABLE)?, room: OnceCell::new() })
    }

    fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let mut buffer = Buffer::take();
            match ready.try_io(|socket| socket.get_ref().read(&mut buffer.bytes)) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Ok(Ok(length)) => {
                    if (1..BUFFER).contains(&length) {
                        // That was all: to ask again would only say so.
                        ready.clear_ready();
                    }
                    buffer.length = length;
                    return Poll::Ready(Ok(buffer));
                }
                // It only looked ready; now it is known not to be.
                Err(_) => {}
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = || self.socket.get_ref().write(bytes);
            let written = match self.room.get() {
                None => write(),
                Some(room) => match room.writable().await?.try_io(|_| write()) {
                    Ok(written) => written,
                    // It only looked as if there were room; now it is known not to be.
                    Err(_) => continue,
                },
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.room.get().is_none() => {
                    let room = self.socket.get_ref().as_fd().try_clone_to_owned()?;
                    let _ = self.room.set(watch(room, Interest::WRITABLE)?);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) {
        // One that is closed already needs none.
        let _ = self.socket.get_ref().shutdown(how);
    }
}

/// A buffer for one read.
struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

thread_local! {
    /// All streams share a few buffers, since only one of them is at work at any time; one that waits for a slow reader
    /// keeps its own.
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    fn take() -> Self {
        let spare = BUFFERS.with(|buffers| buffers.borrow_mut().pop());
        Self { bytes: spare.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()), length: 0 }
    }

    /// What was read; nothing at the end.
    fn filled(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length).filter(|filled| !filled.is_empty())
    }
}

impl Drop for Buffer {
    /// Gives it back.
    fn drop(&mut self) {
        // Where the thread ends there is nothing to give it to.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < SPARE {
                buffers.push(std::mem::take(&mut self.bytes));
            }
        });
    }
}

/// Hears out a client that still writes, with our own writing side closed: closing at once would reset it before it has
/// read our last words.
pub async fn linger(client: &UnixStream) {
    let now = tokio::select! {
        biased;
        ready = client.ready(Interest::READABLE) => ready.ok(),
        () = std::future::ready(()) => None,
    };
    // A client that has ended its own side, as most have, needs no telling.
    if !now.is_some_and(|ready| ready.is_read_closed()) {
        let _ = rustix::net::shutdown(client, rustix::net::Shutdown::Write);
    }
    let until = Instant::now() + LINGER;
    let mut heard = 0;
    while heard < LINGER_BYTES && Instant::now() < until {
        let Ok(Ok(())) = timeout(SILENCE, client.readable()).await else { return };
        let mut buffer = Buffer::take();
        match client.try_read(&mut buffer.bytes) {
            Ok(0) => return,
            Ok(length) => heard += length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Registers a descriptor for these events alone.
fn watch<T: AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(deprecated, reason = "it is unsound for types that lie about their descriptor; those of std do not")]
    AsyncFd::with_interest(descriptor, interest)
}

/// Tells when the other side of a Unix socket is closed altogether, not only its writing side.
pub struct Hangup(AsyncFd<OwnedFd>);

impl Hangup {
    /// Watches this socket. Nothing when the system has no descriptor left.
    pub fn watch(socket: &impl AsFd) -> Option<Self> {
        let fd = socket.as_fd().try_clone_to_owned().ok()?;
        // A hang-up is reported whatever is asked for. To ask for reading would report a half-close as well, again and
        // again; urgent data is asked for because something has to be, and is not waited for below.
        watch(fd, Interest::PRIORITY).ok().map(Self)
    }

    /// Ready when the other side is gone.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(cx).map(drop)
    }
}
