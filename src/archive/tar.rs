//! Tar archives: entries are read in whatever dialect they come, and written anew in one, so that the engine reads
//! what was judged.

use super::source::{Flaw, Source};
use crate::refusal::Refusal;
use bytes::Bytes;
use hyper::body::Body as HttpBody;

const BLOCK: usize = 512;

/// Long names, extended headers: no more than this.
const META: u64 = 1 << 20;

/// An entry's head.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its path without empty parts, `.` and `..`; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The length of its data.
    pub size: u64,
    mode: u64,
    uid: u64,
    gid: u64,
    mtime: String,
    uname: Vec<u8>,
    gname: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to whatever this says.
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// What extended headers say of the entry that follows.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<String>,
    uname: Option<Vec<u8>>,
    gname: Option<Vec<u8>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn broken(what: &str) -> Refusal {
    Refusal::malformed(format!("the archive cannot be read: {what}"))
}

/// Reads to the next entry's data; nothing at the archive's end.
///
/// # Errors
/// What is no tar archive, or holds what has no place in one for the engine.
pub async fn next<B>(source: &mut Source<B>) -> Result<Option<Entry>, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut extended = Extended::default();
    loop {
        let Some(block) = source.exactly(BLOCK).await? else { return Ok(None) };
        if block.iter().all(|b| *b == 0) {
            return match source.exactly(BLOCK).await? {
                Some(second) if second.iter().any(|b| *b != 0) => Err(broken("something follows a block of zeros")),
                Some(_) | None => Ok(None),
            };
        }
        let header = Header(&block);
        if let Err(refusal) = header.verify() {
            source.flawed(Flaw::Header);
            return Err(refusal);
        }
        match header.kind() {
            b'x' => records(&meta(source, &header).await?, &mut extended)?,
            // What it says of all entries the engine ignores, and so do we.
            b'g' => {
                meta(source, &header).await?;
            }
            b'L' => extended.path = Some(until_nul(&meta(source, &header).await?).to_vec()),
            b'K' => extended.link = Some(until_nul(&meta(source, &header).await?).to_vec()),
            _ => return entry(&header, extended).map(Some),
        }
    }
}

async fn meta<B>(source: &mut Source<B>, header: &Header<'_>) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let size = header.number(124, 12)?;
    if size > META {
        return Err(broken("an extended header is too long"));
    }
    let data = data(source, size).await?;
    padding(source, size).await?;
    Ok(data)
}

/// The data of an entry that is small enough to be held.
///
/// # Errors
/// An archive that ends before.
pub async fn data<B>(source: &mut Source<B>, size: u64) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let size = usize::try_from(size).map_err(|_| broken("an entry is too long"))?;
    if size == 0 {
        return Ok(Bytes::new());
    }
    let data = source.exactly(size).await?;
    data.ok_or_else(|| {
        source.flawed(Flaw::Short);
        broken("it ends before an entry's data")
    })
}

/// Takes the padding after an entry's data.
///
/// # Errors
/// An archive that ends before.
pub async fn padding<B>(source: &mut Source<B>, size: u64) -> Result<(), Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    data(source, u64::try_from(pad(size)).unwrap_or_default()).await.map(|_| ())
}

/// The length of the padding after data of this length.
pub fn pad(size: u64) -> usize {
    let rest = size % 512;
    if rest == 0 { 0 } else { usize::try_from(512 - rest).unwrap_or_default() }
}

struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    fn text(&self, at: usize, length: usize) -> &[u8] {
        until_nul(self.field(at, length))
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    fn verify(&self) -> Result<(), Refusal> {
        let sum = self.number(148, 8)?;
        let bytes = || self.0.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { b' ' } else { *b });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(i8::from_ne_bytes([b]))).sum();
        match i64::try_from(sum) {
            Ok(sum) if sum == unsigned || sum == signed => Ok(()),
            _ => Err(broken("a header's checksum is wrong (is it a tar archive?)")),
        }
    }

    /// Octal digits, or a big-endian number where the highest bit is set.
    fn number(&self, at: usize, length: usize) -> Result<u64, Refusal> {
        let field = self.field(at, length);
        let bad = || broken("a number in a header cannot be read");
        if let Some((first, rest)) = field.split_first()
            && first & 0x80 != 0
        {
            if first & 0x40 != 0 {
                return Err(bad());
            }
            return rest.iter().try_fold(u64::from(first & 0x3F), |n, b| {
                n.checked_mul(256).map(|n| n | u64::from(*b)).ok_or_else(bad)
            });
        }
        let digits = std::str::from_utf8(field).map_err(|_| bad())?.trim_matches([' ', '\0']);
        if digits.is_empty() {
            return Ok(0);
        }
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'7')) {
            return Err(bad());
        }
        u64::from_str_radix(digits, 8).map_err(|_| bad())
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn entry(header: &Header<'_>, extended: Extended) -> Result<Entry, Refusal> {
    let posix = header.field(257, 6) == b"ustar\0";
    let gnu = header.field(257, 8) == b"ustar  \0";
    let named = |given: Option<Vec<u8>>, at| match given {
        Some(text) => text,
        None if posix || gnu => header.text(at, 32).to_vec(),
        None => Vec::new(),
    };
    let raw = match extended.path {
        Some(path) => path,
        None => {
            let star = header.field(508, 4) == b"tar\0";
            let prefix = if posix { header.text(345, if star { 131 } else { 155 }) } else { &[] };
            if prefix.is_empty() { header.text(0, 100).to_vec() } else { [prefix, b"/", header.text(0, 100)].concat() }
        }
    };
    let link = extended.link.unwrap_or_else(|| header.text(157, 100).to_vec());
    let shown = String::from_utf8_lossy(&raw).chars().filter(|c| !c.is_control()).take(120).collect::<String>();
    let kind = match header.kind() {
        b'0' => Kind::File,
        0 if raw.ends_with(b"/") => Kind::Directory,
        0 => Kind::File,
        b'1' => Kind::HardLink(clean(&link).ok_or_else(|| broken(&format!("the link `{shown}` leads out")))?),
        b'2' => Kind::Symlink(link),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'3' | b'4' => return Err(broken(&format!("`{shown}` is a device"))),
        other => return Err(broken(&format!("`{shown}` is of the unknown type {other}"))),
    };
    Ok(Entry {
        path: clean(&raw).ok_or_else(|| broken(&format!("the path `{shown}` leads out")))?,
        size: match kind {
            Kind::File => match extended.size {
                Some(size) => size,
                None => header.number(124, 12)?,
            },
            Kind::Directory | Kind::Symlink(_) | Kind::HardLink(_) | Kind::Fifo => 0,
        },
        kind,
        mode: header.number(100, 8)? & 0o7777,
        uid: match extended.uid {
            Some(uid) => uid,
            None => header.number(108, 8)?,
        },
        gid: match extended.gid {
            Some(gid) => gid,
            None => header.number(116, 8)?,
        },
        mtime: match extended.mtime {
            Some(mtime) => mtime,
            None => header.number(136, 12)?.to_string(),
        },
        uname: named(extended.uname, 265),
        gname: named(extended.gname, 297),
        xattrs: extended.xattrs,
    })
}

/// A path without empty parts and `.`; nothing where it has `..` or a NUL.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) || path.contains(&0) {
        return None;
    }
    Some(parts.join(&b'/'))
}

/// Reads the records of an extended header: `LENGTH KEY=VALUE\n`.
fn records(mut bytes: &[u8], extended: &mut Extended) -> Result<(), Refusal> {
    let bad = || broken("an extended header is not well-formed");
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize =
            bytes.get(..space).and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()).ok_or_else(bad)?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
        bytes = bytes.get(length..).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(bad);
        if value.contains(&0) && !key.starts_with(b"SCHILY.xattr.") {
            return Err(bad());
        }
        match key {
            // An empty value takes the record back.
            b"path" => extended.path = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"linkpath" => extended.link = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"uname" => extended.uname = Some(value.to_vec()),
            b"gname" => extended.gname = Some(value.to_vec()),
            b"size" => extended.size = Some(number()?),
            b"uid" => extended.uid = Some(number()?),
            b"gid" => extended.gid = Some(number()?),
            b"mtime" => extended.mtime = Some(time(value).ok_or_else(bad)?),
            key if key.starts_with(b"GNU.sparse.") => return Err(broken("a file in it is sparse")),
            key if key.starts_with(b"SCHILY.xattr.") => extended.xattrs.push((key.to_vec(), value.to_vec())),
            // Times of access and change, comments, other tools' notes.
            _ => {}
        }
    }
    Ok(())
}

/// A decimal number, perhaps negative, perhaps with a fraction.
fn time(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(whole.strip_prefix('-').unwrap_or(whole)) && digits(fraction)).then(|| text.to_owned())
}

impl Entry {
    /// The same with data of this length.
    #[must_use]
    pub fn resized(mut self, size: usize) -> Self {
        self.size = u64::try_from(size).unwrap_or(u64::MAX);
        self
    }

    /// The path for messages.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).chars().filter(|c| !c.is_control()).take(120).collect()
    }

    /// The paths of the directories that it lies in.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        self.path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| self.path.get(..at).unwrap_or_default())
    }

    /// The head as it is written.
    ///
    /// # Errors
    /// Values that have no place in a header.
    pub fn encode(&self) -> Result<Vec<u8>, Refusal> {
        let mut path = if self.path.is_empty() { b".".to_vec() } else { self.path.clone() };
        let (kind, link) = match &self.kind {
            Kind::File => (b'0', &[][..]),
            Kind::Directory => {
                path.push(b'/');
                (b'5', &[][..])
            }
            Kind::Symlink(target) => (b'2', target.as_slice()),
            Kind::HardLink(target) => (b'1', target.as_slice()),
            Kind::Fifo => (b'6', &[][..]),
        };
        let mut out = Vec::with_capacity(BLOCK);
        let mut pax: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let (short_path, short_link) = (path.len() <= 100, link.len() <= 100);
        for (short, text, key, gnu) in
            [(short_path, path.as_slice(), &b"path"[..], b'L'), (short_link, link, b"linkpath", b'K')]
        {
            if !short && std::str::from_utf8(text).is_ok() {
                pax.push((key, text.to_vec()));
            } else if !short {
                let body = [text, b"\0"].concat();
                out.extend(special(gnu, b"././@LongLink", &body)?);
            }
        }
        let number = |n: u64| n.to_string().into_bytes();
        if self.size > 0o77_777_777_777 {
            pax.push((b"size", number(self.size)));
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if id > 0o7_777_777 {
                pax.push((key, number(id)));
            }
        }
        let whole = self.mtime.parse::<u64>().ok().filter(|t| *t <= 0o77_777_777_777);
        if whole.is_none() {
            pax.push((b"mtime", self.mtime.clone().into_bytes()));
        }
        for (key, name) in [(&b"uname"[..], &self.uname), (b"gname", &self.gname)] {
            if name.len() > 32 && std::str::from_utf8(name).is_ok() {
                pax.push((key, name.clone()));
            }
        }
        for (key, value) in &self.xattrs {
            pax.push((key, value.clone()));
        }
        if !pax.is_empty() {
            let body: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            out.extend(special(b'x', b"PaxHeaders/entry", &body)?);
        }
        let fits = |text: &[u8], most: usize| if text.len() <= most { text.to_vec() } else { Vec::new() };
        out.extend(header(
            &text_or_dot(path.get(..100).unwrap_or(&path)),
            kind,
            [self.mode, self.uid, self.gid, self.size, whole.unwrap_or_default()],
            link.get(..100).unwrap_or(link),
            &fits(&self.uname, 32),
            &fits(&self.gname, 32),
        ));
        Ok(out)
    }
}

/// A field that must not be empty.
fn text_or_dot(text: &[u8]) -> Vec<u8> {
    if text.is_empty() { b".".to_vec() } else { text.to_vec() }
}

fn special(kind: u8, name: &[u8], body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let size = u64::try_from(body.len()).map_err(|_| broken("a header is too long"))?;
    let mut out = header(name, kind, [0o644, 0, 0, size, 0], &[], &[], &[]);
    out.extend_from_slice(body);
    out.resize(out.len() + pad(size), 0);
    Ok(out)
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn header(name: &[u8], kind: u8, numbers: [u64; 5], link: &[u8], uname: &[u8], gname: &[u8]) -> Vec<u8> {
    let [mode, uid, gid, size, mtime] = numbers;
    let octal = |n: u64, digits: usize| {
        let text = format!("{n:0digits$o}");
        let text = if text.len() > digits { "0".repeat(digits) } else { text };
        [text.as_bytes(), b"\0"].concat()
    };
    let field = |text: &[u8], length: usize| {
        let mut field = text.to_vec();
        field.resize(length, 0);
        field
    };
    let mut block: Vec<u8> = [
        field(name, 100),
        octal(mode, 7),
        octal(uid, 7),
        octal(gid, 7),
        octal(size, 11),
        octal(mtime, 11),
        b"        ".to_vec(),
        vec![kind],
        field(link, 100),
        b"ustar\x0000".to_vec(),
        field(uname, 32),
        field(gname, 32),
        octal(0, 7),
        octal(0, 7),
    ]
    .concat();
    block.resize(BLOCK, 0);
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let sum = format!("{sum:06o}\0 ");
    for (slot, byte) in block.iter_mut().skip(148).zip(sum.bytes()) {
        *slot = byte;
    }
    block
}

/// The end of an archive.
pub const END: &[u8] = &[0; 2 * BLOCK];
