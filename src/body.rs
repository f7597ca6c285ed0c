//! Bodies of requests and answers: streams of bytes with bounded memory.

use crate::refusal::Refusal;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;

/// A refused request's body is read and dropped so long, and so far.
const DRAIN: Duration = Duration::from_secs(10);
const DRAIN_BYTES: usize = 1 << 30;

/// A body that is judged has to be there within this time.
const READ: Duration = Duration::from_secs(60);

/// What can go wrong in the middle of a body.
pub type BodyError = Box<dyn std::error::Error + std::marker::Send + Sync>;

/// A body on its way to the engine or to the client.
pub enum Body {
    /// Nothing.
    Empty,
    /// All of it at once.
    Full(Option<Bytes>),
    /// As it comes from the other side.
    Incoming(Incoming),
    /// Inspected or edited on the way.
    Edited(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    /// A body that is made as it is read.
    pub fn edited(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::Edited(Box::pin(body))
    }
}

/// Holds back the writes of a bulk transfer while other tasks bring more, so that one write carries several of the
/// pieces in which the other side cut its body: each write wakes a reader. Nothing waits for the clock, and what is not
/// bulk does not wait at all.
#[derive(Debug, Default)]
pub struct Gather {
    /// Was the last write a large one?
    bulk: bool,
    /// So much was there when the write was last held back.
    held: usize,
}

impl Gather {
    const LARGE: usize = 16 << 10;
    const ENOUGH: usize = 96 << 10;

    /// Should a write of so much wait? Then it is tried again at once.
    pub fn waits(&mut self, length: usize, cx: &mut Context<'_>) -> bool {
        let grows = length > self.held;
        if grows && length < Self::ENOUGH && (self.bulk || length >= Self::LARGE) {
            self.held = length;
            cx.waker().wake_by_ref();
            return true;
        }
        self.bulk = length >= Self::LARGE;
        self.held = 0;
        false
    }
}

/// Reads a body whole, of at most `limit` bytes. One that is longer or broken is left where it is.
///
/// # Errors
/// A body that is too long, breaks off, or does not come.
pub async fn read(body: &mut Option<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    let Some(incoming) = body.as_mut().filter(|incoming| !incoming.is_end_stream()) else {
        *body = None;
        return Ok(Bytes::new());
    };
    let too_long = || Refusal::TooLarge { message: format!("the request's body is longer than {limit} bytes") };
    if incoming.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let whole = async {
        let mut first = Bytes::new();
        let mut joined = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|e| Refusal::malformed(format!("the request's body breaks off: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + joined.len() + data.len() > limit {
                return Err(too_long());
            }
            // Most bodies come in one piece.
            if first.is_empty() && joined.is_empty() {
                first = data;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
            }
        }
        Ok(if joined.is_empty() { first } else { joined.into() })
    };
    let bytes =
        timeout(READ, whole).await.unwrap_or_else(|_| Err(Refusal::malformed("the request's body does not come")))?;
    *body = None;
    Ok(bytes)
}

/// Reads on a body that nobody needs, within bounds, so that its sender comes to read the answer.
pub fn drain(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::task::spawn_local(async move {
        let rest = async {
            let mut left = DRAIN_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                left = match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(left) => left,
                    None => return,
                };
            }
        };
        drop(timeout(DRAIN, rest).await);
    });
}

/// The same body. When it has come to a good end, and before its reader sees that, `work` is done with its last bytes.
pub fn before_end<W, F>(body: Body, work: W) -> Body
where
    W: FnOnce(Vec<u8>) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let start = |last| Box::pin(work(last)) as Pin<Box<dyn Future<Output = ()>>>;
    Body::edited(BeforeEnd { body, last: Vec::new(), work: Some(Box::new(start)), running: None })
}

/// So much of a body's end is looked at.
const LAST: usize = 16 << 10;

type Work = Box<dyn FnOnce(Vec<u8>) -> Pin<Box<dyn Future<Output = ()>>>>;

struct BeforeEnd {
    body: Body,
    last: Vec<u8>,
    work: Option<Work>,
    running: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl HttpBody for BeforeEnd {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.running.is_none() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(frame) => {
                    if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                        this.last.extend_from_slice(data);
                        this.last.drain(..this.last.len().saturating_sub(LAST));
                    }
                    return Poll::Ready(Some(frame));
                }
                None => {
                    let last = std::mem::take(&mut this.last);
                    this.running = this.work.take().map(|work| work(last));
                }
            }
        }
        if let Some(work) = &mut this.running {
            ready!(work.as_mut().poll(cx));
            this.running = None;
            this.body = Body::Empty;
        }
        Poll::Ready(None)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Incoming(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Self::Edited(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Edited(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Edited(body) => body.size_hint(),
        }
    }
}
