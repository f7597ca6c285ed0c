//! Archives on their way to the engine: build contexts are inspected as they pass, image archives before the engine
//! sees them.

pub mod context;
pub mod images;
pub mod output;
pub mod source;
pub mod tar;

use crate::body::{Body, BodyError};
use crate::json::Value;
use crate::judge::Agent;
use crate::judge::build::ContextRules;
use crate::refusal::Refusal;
use crate::world::World;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame};
use source::Source;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Smaller pieces are gathered.
const SMALL: usize = 4 << 10;

/// Gathered pieces go when they are so many bytes.
const GATHERED: usize = 32 << 10;

/// How the Dockerfile that the engine is given differs from the client's: for the build's output.
#[derive(Debug, Default, Clone)]
pub struct Written {
    /// Image IDs that were put in place of names, with the names.
    pub names: Vec<(String, String)>,
    /// How many instructions were added that set the owner's label.
    pub labels: usize,
}

/// What is known of a body on its way.
pub struct Passage<B>(Rc<State<B>>);

struct State<B> {
    refusal: RefCell<Option<Refusal>>,
    rest: RefCell<Option<B>>,
    written: RefCell<Written>,
}

impl<B> Passage<B> {
    /// Why the body was not passed on to its end. The request to the engine has then failed, and this is what the
    /// client is told.
    pub fn refusal(&self) -> Option<Refusal> {
        self.0.refusal.borrow().clone()
    }

    /// What is left of the client's body after a refusal, to be drained.
    pub fn take_rest(&self) -> Option<B> {
        self.0.rest.borrow_mut().take()
    }

    /// How the Dockerfile differs from what the client wrote.
    pub fn written(&self) -> Written {
        self.0.written.borrow().clone()
    }
}

/// A build context that is inspected as it passes.
pub fn context<B, W>(
    rules: ContextRules,
    credentials: Option<String>,
    agent: Rc<Agent>,
    world: Rc<W>,
    body: B,
) -> (Body, Passage<B>)
where
    B: HttpBody<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
    W: World + 'static,
{
    piped(move |sink, state| async move {
        let mut sink = sink;
        let (mut source, opened) = Source::open(body).await;
        let judge =
            context::Judge { rules: &rules, credentials: credentials.as_deref(), agent: &agent, world: world.as_ref() };
        let result = match opened {
            Ok(()) => context::pass(&mut source, &judge, &mut sink, &state.written).await,
            Err(refusal) => Err(refusal),
        };
        finish(result, source.into_body(), sink, &state).await;
    })
}

/// A file system that is imported: only its length is looked at.
pub fn limited<B>(max_bytes: u64, body: B) -> (Body, Passage<B>)
where
    B: HttpBody<Data = Bytes> + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    piped(move |sink, state| async move {
        let mut sink = sink;
        let mut source = Source::plain(body);
        let result = pass_limited(&mut source, max_bytes, &mut sink).await;
        finish(result, source.into_body(), sink, &state).await;
    })
}

async fn pass_limited<B>(source: &mut Source<B>, max_bytes: u64, sink: &mut Sink) -> Result<(), Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut left = max_bytes;
    while let Some(part) = source.some(usize::MAX).await? {
        left = u64::try_from(part.len())
            .ok()
            .and_then(|length| left.checked_sub(length))
            .ok_or_else(|| too_large(max_bytes))?;
        sink.send(part).await?;
    }
    Ok(())
}

fn too_large(max_bytes: u64) -> Refusal {
    Refusal::not_allowed(
        "an archive of more bytes than",
        &Value::from(max_bytes.to_string()),
        "image.max-archive-bytes",
    )
}

async fn finish<B>(result: Result<(), Refusal>, body: B, mut sink: Sink, state: &State<B>) {
    let result = match result {
        Ok(()) => sink.flush().await,
        refused => refused,
    };
    if let Err(refusal) = result {
        *state.refusal.borrow_mut() = Some(refusal);
        *state.rest.borrow_mut() = Some(body);
    }
}

/// Where a body's pieces go.
pub struct Sink {
    sender: mpsc::Sender<Bytes>,
    gathered: BytesMut,
}

impl Sink {
    /// Passes a piece on.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub async fn send(&mut self, part: Bytes) -> Result<(), Refusal> {
        if part.len() < SMALL {
            self.gathered.extend_from_slice(&part);
            if self.gathered.len() < GATHERED {
                return Ok(());
            }
            return self.flush().await;
        }
        self.flush().await?;
        self.give(part).await
    }

    /// Fills up to a whole block after data of this length.
    ///
    /// # Errors
    /// When nobody takes it any more.
    pub async fn pad(&mut self, size: u64) -> Result<(), Refusal> {
        let length = tar::pad(size);
        self.send(Bytes::from_static(tar::END).slice(..length.min(tar::END.len()))).await
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = self.gathered.split().freeze();
        self.give(gathered).await
    }

    async fn give(&mut self, part: Bytes) -> Result<(), Refusal> {
        let gone = |_| Refusal::Engine { message: "the engine does not take the rest of the body".to_owned() };
        self.sender.send(part).await.map_err(gone)
    }
}

/// A body that is made by a task which runs as it is read.
struct Piped<B> {
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    parts: mpsc::Receiver<Bytes>,
    state: Rc<State<B>>,
}

fn piped<B, F>(task: impl FnOnce(Sink, Rc<State<B>>) -> F) -> (Body, Passage<B>)
where
    B: 'static,
    F: Future<Output = ()> + 'static,
{
    let (sender, parts) = mpsc::channel(1);
    let state = Rc::new(State { refusal: RefCell::new(None), rest: RefCell::new(None), written: RefCell::default() });
    let task = task(Sink { sender, gathered: BytesMut::new() }, Rc::clone(&state));
    let body = Piped { task: Some(Box::pin(task)), parts, state: Rc::clone(&state) };
    (Body::edited(body), Passage(state))
}

impl<B> HttpBody for Piped<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(part) = this.parts.poll_recv(cx) {
                return Poll::Ready(match part {
                    Some(part) => Some(Ok(Frame::data(part))),
                    // A refused body ends in an error, so that the engine does not take it for a whole one.
                    None => {
                        this.state.refusal.borrow().is_some().then(|| Err("the body was refused on its way".into()))
                    }
                });
            }
            let Some(task) = &mut this.task else { return Poll::Ready(None) };
            if task.as_mut().poll(cx).is_ready() {
                this.task = None;
                continue;
            }
            match this.parts.poll_recv(cx) {
                Poll::Ready(Some(part)) => return Poll::Ready(Some(Ok(Frame::data(part)))),
                Poll::Ready(None) => this.task = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
