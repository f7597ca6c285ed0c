//! Bodies of requests and answers: streams of bytes with bounded memory.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

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
