//! Just enough HTTP/1.1 for both ends of the benchmark: the fake engine and the load generator.

use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const READ: usize = 64 * 1024;

/// How the length of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    Length(u64),
    Chunked,
    ToEnd,
}

pub struct Head {
    /// Request or status line.
    pub line: String,
    /// `None` where the head tells no length.
    pub framing: Option<Framing>,
    pub closes: bool,
    pub expects_continue: bool,
}

impl Head {
    pub fn status(&self) -> Result<u16> {
        let code = self.line.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.ok_or_else(|| bad(format!("no status in `{}`", self.line)))
    }
}

/// A socket with what was read ahead of it.
pub struct Wire {
    stream: UnixStream,
    ahead: BytesMut,
}

impl Wire {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, ahead: BytesMut::with_capacity(4096) }
    }

    pub async fn connect(path: &std::path::Path) -> Result<Self> {
        UnixStream::connect(path).await.map(Self::new)
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// For hijacked streams: the two raw directions, and what the peer had already sent.
    pub fn split(&mut self) -> (tokio::net::unix::ReadHalf<'_>, tokio::net::unix::WriteHalf<'_>, BytesMut) {
        let ahead = self.ahead.split();
        let (read, write) = self.stream.split();
        (read, write, ahead)
    }

    /// The next head, or `None` where the peer closed instead.
    pub async fn head(&mut self) -> Result<Option<Head>> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n", searched) {
                let head = self.ahead.split_to(at + 4);
                return parse(&head).map(Some);
            }
            searched = self.ahead.len().saturating_sub(3);
            if self.fill(4096).await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads a body to its end, piece by piece.
    pub async fn body(&mut self, framing: Framing, mut piece: impl FnMut(&[u8])) -> Result<u64> {
        match framing {
            Framing::Length(length) => {
                self.take(length, &mut piece).await?;
                Ok(length)
            }
            Framing::Chunked => {
                let mut total = 0;
                loop {
                    let size = self.chunk_size().await?;
                    self.take(size, &mut piece).await?;
                    self.take(2, &mut |_: &[u8]| ()).await?;
                    if size == 0 {
                        return Ok(total);
                    }
                    total += size;
                }
            }
            Framing::ToEnd => {
                let mut total = 0;
                loop {
                    piece(&self.ahead);
                    total += self.ahead.len() as u64;
                    self.ahead.clear();
                    if self.fill(READ).await? == 0 {
                        return Ok(total);
                    }
                }
            }
        }
    }

    /// The next part of a chunked answer that has no end yet, such as a followed log.
    pub async fn chunk(&mut self) -> Result<Vec<u8>> {
        let size = self.chunk_size().await?;
        let mut chunk = Vec::new();
        self.take(size, &mut |piece: &[u8]| chunk.extend_from_slice(piece)).await?;
        self.take(2, &mut |_: &[u8]| ()).await?;
        Ok(chunk)
    }

    async fn chunk_size(&mut self) -> Result<u64> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n", 0) {
                let line = self.ahead.split_to(at + 2);
                let digits = std::str::from_utf8(&line).unwrap_or_default().trim();
                return u64::from_str_radix(digits, 16).map_err(|_| bad(format!("chunk size `{digits}`")));
            }
            self.fill_or_fail(READ).await?;
        }
    }

    async fn take(&mut self, mut left: u64, piece: &mut impl FnMut(&[u8])) -> Result<()> {
        while left > 0 {
            if self.ahead.is_empty() {
                self.fill_or_fail(READ).await?;
            }
            let now = left.min(self.ahead.len() as u64) as usize;
            piece(&self.ahead[..now]);
            self.ahead.advance(now);
            left -= now as u64;
        }
        Ok(())
    }

    async fn fill_or_fail(&mut self, room: usize) -> Result<()> {
        match self.fill(room).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self, room: usize) -> Result<usize> {
        self.ahead.reserve(room);
        self.stream.read_buf(&mut self.ahead).await
    }
}

pub fn bad(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

fn parse(head: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(head).map_err(|_| bad("a head that is not UTF-8".into()))?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_string();
    let mut parsed = Head { line, framing: None, closes: false, expects_continue: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| bad(format!("content length `{value}`")))?;
            parsed.framing = Some(Framing::Length(length));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            parsed.framing = Some(Framing::Chunked);
        } else if name.eq_ignore_ascii_case("connection") {
            parsed.closes = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("expect") {
            parsed.expects_continue = true;
        }
    }
    Ok(parsed)
}
