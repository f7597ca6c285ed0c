//! Bodies of requests and answers: streams of bytes with bounded memory.

use crate::refusal::Refusal;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// A refused request's body is read and dropped so long, and so far.
const DRAIN: Duration = Duration::from_secs(10);
const DRAIN_BYTES: usize = 1 << 30;

/// A body that is judged has to be there within this time.
const READ: Duration = Duration::from_secs(60);

/// A body of up to this many bytes is read at any time.
const SMALL: usize = 64 << 10;

/// So many bytes of larger bodies are held at once, whatever the number of connections. A body takes its share before
/// more of it is read than `SMALL`, so nobody waits who holds something already.
static BODIES: Semaphore = Semaphore::const_new(64 << 20);

/// So much memory the documents that were read from larger bodies take at once.
static DOCUMENTS: Semaphore = Semaphore::const_new(64 << 20);

/// What a value of a JSON document takes beside its text.
const VALUE: usize = 96;

/// A JSON document has at most so many values. A container with a thousand of everything has a tenth of it.
pub const MOST_VALUES: usize = 100_000;

/// So much of both an owner takes at most, so that room is left for the others.
const OWNERS: usize = 24 << 20;

/// A JSON document whose text is shorter takes none of its owner's share.
const SMALL_DOCUMENT: usize = 8 << 10;

/// So long a large body waits for others to make room.
const ROOM: Duration = Duration::from_secs(10);

/// So many archives of images of an owner are received at once: what is in them is remembered meanwhile.
const ARCHIVES: usize = 2;

/// What an owner may take of the memory for large bodies.
#[derive(Debug)]
pub struct Allowance {
    bodies: Arc<Semaphore>,
    documents: Arc<Semaphore>,
    /// One of it is held while an archive of images is received.
    pub archives: Semaphore,
}

impl Default for Allowance {
    fn default() -> Self {
        let share = || Arc::new(Semaphore::new(OWNERS));
        Self { bodies: share(), documents: share(), archives: Semaphore::new(ARCHIVES) }
    }
}

/// A share of the memory for large bodies. Dropping it gives it back.
#[derive(Debug, Default)]
pub struct Share {
    of_owner: Option<OwnedSemaphorePermit>,
    of_all: Option<SemaphorePermit<'static>>,
}

/// A body that was read whole.
#[derive(Debug, Default)]
pub struct Whole {
    bytes: Bytes,
    share: Share,
}

impl std::ops::Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Whole {
    /// The bytes, with their share of the memory.
    pub fn into_parts(self) -> (Bytes, Share) {
        (self.bytes, self.share)
    }

    /// Waits for the memory that the JSON document in this body takes, as long as it is there. What takes nothing of the
    /// memory for large bodies takes of its owner's share all the same: there may be very many.
    ///
    /// # Errors
    /// There is none for too long; the document has too many values.
    pub async fn room_for_document(&self, allowance: &Allowance) -> Result<Share, Refusal> {
        if self.bytes.len() <= SMALL_DOCUMENT {
            return Ok(Share::default());
        }
        let values = values(&self.bytes);
        if values > MOST_VALUES {
            let message = format!("the request's body has more than {MOST_VALUES} values");
            return Err(Refusal::TooLarge { message });
        }
        let size = self.bytes.len().saturating_add(values.saturating_mul(VALUE));
        let all = self.share.of_all.is_some().then_some(&DOCUMENTS);
        share(&allowance.documents, all, size.min(OWNERS)).await
    }
}

/// About how many values a JSON document has, keys among them: as many as it has signs outside of texts.
pub fn values(document: &[u8]) -> usize {
    let (mut count, mut within, mut escaped) = (0, false, false);
    for byte in document {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if within => escaped = true,
            b'"' => within = !within,
            b',' | b':' | b'[' | b'{' if !within => count += 1,
            _ => {}
        }
    }
    count
}

/// Waits for the owner's share, and then for one of all.
async fn share(owner: &Arc<Semaphore>, all: Option<&'static Semaphore>, size: usize) -> Result<Share, Refusal> {
    let permits = u32::try_from(size).unwrap_or(u32::MAX);
    let both = async {
        let of_owner = Some(Arc::clone(owner).acquire_many_owned(permits).await?);
        let of_all = match all {
            Some(all) => Some(all.acquire_many(permits).await?),
            None => None,
        };
        Ok::<_, AcquireError>(Share { of_owner, of_all })
    };
    match timeout(ROOM, both).await {
        Ok(Ok(share)) => Ok(share),
        Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable {
            message: "sockguard: too many large request bodies at once, try again".to_owned(),
        }),
    }
}

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

/// Holds back the writes of a bulk transfer, and the beginning of every answer, while other tasks bring more, so that one
/// write carries several of the pieces in which the other side cut its body: each write wakes a reader. Nothing waits for
/// the clock, and the later pieces of what is not bulk do not wait at all.
#[derive(Debug, Default)]
pub struct Gather {
    /// Was the last write a large one?
    bulk: bool,
    /// So much was there when the write was last held back.
    held: usize,
    /// Was the last write one in the middle of a message?
    within: bool,
}

/// What is known of the message behind a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing, or that this is all of it.
    None,
    /// More of it comes.
    Comes,
}

impl Gather {
    const LARGE: usize = 16 << 10;
    const ENOUGH: usize = 96 << 10;

    /// Should a write of so much wait? Then it is tried again at once.
    pub fn waits(&mut self, length: usize, rest: Rest, cx: &mut Context<'_>) -> bool {
        let grows = length > self.held;
        let begins = rest == Rest::Comes && !self.within;
        if grows && length < Self::ENOUGH && (begins || self.bulk || length >= Self::LARGE) {
            self.held = length;
            cx.waker().wake_by_ref();
            return true;
        }
        self.bulk = length >= Self::LARGE;
        self.held = 0;
        self.within = rest == Rest::Comes;
        false
    }
}

/// Reads a body whole, of at most `limit` bytes. One that is longer or broken is left where it is.
///
/// # Errors
/// A body that is too long, breaks off, or does not come, or a large one while others take all the memory for such.
pub async fn read(body: &mut Option<Incoming>, limit: usize, allowance: &Allowance) -> Result<Whole, Refusal> {
    let Some(incoming) = body.as_mut().filter(|incoming| !incoming.is_end_stream()) else {
        *body = None;
        return Ok(Whole::default());
    };
    let too_long = || Refusal::TooLarge { message: format!("the request's body is longer than {limit} bytes") };
    if incoming.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    // Chunks do not say how much they will be.
    let length = incoming.size_hint().exact().and_then(|n| usize::try_from(n).ok());
    let whole = async {
        let mut first = Bytes::new();
        let mut joined = Vec::new();
        let mut taken = Share::default();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|e| Refusal::malformed(format!("the request's body breaks off: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + joined.len() + data.len() > limit {
                return Err(too_long());
            }
            if taken.of_owner.is_none() && first.len() + joined.len() + data.len() > SMALL {
                taken = share(&allowance.bodies, Some(&BODIES), length.unwrap_or(limit)).await?;
            }
            // Most bodies come in one piece.
            if first.is_empty() && joined.is_empty() {
                first = data;
            } else {
                if joined.is_empty() && taken.of_owner.is_some() {
                    joined.reserve_exact(length.unwrap_or_default());
                }
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
            }
        }
        Ok(Whole { bytes: if joined.is_empty() { first } else { joined.into() }, share: taken })
    };
    let whole =
        timeout(READ, whole).await.unwrap_or_else(|_| Err(Refusal::malformed("the request's body does not come")))?;
    *body = None;
    Ok(whole)
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

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_bodies_wait_for_room() {
        let all: &'static Semaphore = Box::leak(Box::new(Semaphore::new(100)));
        let owners = [Arc::new(Semaphore::new(80)), Arc::new(Semaphore::new(80))];
        let [one, other] = &owners;
        let first = share(one, Some(all), 70).await.expect("room");
        // Neither for another of the same owner, nor of all together.
        for owner in &owners {
            let mut second = Box::pin(share(owner, Some(all), 40));
            assert!(timeout(Duration::from_millis(20), &mut second).await.is_err());
        }
        drop(share(other, None, 80).await.expect("room of its own"));
        drop(share(other, Some(all), 30).await.expect("room"));
        drop(first);
        drop(share(one, Some(all), 40).await.expect("room again"));
        assert_eq!((all.available_permits(), one.available_permits()), (100, 80));
    }

    #[tokio::test]
    async fn a_document_takes_room_by_its_values() {
        let allowance = Allowance::default();
        let taken = |share: &Share| share.of_owner.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let whole = |text: Vec<u8>| Whole { bytes: text.into(), share: Share::default() };
        let small = whole(vec![b'['; SMALL_DOCUMENT]);
        assert_eq!(taken(&small.room_for_document(&allowance).await.expect("room")), 0);
        let text = format!("[{}1]", "0,".repeat(MOST_VALUES - 1)).into_bytes();
        let usual = whole(text.clone());
        let room = usual.room_for_document(&allowance).await.expect("room");
        assert!(taken(&room) > MOST_VALUES * VALUE && room.of_all.is_none());
        let share = share(&allowance.bodies, Some(&BODIES), 1).await.expect("room");
        let large = Whole { bytes: text.into(), share };
        let room = large.room_for_document(&allowance).await.expect("room");
        assert!(taken(&room) > MOST_VALUES * VALUE && room.of_all.is_some());
        let heavy = whole(vec![b'['; 4 << 20]);
        assert!(matches!(heavy.room_for_document(&allowance).await, Err(Refusal::TooLarge { .. })));
        assert_eq!(values(br#"{"a,\":[":[",{",1]}"#), 4);
    }
}
