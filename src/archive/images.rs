//! Image archives (`docker load`): kept on disk until every tag and every label in them was judged.

use super::context::Links;
use super::source::{Flaw, Source, compression};
use super::tar::{self, Entry, Kind};
use super::too_large;
use crate::body::{self, Body, BodyError};
use crate::json::{self, Object, Value};
use crate::judge::Agent;
use crate::judge::images::{check_loaded_labels, may_take, named};
use crate::permit::Load;
use crate::reference::{self, Reference};
use crate::refusal::Refusal;
use crate::world::World;
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{SeekFrom, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWriteExt, BufWriter, ReadBuf};

/// So many entries an archive may have. One of a hundred images has a fourth of it.
const ENTRIES: usize = 40_000;

/// The names of all of them are at most so long.
const NAMES: usize = 4 << 20;

/// A document in an archive (manifest, configuration) is at most this long.
const DOCUMENT: u64 = 8 << 20;

/// The environment of an image is at most this long.
const ENVIRONMENT: usize = 256 << 10;

/// Indexes that name indexes that name indexes.
const DEPTH: usize = 4;

/// An archive that was judged.
pub struct Judged {
    /// It goes to the engine.
    pub body: Body,
    /// The images in it, and the names that they get when the engine has taken it.
    pub loads: Vec<Load>,
}

/// Receives an archive and judges it. The client's body comes back for what is left of it.
pub async fn receive<B, W>(max_bytes: u64, agent: &Agent, world: &W, body: B) -> (Result<Judged, Refusal>, B)
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    W: World,
{
    let (mut source, opened) = Source::open(body).await;
    let result = match opened {
        Ok(()) => received(max_bytes, agent, world, &mut source).await,
        Err(refusal) => Err(refusal),
    };
    let result = match source.flaw() {
        Some(flaw) => result.or(Ok(Judged::in_place_of(flaw))),
        None => result,
    };
    (result, source.into_body())
}

impl Judged {
    /// What is no archive the engine is to tell of in its own words: it is given bytes that are none in the same way.
    fn in_place_of(flaw: Flaw) -> Self {
        let bytes: &'static [u8] = match flaw {
            Flaw::Short => b"x",
            Flaw::Header => &[b'x'; 512],
            Flaw::Compression => b"\x1F\x8B\x08garbage",
        };
        Self { body: Body::full(Bytes::from_static(bytes)), loads: Vec::new() }
    }

    /// An archive without an image, for one that holds other things.
    fn empty() -> Self {
        Self { body: Body::full(Bytes::from_static(tar::END)), loads: Vec::new() }
    }
}

async fn received<B, W>(max_bytes: u64, agent: &Agent, world: &W, source: &mut Source<B>) -> Result<Judged, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    W: World,
{
    let mut archive = spool(max_bytes, source).await?;
    if archive.has_no_image() {
        return Ok(Judged::empty());
    }
    let loads = archive.judge(agent).await?;
    // The names are given when the engine has taken the archive; what cannot be had is told before.
    let names: BTreeSet<&Reference> = loads.iter().flat_map(|load| &load.names).collect();
    for name in names {
        match world.image(&name.to_string()).await? {
            None => {}
            // The name has this image already.
            Some(image) if archive.is(&loads, name, image.id.as_str()) => {}
            Some(_) => may_take(name, agent, world).await?,
        }
    }
    Ok(Judged { body: archive.without_names().await?, loads })
}

fn disk(e: std::io::Error) -> Refusal {
    Refusal::Engine { message: format!("the archive cannot be kept on disk: {e}") }
}

fn refused(what: &str, value: &str, why: &str) -> Refusal {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    Refusal::never(format!("the archive's {what}"), &Value::from(value), why)
}

thread_local! {
    /// The bytes of all archives that are on disk now. (All requests are served by one thread.)
    static SPOOLED: Cell<u64> = const { Cell::new(0) };
}

/// An archive's share of the disk, given back when it is dropped.
#[derive(Default)]
struct Share(u64);

impl Share {
    /// Takes more, if all archives together then keep to this limit.
    fn take(&mut self, bytes: u64, limit: u64) -> bool {
        let all = SPOOLED.get().saturating_add(bytes);
        if all > limit {
            return false;
        }
        SPOOLED.set(all);
        self.0 += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        SPOOLED.set(SPOOLED.get().saturating_sub(self.0));
    }
}

/// An archive on disk.
struct Archive {
    file: File,
    share: Share,
    length: u64,
    entries: BTreeMap<String, Item>,
    by_digest: BTreeMap<String, Place>,
    /// The configurations below each manifest or index that `index.json` names.
    below: BTreeMap<String, BTreeSet<String>>,
    /// The documents that give names, and where they stand with their heads and padding.
    naming: Vec<(Entry, Place)>,
}

/// The documents that give names to images. The engine is given others in their place, which give none: it would give
/// the names at the end of a load, and somebody else may have them by then.
const NAMING: [&str; 3] = ["manifest.json", "index.json", "repositories"];

/// The annotations of an index that name an image.
const IMAGE_NAME: &str = "io.containerd.image.name";
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

/// What an archive has at a path.
enum Item {
    File(Place, String),
    Link(String),
    Directory,
}

/// Where a file's data are.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    size: u64,
}

/// A file that nobody else sees and that is gone with the process. `/var/tmp` is on disk where `/tmp` is in memory.
/// Besides the file gives the number of bytes that are free where it is.
fn unnamed() -> std::io::Result<(std::fs::File, u64)> {
    let fallback = std::env::temp_dir();
    let file = tempfile::tempfile_in(Path::new("/var/tmp")).or_else(|_| tempfile::tempfile_in(fallback))?;
    let system = rustix::fs::fstatvfs(&file)?;
    Ok((file, system.f_bavail.saturating_mul(system.f_frsize)))
}

async fn spool<B>(max_bytes: u64, source: &mut Source<B>) -> Result<Archive, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (file, free) = tokio::task::spawn_blocking(unnamed).await.map_err(|e| disk(e.into()))?.map_err(disk)?;
    // Others need the disk as well.
    let half = free.saturating_add(SPOOLED.get()) / 2;
    let mut share = Share::default();
    let mut file = BufWriter::with_capacity(256 << 10, File::from_std(file));
    let (mut entries, mut by_digest): (BTreeMap<String, Item>, BTreeMap<String, Place>) = Default::default();
    let mut links = Links::default();
    let mut naming = Vec::new();
    let (mut length, mut names) = (0u64, 0usize);
    while let Some(entry) = tar::next(source).await? {
        let path = String::from_utf8(entry.path.clone())
            .map_err(|_| refused("entry", &entry.shown(), "its name is not UTF-8"))?;
        // The first entry may be left out, so whichever comes then is meant.
        if compression(&entry.path).is_some() {
            return Err(refused("entry", &path, "its name makes the archive look compressed"));
        }
        if entries.len() >= ENTRIES {
            return Err(refused("entry", &path, "there are too many entries"));
        }
        names = names.saturating_add(path.len());
        if names > NAMES {
            let message = format!("the names in the archive are longer than {NAMES} bytes together");
            return Err(Refusal::TooLarge { message });
        }
        links.check(&entry)?;
        let head = entry.encode()?;
        let (begin, at) = (length, length.saturating_add(len(head.len())));
        length = at.saturating_add(entry.size).saturating_add(len(tar::pad(entry.size)));
        if length > max_bytes {
            return Err(too_large(max_bytes));
        }
        // Entries tell their lengths before they come; what is not there yet takes no part of the disk.
        take(&mut share, len(head.len() + tar::pad(entry.size)), max_bytes, half)?;
        file.write_all(&head).await.map_err(disk)?;
        let mut hash = Sha256::new();
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let part = source.some(most).await?.ok_or_else(|| {
                source.flawed(Flaw::Short);
                Refusal::malformed("the archive ends in the middle of an entry")
            })?;
            left -= len(part.len()).min(left);
            take(&mut share, len(part.len()), max_bytes, half)?;
            hash.update(&part);
            file.write_all(&part).await.map_err(disk)?;
        }
        tar::padding(source, entry.size).await?;
        let zeros = tar::END.get(..tar::pad(entry.size)).unwrap_or_default();
        file.write_all(zeros).await.map_err(disk)?;
        if NAMING.contains(&path.as_str()) {
            naming.push((entry.clone(), Place { at: begin, size: length - begin }));
        }
        let item = match entry.kind {
            Kind::Directory => Item::Directory,
            Kind::File => {
                let (place, digest) = (Place { at, size: entry.size }, digest(hash));
                by_digest.insert(digest.clone(), place);
                Item::File(place, digest)
            }
            Kind::Symlink(target) => Item::Link(layer_link(&path, &target)?),
            Kind::HardLink(_) | Kind::Fifo => {
                return Err(refused("entry", &path, "it is neither a file nor a directory"));
            }
        };
        match (entries.get(&path), &item) {
            (None, _) => {
                entries.insert(path, item);
            }
            (Some(Item::Directory), Item::Directory) => {}
            (Some(_), _) => return Err(refused("entry", &path, "it stands twice")),
        }
    }
    source.drain().await?;
    file.flush().await.map_err(disk)?;
    Ok(Archive { file: file.into_inner(), share, length, entries, by_digest, below: BTreeMap::new(), naming })
}

fn take(share: &mut Share, bytes: u64, max_bytes: u64, half: u64) -> Result<(), Refusal> {
    if share.take(bytes, max_bytes.min(half)) {
        return Ok(());
    }
    let message = match max_bytes <= half {
        true => {
            format!("the archives that are loaded at the same time have more than {max_bytes} bytes, try again later")
        }
        false => format!("the archives that are loaded need more than half of the free disk, {half} bytes"),
    };
    Err(Refusal::TooLarge { message })
}

fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn digest(hash: Sha256) -> String {
    hash.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// `docker save` writes a layer that stands twice as a link beside its place: `ID/layer.tar` to `../ID/layer.tar`, or to
/// the blob. Gives the path that it leads to.
fn layer_link(path: &str, target: &[u8]) -> Result<String, Refusal> {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let place = path.strip_suffix("/layer.tar").is_some_and(hex);
    let target = std::str::from_utf8(target).unwrap_or_default();
    let inside = target.strip_prefix("../").unwrap_or_default();
    let fine =
        inside.strip_suffix("/layer.tar").is_some_and(hex) || inside.strip_prefix("blobs/sha256/").is_some_and(hex);
    if place && fine {
        Ok(inside.to_owned())
    } else {
        Err(refused("link", path, "only links between layers are known"))
    }
}

impl Archive {
    /// Is there nothing in it that any engine takes for an image?
    fn has_no_image(&self) -> bool {
        let of_image = |path: &String| {
            matches!(path.as_str(), "manifest.json" | "index.json" | "repositories" | "oci-layout")
                || path.ends_with("/json")
        };
        !self.entries.keys().any(of_image)
    }

    /// Judges the labels, and gives the images with the names that they are to have.
    async fn judge(&mut self, agent: &Agent) -> Result<Vec<Load>, Refusal> {
        let mut loads = Vec::new();
        let manifest = self.document("manifest.json").await?;
        let index = self.document("index.json").await?;
        match (&manifest, &index) {
            (None, None) => {
                let hint = "it is in the form of Docker before 1.10; save it again with a newer one";
                return Err(Refusal::operation("an archive without manifest.json", "").hint(hint));
            }
            (None, Some(_)) => self.only_oci()?,
            (Some(_), _) => {}
        }
        if let Some(manifest) = manifest {
            self.docker(&manifest, agent, &mut loads).await?;
        }
        if let Some(index) = index {
            self.oci(&index, agent, &mut loads).await?;
        }
        Ok(loads)
    }

    /// Without `manifest.json` old engines read every directory as an image of the oldest form.
    fn only_oci(&self) -> Result<(), Refusal> {
        let blob = |path: &str| {
            let rest = path.strip_prefix("blobs/").and_then(|rest| rest.split_once('/'));
            rest.is_some_and(|(algorithm, hex)| algorithm.starts_with("sha") && hex.len() >= 64 && !hex.contains('/'))
        };
        for (path, item) in &self.entries {
            let known = match item {
                Item::Directory => path.is_empty() || path == "blobs" || path.starts_with("blobs/sha"),
                Item::File(..) => matches!(path.as_str(), "oci-layout" | "index.json") || blob(path),
                Item::Link(_) => false,
            };
            if !known {
                return Err(refused("entry", path, "it has no place in an OCI layout"));
            }
        }
        Ok(())
    }

    /// The form of `docker save`: `manifest.json` names configurations and layers by their paths.
    async fn docker(&mut self, manifest: &Value, agent: &Agent, loads: &mut Vec<Load>) -> Result<(), Refusal> {
        let items =
            manifest.as_array().ok_or_else(|| Refusal::malformed("the archive's manifest.json is no JSON array"))?;
        let mut ids = BTreeSet::new();
        let mut parents = Vec::new();
        for item in items {
            let item = object(item, "manifest.json")?;
            let config =
                text(item, "Config")?.ok_or_else(|| Refusal::malformed("an image in manifest.json has no Config"))?;
            let (place, id) = match self.entries.get(&plain(config)) {
                Some(Item::File(place, digest)) => {
                    ids.insert(digest.clone());
                    (*place, digest.clone())
                }
                Some(_) | None => {
                    return Err(refused("manifest.json names the configuration", config, "it is not in the archive"));
                }
            };
            let config = self.read(place, config).await?;
            let diff_ids = judge_config(&config, agent)?;
            let layers = strings(member(item, "Layers")?, "Layers")?;
            let mut places = Vec::new();
            for layer in layers {
                let mut found = self.entries.get(&plain(layer));
                if let Some(Item::Link(target)) = found {
                    found = self.entries.get(target);
                }
                match found {
                    Some(Item::File(place, digest)) => places.push((*place, digest.clone())),
                    Some(_) | None => {
                        return Err(refused("manifest.json names the layer", layer, "it is not in the archive"));
                    }
                }
            }
            self.layers(&places, &diff_ids).await?;
            let names =
                strings(member(item, "RepoTags")?, "RepoTags")?.into_iter().map(tagged).collect::<Result<_, _>>()?;
            loads.push(Load { id, layers: Some(diff_ids), names });
            parents.extend(text(item, "Parent")?.map(str::to_owned));
        }
        // Another image's parent would be pruned along with it.
        match parents.iter().find(|parent| !parent.is_empty() && !ids.contains(*parent)) {
            Some(parent) => Err(refused("manifest.json names the parent", parent, "it is not in the archive")),
            None => Ok(()),
        }
    }

    /// The OCI layout: `index.json` names manifests by their digests.
    async fn oci(&mut self, index: &Value, agent: &Agent, loads: &mut Vec<Load>) -> Result<(), Refusal> {
        let list = member(object(index, "index.json")?, "manifests")?;
        let list = list.and_then(Value::as_array).ok_or_else(|| Refusal::malformed("index.json names no manifests"))?;
        for descriptor in list {
            let descriptor = object(descriptor, "index.json")?;
            let digest = text(descriptor, "digest")?.unwrap_or_default().to_owned();
            if !self.by_digest.contains_key(&digest) {
                return Err(refused("index.json names the manifest", &digest, "it is not in the archive"));
            }
            self.below(&digest, agent).await?;
            let annotations = member(descriptor, "annotations")?.and_then(Value::as_object);
            let annotation = |name| annotations.and_then(|all| all.get(name)).and_then(Value::as_str);
            let mut names = Vec::new();
            match (annotation(IMAGE_NAME), annotation(REFERENCE_NAME)) {
                (Some(name), _) => names.push(tagged(name)?),
                // Some tools write a tag here, others a whole name, which engines then take.
                (None, Some(tag)) if reference::is_tag(tag) => {}
                (None, Some(name)) => match Reference::parse(name) {
                    Ok(name) if name.digest().is_none() => names.push(name.or_latest()),
                    _ => return Err(refused("index.json has the name", name, "it is no image's name")),
                },
                (None, None) => {}
            }
            loads.push(Load { id: digest, layers: None, names });
        }
        Ok(())
    }

    /// Judges what lies below a manifest or an index.
    async fn below(&mut self, root: &str, agent: &Agent) -> Result<(), Refusal> {
        // What is still to be looked at, and how deep it lies.
        let mut open = vec![(root.to_owned(), 0)];
        let (mut seen, mut configs) = (BTreeSet::new(), BTreeSet::new());
        while let Some((digest, depth)) = open.pop() {
            // A manifest for a platform that was not saved may be absent.
            let Some(place) = self.by_digest.get(&digest).copied() else { continue };
            if !seen.insert(digest.clone()) {
                continue;
            }
            if depth > DEPTH {
                return Err(refused("index", &digest, "it is nested too deep"));
            }
            let document = self.read(place, &digest).await?;
            let document = object(&document, &digest)?;
            for nested in member(document, "manifests")?.and_then(Value::as_array).unwrap_or_default() {
                let nested = object(nested, &digest)?;
                open.push((text(nested, "digest")?.unwrap_or_default().to_owned(), depth + 1));
            }
            if let Some(config) = member(document, "config")? {
                let config = object(config, &digest)?;
                configs.extend(text(config, "digest")?.map(str::to_owned));
                self.manifest(document, config, agent).await?;
            }
        }
        self.below.insert(root.to_owned(), configs);
        Ok(())
    }

    /// Is what a name is to mean the image of this ID, whichever document the engine goes by?
    fn is(&self, loads: &[Load], name: &Reference, id: &str) -> bool {
        let bound = || loads.iter().filter(|load| load.names.contains(name));
        let roots: BTreeSet<&str> = bound().filter(|load| load.layers.is_none()).map(|load| load.id.as_str()).collect();
        let configs: BTreeSet<&str> =
            bound().filter(|load| load.layers.is_some()).map(|load| load.id.as_str()).collect();
        let (mut roots, mut configs) = (roots.into_iter(), configs.into_iter());
        match (roots.next(), configs.next(), roots.next(), configs.next()) {
            (Some(root), None, None, None) => root == id,
            (None, Some(config), None, None) => config == id,
            (Some(root), Some(config), None, None) => {
                (root == id || config == id) && self.below.get(root).is_some_and(|below| below.contains(config))
            }
            _ => false,
        }
    }

    /// The archive as the engine is given it: every byte but what gives names to images.
    async fn without_names(mut self) -> Result<Body, Refusal> {
        let mut parts = VecDeque::new();
        let mut more = Vec::new();
        let mut at = 0;
        for (entry, place) in std::mem::take(&mut self.naming) {
            parts.push_back(Part::Disk(Place { at, size: place.at.saturating_sub(at) }));
            at = place.at.saturating_add(place.size);
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let Some(mut document) = self.document(&name).await? else { continue };
            match name.as_str() {
                "manifest.json" => unnamed_manifest(&mut document),
                "index.json" => unnamed_index(&mut document),
                // What only the oldest engines read.
                _ => continue,
            }
            let data = document.to_string().into_bytes();
            let entry = entry.resized(data.len());
            more.extend_from_slice(&entry.encode()?);
            let padding = tar::pad(len(data.len()));
            more.extend(data);
            more.extend_from_slice(tar::END.get(..padding).unwrap_or_default());
        }
        more.extend_from_slice(tar::END);
        parts.push_back(Part::Disk(Place { at, size: self.length.saturating_sub(at) }));
        parts.push_back(Part::Bytes(more.into()));
        Ok(Body::edited(FromDisk {
            file: self.file,
            _share: self.share,
            parts,
            seek: Seek::Due,
            buffer: BytesMut::new(),
        }))
    }

    async fn manifest(&mut self, manifest: &Object, config: &Object, agent: &Agent) -> Result<(), Refusal> {
        let digest = text(config, "digest")?.unwrap_or_default();
        let place = *self
            .by_digest
            .get(digest)
            .ok_or_else(|| refused("manifest names the configuration", digest, "it is not in the archive"))?;
        let config = self.read(place, digest).await?;
        let diff_ids = judge_config(&config, agent)?;
        let mut places = Vec::new();
        for layer in member(manifest, "layers")?.and_then(Value::as_array).unwrap_or_default() {
            let digest = text(object(layer, "manifest")?, "digest")?.unwrap_or_default();
            let place = self
                .by_digest
                .get(digest)
                .ok_or_else(|| refused("manifest names the layer", digest, "it is not in the archive"))?;
            places.push((*place, digest.to_owned()));
        }
        if member(object(&config, "configuration")?, "rootfs")?.is_none() {
            // No image, so nothing is unpacked from it.
            return Ok(());
        }
        self.layers(&places, &diff_ids).await
    }

    /// Checks that the layers are what the configuration says: an engine that has a layer of the name already, perhaps
    /// another owner's, takes that one and does not look at the archive's.
    async fn layers(&mut self, layers: &[(Place, String)], diff_ids: &[String]) -> Result<(), Refusal> {
        if layers.len() != diff_ids.len() {
            return Err(Refusal::malformed(
                "an image in the archive has another number of layers than its configuration says",
            ));
        }
        for ((place, digest), diff_id) in layers.iter().zip(diff_ids) {
            if digest != diff_id && *diff_id != self.uncompressed(*place, digest).await? {
                return Err(refused("layer", digest, "it is another than the image's configuration says"));
            }
        }
        Ok(())
    }

    /// The digest of a layer's uncompressed data.
    async fn uncompressed(&mut self, place: Place, name: &str) -> Result<String, Refusal> {
        self.file.seek(SeekFrom::Start(place.at)).await.map_err(disk)?;
        let mut left = place.size;
        let mut buffer = vec![0; 64 << 10];
        let mut decoder: Option<MultiGzDecoder<Hash>> = None;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..most).unwrap_or_default();
            self.file.read_exact(part).await.map_err(disk)?;
            if decoder.is_none() && compression(part) != Some("gzip") {
                return Err(refused("layer", name, "it is neither what the image's configuration says nor gzip of it"));
            }
            let decoder = decoder.get_or_insert_with(|| MultiGzDecoder::new(Hash(Sha256::new())));
            decoder.write_all(part).map_err(|e| refused("layer", name, &format!("it is not well compressed: {e}")))?;
            left -= len(most);
            // Decompression must not keep others waiting.
            tokio::task::yield_now().await;
        }
        let whole = decoder.and_then(|decoder| decoder.finish().ok());
        Ok(whole.map(|hash| digest(hash.0)).unwrap_or_default())
    }

    /// A document at the top of the archive.
    async fn document(&mut self, name: &str) -> Result<Option<Value>, Refusal> {
        match self.entries.get(name) {
            None => Ok(None),
            Some(Item::File(place, _)) => {
                let place = *place;
                self.read(place, name).await.map(Some)
            }
            Some(Item::Link(_) | Item::Directory) => Err(refused("entry", name, "it must be a file")),
        }
    }

    async fn read(&mut self, place: Place, name: &str) -> Result<Value, Refusal> {
        if place.size > DOCUMENT {
            return Err(refused("document", name, "it is too long"));
        }
        let mut bytes = vec![0; usize::try_from(place.size).unwrap_or_default()];
        self.file.seek(SeekFrom::Start(place.at)).await.map_err(disk)?;
        self.file.read_exact(&mut bytes).await.map_err(disk)?;
        if body::values(&bytes) > body::MOST_VALUES {
            return Err(refused("document", name, "it has too many values"));
        }
        json::parse(&bytes).map_err(|e| refused("document", name, &format!("it cannot be read in one way: {e}")))
    }
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes the names out of a `manifest.json`.
fn unnamed_manifest(manifest: &mut Value) {
    for item in manifest.as_array_mut().into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            item.retain(|key, _| !json::folds_to(key, "RepoTags"));
            item.set("RepoTags", Value::Null);
        }
    }
}

/// Takes the names out of an `index.json`.
fn unnamed_index(index: &mut Value) {
    let Some(index) = index.as_object_mut() else { return };
    for (_, list) in index.iter_mut().filter(|(key, _)| json::folds_to(key, "manifests")) {
        for descriptor in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            for (_, annotations) in descriptor.iter_mut().filter(|(key, _)| json::folds_to(key, "annotations")) {
                if let Some(annotations) = annotations.as_object_mut() {
                    annotations.retain(|key, _| key != IMAGE_NAME && key != REFERENCE_NAME);
                }
            }
        }
    }
}

/// A name with a tag.
fn tagged(text: &str) -> Result<Reference, Refusal> {
    let name = named(text)?;
    match (name.tag(), name.digest()) {
        (Some(_), None) => Ok(name),
        _ => Err(refused("tag", text, "it is no name with a tag")),
    }
}

/// Judges an image's configuration, and gives the digests of its layers.
fn judge_config(config: &Value, agent: &Agent) -> Result<Vec<String>, Refusal> {
    let config = object(config, "configuration")?;
    if let Some(inner) = member(config, "config")?.and_then(Value::as_object) {
        if let Some(labels) = member(inner, "Labels")?.and_then(Value::as_object) {
            check_loaded_labels(labels, agent)?;
        }
        let environment = strings(member(inner, "Env")?, "Env")?;
        if environment.iter().map(|pair| pair.len()).sum::<usize>() > ENVIRONMENT {
            let message = format!("the environment of an image in the archive has more than {ENVIRONMENT} bytes");
            return Err(Refusal::TooLarge { message });
        }
    }
    let Some(root) = member(config, "rootfs")?.and_then(Value::as_object) else { return Ok(Vec::new()) };
    Ok(strings(member(root, "diff_ids")?, "diff_ids")?.into_iter().map(str::to_owned).collect())
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Object, Refusal> {
    value.as_object().ok_or_else(|| {
        Refusal::malformed(format!("the archive's {what} holds {} in place of an object", value.shown()))
    })
}

/// A member as the engine finds it: without regard to case. One that is there twice could be read in two ways.
fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, Refusal> {
    let folded = json::fold(name);
    let mut found = object.iter().filter(|(key, _)| json::fold(key) == folded).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(refused("documents have the member", name, "it stands twice, as the engine reads it")),
        (value, None) => Ok(value.filter(|value| **value != Value::Null)),
    }
}

fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, Refusal> {
    member(object, name)?
        .map(|value| value.as_str().ok_or_else(|| Refusal::malformed(format!("{name} in the archive is no string"))))
        .transpose()
}

fn strings<'a>(value: Option<&'a Value>, name: &str) -> Result<Vec<&'a str>, Refusal> {
    let wrong = || Refusal::malformed(format!("{name} in the archive is no list of strings"));
    let Some(value) = value else { return Ok(Vec::new()) };
    value.as_array().ok_or_else(wrong)?.iter().map(|item| item.as_str().ok_or_else(wrong)).collect()
}

/// A path as the archive's entries are kept; one that leads out is nowhere.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// An archive on its way to the engine.
struct FromDisk {
    file: File,
    _share: Share,
    parts: VecDeque<Part>,
    seek: Seek,
    buffer: BytesMut,
}

/// Does the file stand at the begin of the first part?
enum Seek {
    Due,
    Begun,
    Done,
}

enum Part {
    Disk(Place),
    Bytes(Bytes),
}

impl HttpBody for FromDisk {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let place = match this.parts.front_mut() {
                None => return Poll::Ready(None),
                Some(Part::Bytes(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    this.parts.pop_front();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Part::Disk(place)) if place.size == 0 => {
                    this.parts.pop_front();
                    this.seek = Seek::Due;
                    continue;
                }
                Some(Part::Disk(place)) => place,
            };
            if matches!(this.seek, Seek::Due) {
                Pin::new(&mut this.file).start_seek(SeekFrom::Start(place.at))?;
                this.seek = Seek::Begun;
            }
            if matches!(this.seek, Seek::Begun) {
                ready!(Pin::new(&mut this.file).poll_complete(cx))?;
                this.seek = Seek::Done;
            }
            let most = usize::try_from(place.size).unwrap_or(usize::MAX).min(256 << 10);
            this.buffer.resize(most, 0);
            let mut buffer = ReadBuf::new(&mut this.buffer);
            if let Err(e) = ready!(Pin::new(&mut this.file).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Some(Err(e.into())));
            }
            let length = buffer.filled().len();
            if length == 0 {
                return Poll::Ready(Some(Err("the archive on disk has become shorter".into())));
            }
            place.size -= len(length).min(place.size);
            return Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(length).freeze()))));
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = |part: &Part| match part {
            Part::Disk(place) => place.size,
            Part::Bytes(bytes) => len(bytes.len()),
        };
        SizeHint::with_exact(self.parts.iter().map(left).sum())
    }
}
