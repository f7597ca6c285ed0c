//! A body that is edited while it passes.

use super::room::{Place, Room, SMALL};
use crate::body::{Body, BodyError};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Edits an answer piece by piece.
pub trait Editor {
    /// Called once before anything is read.
    async fn begin(&mut self) -> Result<(), BodyError> {
        Ok(())
    }

    /// Reads a piece and writes what the client may see of it.
    async fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError>;

    /// So many bytes of a part are held that is not read to its end.
    fn holds(&self) -> usize;

    /// The answer has ended: writes what the client gets beyond it. An error says that it ended too early.
    async fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError>;
}

/// The body that `editor` makes of another. Each piece goes on as soon as it is edited; a large one has its place in the
/// owner's room.
pub fn edited<B, E>(body: B, editor: E, room: Room) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
    E: Editor + 'static,
{
    Body::edited(Edited {
        state: State::Ready(Box::new(Source { body, editor, room, place: None, begun: false, ended: false })),
    })
}

struct Source<B, E> {
    body: B,
    editor: E,
    room: Room,
    place: Option<Place>,
    begun: bool,
    ended: bool,
}

type Turn<B, E> = (Box<Source<B, E>>, Option<Result<Bytes, BodyError>>);

enum State<B, E> {
    Ready(Box<Source<B, E>>),
    Busy(Pin<Box<dyn Future<Output = Turn<B, E>>>>),
    Over,
}

struct Edited<B, E> {
    state: State<B, E>,
}

impl<B, E> Source<B, E>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
    E: Editor,
{
    /// Reads until there is something to send on.
    async fn turn(mut self: Box<Self>) -> Turn<B, E> {
        if !self.begun {
            self.begun = true;
            if let Err(error) = self.editor.begin().await {
                return (self, Some(Err(error)));
            }
        }
        if self.editor.holds() <= SMALL {
            // The client has taken what was large.
            self.place = None;
        }
        loop {
            if self.ended {
                return (self, None);
            }
            if self.editor.holds() > SMALL
                && let Err(refusal) = self.take_place().await
            {
                return (self, Some(Err(refusal)));
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    let mut out = Vec::new();
                    match self.editor.finish(&mut out).await {
                        Err(error) => return (self, Some(Err(error))),
                        Ok(()) if out.is_empty() => {}
                        Ok(()) => return (self, Some(Ok(out.into()))),
                    }
                }
                Some(Err(error)) => return (self, Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    let Some(piece) = frame.data_ref() else { continue };
                    let mut out = Vec::with_capacity(piece.len());
                    if let Err(error) = self.editor.piece(piece, &mut out).await {
                        return (self, Some(Err(error)));
                    }
                    if !out.is_empty() {
                        if out.len() > SMALL {
                            out.shrink_to_fit();
                            if let Err(refusal) = self.take_place().await {
                                return (self, Some(Err(refusal)));
                            }
                        }
                        return (self, Some(Ok(out.into())));
                    }
                }
            }
        }
    }

    async fn take_place(&mut self) -> Result<(), BodyError> {
        if self.place.is_none() {
            self.place = Some(self.room.place().await.map_err(|refusal| refusal.message(""))?);
        }
        Ok(())
    }
}

impl<B, E> HttpBody for Edited<B, E>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
    E: Editor + 'static,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Ready(source) => this.state = State::Busy(Box::pin(source.turn())),
                State::Busy(mut turn) => {
                    let Poll::Ready((source, piece)) = turn.as_mut().poll(cx) else {
                        this.state = State::Busy(turn);
                        return Poll::Pending;
                    };
                    // After the end or an error nothing more is read; an error cuts the client's answer off, so that
                    // half of a list is never taken for all of it.
                    return Poll::Ready(match piece {
                        None => None,
                        Some(Err(error)) => {
                            tracing::warn!("an answer was cut off: {error}");
                            Some(Err(error))
                        }
                        Some(Ok(bytes)) => {
                            this.state = State::Ready(source);
                            Some(Ok(Frame::data(bytes)))
                        }
                    });
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }
}
