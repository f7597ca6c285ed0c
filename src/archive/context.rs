//! Build contexts. The classic builder starts when it has the whole archive, so the Dockerfile can be judged, and
//! changed, while it passes.

use super::source::{Source, compression};
use super::tar::{self, Entry, Kind};
use super::{Sink, Written};
use crate::json::Value;
use crate::judge::Agent;
use crate::judge::build::{ContextRules, DOCKERFILE};
use crate::judge::dockerfile::judge_dockerfile;
use crate::refusal::Refusal;
use crate::world::World;
use bytes::Bytes;
use hyper::body::Body as HttpBody;
use std::cell::RefCell;
use std::collections::HashSet;

/// A Dockerfile is held to be judged; no larger than this.
const LARGEST: u64 = 1 << 20;

/// So many links are remembered, of so many bytes.
const LINKS: usize = 200_000;
const LINK_BYTES: usize = 8 << 20;

/// Who asks, and what is known.
pub struct Judge<'a, W> {
    /// What the context must keep to.
    pub rules: &'a ContextRules,
    /// The build's registry credentials.
    pub credentials: Option<&'a str>,
    /// Who asks.
    pub agent: &'a Agent,
    /// The facts.
    pub world: &'a W,
}

/// Passes a context on.
///
/// # Errors
/// What is refused. The end of the archive was then not passed on.
pub async fn pass<B, W>(
    source: &mut Source<B>,
    judge: &Judge<'_, W>,
    sink: &mut Sink,
    written: &RefCell<Written>,
) -> Result<(), Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    W: World,
{
    let path = judge.rules.dockerfile.as_bytes();
    // Where nobody named another, the engine looks for this one too.
    let fallback = if judge.rules.dockerfile == DOCKERFILE { Some(DOCKERFILE.to_ascii_lowercase()) } else { None };
    let mut seen = false;
    let mut held: Option<(Entry, Bytes)> = None;
    let mut links = Links::default();
    let mut first = true;
    while let Some(entry) = tar::next(source).await? {
        if std::mem::take(&mut first) && compression(&entry.path).is_some() {
            return Err(refused(&entry, "its name makes the archive look compressed"));
        }
        links.check(&entry)?;
        let is_parent = |of: &[u8]| of.strip_prefix(entry.path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        let is_fallback = fallback.as_deref().is_some_and(|name| name.as_bytes() == entry.path);
        if is_parent(path) && entry.kind != Kind::Directory {
            return Err(refused(&entry, "the Dockerfile's directories must be directories"));
        }
        if entry.parents().any(|parent| parent == path) {
            return Err(refused(&entry, "it lies below the Dockerfile"));
        }
        if entry.path == path || is_fallback {
            if entry.kind != Kind::File {
                return Err(refused(&entry, "the Dockerfile must be a file, not a link; name the file itself"));
            }
            if entry.size > LARGEST {
                return Err(refused(&entry, "the Dockerfile is larger than 1 MiB"));
            }
            if (entry.path == path && seen) || (is_fallback && held.is_some()) {
                return Err(refused(&entry, "the Dockerfile stands twice in the context"));
            }
            let text = tar::data(source, entry.size).await?;
            tar::padding(source, entry.size).await?;
            if is_fallback {
                held = Some((entry, text));
            } else {
                seen = true;
                dockerfile(entry, &text, judge, sink, written).await?;
            }
            continue;
        }
        sink.send(entry.encode()?.into()).await?;
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let part = source
                .some(most)
                .await?
                .ok_or_else(|| Refusal::malformed("the archive ends in the middle of an entry"))?;
            left -= u64::try_from(part.len()).unwrap_or(left);
            sink.send(part).await?;
        }
        tar::padding(source, entry.size).await?;
        sink.pad(entry.size).await?;
    }
    match held {
        Some((entry, text)) if seen => file(entry, text, sink).await?,
        Some((entry, text)) => dockerfile(entry, &text, judge, sink, written).await?,
        None => {}
    }
    source.drain().await?;
    sink.send(Bytes::from_static(tar::END)).await
}

async fn dockerfile<W: World>(
    entry: Entry,
    text: &[u8],
    judge: &Judge<'_, W>,
    sink: &mut Sink,
    written: &RefCell<Written>,
) -> Result<(), Refusal> {
    let pinned = judge_dockerfile(text, judge.rules, judge.credentials, judge.agent, judge.world).await?;
    let labels = pinned.labels;
    written.replace(Written { names: pinned.names, labels });
    file(entry, pinned.text.into(), sink).await
}

async fn file(entry: Entry, text: Bytes, sink: &mut Sink) -> Result<(), Refusal> {
    let entry = entry.resized(text.len());
    sink.send(entry.encode()?.into()).await?;
    sink.send(text).await?;
    sink.pad(entry.size).await
}

fn refused(entry: &Entry, why: &str) -> Refusal {
    Refusal::never("the context's entry", &Value::from(entry.shown()), why)
}

/// The links that an archive has made so far. What came after one of them and below it would land elsewhere than its
/// path says.
#[derive(Debug, Default)]
pub struct Links {
    paths: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Links {
    /// Checks that an entry does not lie below a link, and remembers it if it is one.
    ///
    /// # Errors
    /// It does; or there are too many links.
    pub fn check(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if !self.paths.is_empty() && entry.parents().any(|parent| self.paths.contains(parent)) {
            return Err(refused(entry, "it lies below a link"));
        }
        match entry.kind {
            Kind::Symlink(_) | Kind::HardLink(_) => {
                self.bytes += entry.path.len();
                if self.paths.len() >= LINKS || self.bytes > LINK_BYTES {
                    return Err(refused(entry, "there are too many links"));
                }
                self.paths.insert(entry.path.clone());
            }
            Kind::File | Kind::Directory | Kind::Fifo => {}
        }
        Ok(())
    }
}
