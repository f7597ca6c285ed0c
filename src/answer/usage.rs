//! `GET /system/df`: own containers and volumes, own and shared images, and no build cache, which all owners share.
//!
//! What the engine sums up is summed up again over what is shown. A sum stands behind what it sums, so that nothing has to
//! be held; the order of members says nothing in JSON.

use super::Viewer;
use super::lists::{Elements, Kind};
use super::scan::{self, Broken, Comma, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use super::upstream::Upstream;
use crate::body::BodyError;

const ENTERED: &[&str] = &[
    "Images",
    "Containers",
    "Volumes",
    "BuildCache",
    "ImageUsage",
    "ContainerUsage",
    "VolumeUsage",
    "BuildCacheUsage",
    "Items",
];

/// Edits disk usage.
pub struct Usage<U> {
    splitter: Splitter,
    writer: Writer<U>,
}

struct Writer<U> {
    elements: Elements<U>,
    depth: usize,
    section: Section,
    /// In an object whose sums are made again (`ImageUsage` and the like)?
    summed: bool,
    /// Has what is gone into a list of items?
    itemised: bool,
    /// The key of the member that is read is written only if its value is.
    pending: Vec<u8>,
    members: Comma,
    items: Comma,
    inner: Comma,
    sums: Sums,
    /// The engine's sum of all layers: right where all images are shown.
    layers: Option<i64>,
    images: Sums,
}

/// A section of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Of(Kind),
    BuildCache,
    Other,
}

/// What is summed up over the shown elements.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    shown: i64,
    hidden: i64,
    active: i64,
    size: i64,
    reclaimable: i64,
    /// The largest part that an image shares with others: it is there at least once.
    shared: i64,
    /// The engine's own total.
    total: Option<i64>,
}

impl<U: Upstream> Usage<U> {
    /// For this agent.
    pub fn new(viewer: Viewer<U>) -> Self {
        let writer = Writer {
            elements: Elements::new(viewer),
            depth: 0,
            section: Section::Other,
            summed: false,
            itemised: false,
            pending: Vec::new(),
            members: Comma::default(),
            items: Comma::default(),
            inner: Comma::default(),
            sums: Sums::default(),
            layers: None,
            images: Sums::default(),
        };
        Self { splitter: Splitter::new(Parts::Under(ENTERED)), writer }
    }
}

impl<U: Upstream> Editor for Usage<U> {
    async fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut input = piece;
        while let Some(token) = self.splitter.next(&mut input)? {
            self.writer.token(token, out).await?;
        }
        Ok(())
    }

    fn holds(&self) -> usize {
        self.splitter.held()
    }

    async fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), BodyError> {
        Ok(self.splitter.finish()?)
    }
}

impl<U: Upstream> Writer<U> {
    async fn token(&mut self, token: Token<'_>, out: &mut Vec<u8>) -> Result<(), BodyError> {
        match (token, self.depth) {
            (Token::Open(b'{'), 0) => {
                out.push(b'{');
                self.depth = 1;
            }
            (Token::Key(key), 1) => {
                self.pending = key.to_vec();
                self.section = match key {
                    b"Images" | b"ImageUsage" => Section::Of(Kind::Images),
                    b"Containers" | b"ContainerUsage" => Section::Of(Kind::Containers),
                    b"Volumes" | b"VolumeUsage" => Section::Of(Kind::Volumes),
                    b"BuildCache" | b"BuildCacheUsage" => Section::BuildCache,
                    _ => Section::Other,
                };
            }
            (Token::Value(value), 1) => match (&*self.pending, self.section) {
                (b"LayersSize", _) => self.layers = scan::int(value),
                // The deprecated size of the build cache.
                (b"BuilderSize", _) => self.member(b"0", out),
                (_, Section::Of(_) | Section::BuildCache) => self.member(b"null", out),
                // What is not known is not shown.
                (_, Section::Other) => {}
            },
            (Token::TooLarge(_), 1) => {}
            (Token::Open(byte), 1) => {
                self.member(&[byte], out);
                self.depth = 2;
                self.summed = byte == b'{';
                self.itemised = !self.summed;
                (self.items, self.inner, self.sums) = Default::default();
            }
            (Token::Key(key), 2) => self.pending = key.to_vec(),
            (Token::Open(b'['), 2) if self.pending == b"Items" => {
                if self.section != Section::BuildCache {
                    self.inner.written();
                    out.extend_from_slice(b"\"Items\":[");
                }
                self.itemised = true;
                self.depth = 3;
            }
            (Token::Value(value), 2) if self.summed => {
                if self.pending == b"TotalSize" {
                    self.sums.total = scan::int(value);
                }
            }
            (Token::TooLarge(_), 2) if self.summed => {}
            (Token::Value(value), 2 | 3) => self.item(value, out).await?,
            (Token::TooLarge(_), 2 | 3) => self.sums.hidden += 1,
            (Token::Close(_), 3) => {
                if self.section != Section::BuildCache {
                    out.push(b']');
                }
                self.depth = 2;
            }
            (Token::Close(byte), 2) => {
                if self.summed && self.itemised {
                    self.totals(out);
                }
                if self.section == Section::Of(Kind::Images) {
                    self.images = self.sums;
                }
                out.push(byte);
                self.depth = 1;
            }
            (Token::Close(byte), 1) => {
                if let Some(layers) = self.layers {
                    self.pending = b"LayersSize".to_vec();
                    let size = self.images.of_layers(Some(layers)).to_string();
                    self.member(size.as_bytes(), out);
                }
                out.push(byte);
                out.push(b'\n');
                self.depth = 0;
            }
            _ => return Err(Broken("it is no disk usage").into()),
        }
        Ok(())
    }

    fn member(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.members.write(out);
        self.members.written();
        out.push(b'"');
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    }

    async fn item(&mut self, item: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        let Section::Of(kind) = self.section else { return Ok(()) };
        let mark = out.len();
        self.items.write(out);
        let start = out.len();
        match self.elements.write(kind, item, out).await? {
            Show::Shown => {
                self.items.written();
                self.sums.add(kind, out.get(start..).unwrap_or_default())?;
            }
            Show::Hidden => {
                self.sums.hidden += 1;
                out.truncate(mark);
            }
        }
        Ok(())
    }

    /// The engine leaves zeros out.
    fn totals(&mut self, out: &mut Vec<u8>) {
        let size = match self.section {
            Section::Of(Kind::Images) => self.sums.of_layers(self.sums.total),
            _ => self.sums.size,
        };
        let Sums { active, reclaimable, shown, .. } = self.sums;
        for (key, n) in
            [("ActiveCount", active), ("Reclaimable", reclaimable), ("TotalCount", shown), ("TotalSize", size)]
        {
            if n != 0 {
                self.inner.write(out);
                self.inner.written();
                out.extend_from_slice(format!("\"{key}\":{n}").as_bytes());
            }
        }
    }
}

impl Sums {
    /// Counts an element as the engine does.
    fn add(&mut self, kind: Kind, element: &[u8]) -> Result<(), Broken> {
        let number = |object: &[u8], key: &str| Ok(scan::find(object, key)?.and_then(|m| scan::int(m.value)));
        self.shown += 1;
        match kind {
            Kind::Containers => {
                let size = number(element, "SizeRw")?.unwrap_or_default();
                self.size += size;
                match &*scan::text_of(element, "State")? {
                    "running" | "paused" | "restarting" => self.active += 1,
                    _ => self.reclaimable += size,
                }
            }
            Kind::Images => {
                let size = number(element, "Size")?.unwrap_or_default().max(0);
                let shared = number(element, "SharedSize")?.unwrap_or_default().max(0);
                self.size += size - shared;
                self.shared = self.shared.max(shared);
                match number(element, "Containers")?.unwrap_or(-1) {
                    0 => self.reclaimable += size - shared,
                    1.. => self.active += 1,
                    _ => {}
                }
            }
            Kind::Volumes => {
                let usage = scan::find(element, "UsageData")?.map_or(&b"{}"[..], |m| m.value);
                self.active += 1;
                let size = number(usage, "Size")?.unwrap_or(-1);
                if size != -1 {
                    self.size += size;
                    if number(usage, "RefCount")? == Some(0) {
                        self.reclaimable += size;
                        self.active -= 1;
                    }
                }
            }
            Kind::Networks => {}
        }
        Ok(())
    }

    /// What the layers of the shown images take: the engine's own sum where all are shown.
    fn of_layers(&self, total: Option<i64>) -> i64 {
        match total {
            Some(total) if self.hidden == 0 => total,
            _ => self.size + self.shared,
        }
    }
}
