//! The bytes of an archive as they come from the client, decompressed on the way.

use crate::json::Value;
use crate::refusal::Refusal;
use bytes::{Buf, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use std::io::Write;

/// So much is decompressed at once. The worst input grows a thousandfold.
const STEP: usize = 1 << 10;

/// What compressed streams begin with. The engine looks for these, so an archive that is sent on must not begin so.
const COMPRESSED: &[(&str, &[u8])] = &[
    ("gzip", &[0x1F, 0x8B, 0x08]),
    ("bzip2", b"BZh"),
    ("xz", &[0xFD, b'7', b'z', b'X', b'Z', 0]),
    ("zstd", &[0x28, 0xB5, 0x2F, 0xFD]),
];

/// The name of the compression that these bytes look like to the engine.
pub fn compression(bytes: &[u8]) -> Option<&'static str> {
    let skippable = matches!(bytes, [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..]);
    let known = COMPRESSED.iter().find(|(_, magic)| bytes.starts_with(magic)).map(|(name, _)| *name);
    known.or(if skippable { Some("zstd") } else { None })
}

/// Why bytes are no archive, in any reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// They end too early.
    Short,
    /// What stands in a header's place is none.
    Header,
    /// They begin as gzip and are none.
    Compression,
}

/// A body that is read in the pieces that its reader wants.
pub struct Source<B> {
    body: B,
    ended: bool,
    input: Bytes,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    ready: Bytes,
    flaw: Option<Flaw>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Source<B>
where
    B::Error: std::fmt::Display,
{
    /// A body that is passed on as it is.
    pub fn plain(body: B) -> Self {
        Self { body, ended: false, input: Bytes::new(), decoder: None, ready: Bytes::new(), flaw: None }
    }

    /// Reads the beginning of a body, to see whether it is compressed.
    ///
    /// # Errors
    /// A compression other than gzip, or a body that is cut short.
    pub async fn open(body: B) -> (Self, Result<(), Refusal>) {
        let mut source = Self::plain(body);
        let opened = source.detect().await;
        (source, opened)
    }

    async fn detect(&mut self) -> Result<(), Refusal> {
        let mut begin = BytesMut::new();
        while begin.len() < 10 {
            let Some(more) = self.receive().await? else { break };
            begin.extend_from_slice(&more);
        }
        let begin = begin.freeze();
        match compression(&begin) {
            None => self.ready = begin,
            Some("gzip") => {
                self.input = begin;
                self.decoder = Some(MultiGzDecoder::new(Vec::new()));
            }
            Some(other) => {
                let hint = "it cannot be inspected; send it as it is or with gzip";
                return Err(Refusal::never("an archive compressed with", &Value::from(other), hint));
            }
        }
        Ok(())
    }

    /// Notes why the archive is none.
    pub fn flawed(&mut self, flaw: Flaw) {
        self.flaw = Some(flaw);
    }

    /// Why the archive is none, if it was seen to be none.
    pub fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }

    /// The body, with whatever was not read.
    pub fn into_body(self) -> B {
        self.body
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.ended {
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(e)) => return Err(Refusal::malformed(format!("the body was cut short: {e}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The next bytes, at most `most` of them; nothing at the end.
    ///
    /// # Errors
    /// A body that is cut short, or that is no gzip although it began so.
    pub async fn some(&mut self, most: usize) -> Result<Option<Bytes>, Refusal> {
        while self.ready.is_empty() {
            let broken = |e: std::io::Error| Refusal::malformed(format!("the archive is not well compressed: {e}"));
            if self.decoder.is_none() {
                match self.receive().await? {
                    Some(more) => self.ready = more,
                    None => return Ok(None),
                }
                continue;
            }
            if self.input.is_empty() {
                match self.receive().await? {
                    Some(more) => self.input = more,
                    None => {
                        let Some(mut decoder) = self.decoder.take() else { return Ok(None) };
                        if let Err(e) = decoder.try_finish() {
                            self.flaw = Some(Flaw::Compression);
                            return Err(broken(e));
                        }
                        self.ready = std::mem::take(decoder.get_mut()).into();
                        continue;
                    }
                }
            }
            if let Some(decoder) = &mut self.decoder {
                let step = self.input.split_to(self.input.len().min(STEP));
                if let Err(e) = decoder.write_all(&step) {
                    self.flaw = Some(Flaw::Compression);
                    return Err(broken(e));
                }
                self.ready = std::mem::take(decoder.get_mut()).into();
            }
        }
        Ok(Some(self.ready.split_to(self.ready.len().min(most))))
    }

    /// Exactly this many bytes; nothing where the archive ends before the first of them.
    ///
    /// # Errors
    /// An end in the middle.
    pub async fn exactly(&mut self, length: usize) -> Result<Option<Bytes>, Refusal> {
        let mut whole = BytesMut::new();
        while whole.len() < length {
            match self.some(length - whole.len()).await? {
                Some(part) if part.len() == length => return Ok(Some(part)),
                Some(part) => whole.extend_from_slice(&part),
                None if whole.is_empty() => return Ok(None),
                None => {
                    self.flaw = Some(Flaw::Short);
                    return Err(Refusal::malformed("the archive ends in the middle of an entry"));
                }
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// Takes what follows an archive's end off the body and drops it; nothing of it matters.
    ///
    /// # Errors
    /// A body that is cut short.
    pub async fn drain(&mut self) -> Result<(), Refusal> {
        self.ready.clear();
        self.input.advance(self.input.len());
        while self.receive().await?.is_some() {}
        Ok(())
    }
}
