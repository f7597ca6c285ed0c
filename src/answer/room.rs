//! Room for the large parts of answers: an owner's connections hold a few of them at once, however many there are and
//! however slowly their clients read. The others wait, which stops nobody else.

use crate::body::BodyError;
use crate::refusal::Refusal;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A part of up to this many bytes is held at any time.
pub const SMALL: usize = 32 << 10;

/// So many larger ones are held at once for an owner, each from when it is read until its client has taken it.
const AT_ONCE: usize = 4;

/// So long one waits for the others.
const WAIT: Duration = Duration::from_secs(60);

/// An owner's room for large parts.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// A large part's place. Dropping it makes room for the next.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Room {
    /// Waits for a place.
    ///
    /// # Errors
    /// There is none for too long.
    pub async fn place(&self) -> Result<Place, Refusal> {
        match timeout(WAIT, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable {
                message: "sockguard: the answers to your other requests are large and not read, try again".to_owned(),
            }),
        }
    }
}

/// A body of these bytes, which keeps their place until the client has taken them.
pub struct Placed {
    bytes: Option<Bytes>,
    place: Option<Place>,
}

impl Placed {
    /// These bytes, in this place.
    pub fn new(bytes: Bytes, place: Place) -> Self {
        Self { bytes: Some(bytes), place: Some(place) }
    }
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        // More is asked for when what was there is written.
        self.place = None;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.place.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_place_is_free_again_when_its_bytes_were_taken() {
        let room = Room::default();
        let mut places = Vec::new();
        for _ in 0..AT_ONCE {
            places.push(room.place().await.expect("a place"));
        }
        let mut body = Placed::new(Bytes::from_static(b"x"), places.pop().expect("a place"));
        let mut next = Box::pin(room.place());
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
        assert!(body.frame().await.is_some() && !body.is_end_stream());
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
        assert!(body.frame().await.is_none() && body.is_end_stream());
        next.await.expect("the place that was left");
    }
}
