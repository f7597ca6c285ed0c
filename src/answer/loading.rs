//! The progress of a load. The engine was given the images without names, so it tells their IDs. They get the names
//! here, as each is there and if it may still be had: an archive may take as long to load as its sender likes.

use super::naming::{failed, said};
use super::scan::{self, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use crate::body::BodyError;
use crate::lookup::Lookup;
use crate::permit::Load;
use crate::reference::Reference;
use crate::refusal::Refusal;
use crate::steps::{self, Whose};
use crate::world::Id;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Passes the progress on and names the images.
pub struct Loading {
    world: Rc<Lookup>,
    loads: Vec<Load>,
    known: BTreeSet<Id>,
    told: BTreeSet<String>,
    splitter: Splitter,
}

impl Loading {
    /// For these images. What is `known` was there before.
    pub fn new(world: Rc<Lookup>, loads: Vec<Load>, known: BTreeSet<Id>) -> Self {
        Self { world, loads, known, told: BTreeSet::new(), splitter: Splitter::new(Parts::Documents) }
    }

    /// The names of a loaded image; nothing if the archive did not hold it.
    async fn names(&mut self, id: &str) -> Result<Option<Vec<Reference>>, Refusal> {
        if self.loads.iter().any(|load| load.id == id) {
            let names = self.loads.iter().filter(|load| load.id == id).flat_map(|load| load.names.iter().cloned());
            return Ok(Some(names.collect()));
        }
        // The engine made a manifest for it.
        let layers = self.world.layers(id).await?;
        let made = self.loads.iter().position(|load| load.layers.is_some() && load.layers == layers);
        Ok(made.map(|at| self.loads.remove(at).names))
    }

    /// Names an image, and writes what the engine would say of it.
    async fn loaded(&mut self, id: &str, out: &mut Vec<u8>) {
        // An index that lists an image under each of its names lists it so often.
        if !self.told.insert(id.to_owned()) {
            return;
        }
        let names = match self.names(id).await {
            Ok(Some(names)) => names,
            Ok(None) => Vec::new(),
            Err(refusal) => return self.tell(&failed(&refusal.message(&self.world.agent.policy.name)), out),
        };
        if names.is_empty() {
            self.tell(&said("stream", &format!("{LOADED_ID}{id}\n")), out);
        }
        for name in names {
            let told = match steps::tag(&self.world, id, &name, Whose::Loaded).await {
                Ok(()) => {
                    let tag = name.tag().unwrap_or("latest");
                    said("stream", &format!("Loaded image: {}:{tag}\n", name.familiar_name()))
                }
                Err(refusal) => failed(&refusal.message(&self.world.agent.policy.name)),
            };
            self.tell(&told, out);
        }
        let id = Id::new(id);
        if !self.known.contains(&id) {
            self.world.memory.brought(id);
        }
    }

    fn tell(&self, told: &crate::json::Value, out: &mut Vec<u8>) {
        out.extend_from_slice(told.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl Editor for Loading {
    async fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut input = piece;
        let mut documents = Vec::new();
        while let Some(token) = self.splitter.next(&mut input)? {
            if let Token::Value(document) = token {
                documents.push(document.to_vec());
            }
        }
        for document in documents {
            let ids = ids(&document)?;
            for id in &ids {
                self.loaded(id, out).await;
            }
            let mark = out.len();
            if ids.is_empty() {
                match scan::pass(&document, out) {
                    Show::Shown => out.extend_from_slice(b"\r\n"),
                    Show::Hidden => out.truncate(mark),
                }
            }
        }
        Ok(())
    }

    fn holds(&self) -> usize {
        self.splitter.held()
    }

    async fn finish(&mut self, _out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.splitter.finish()?;
        Ok(())
    }
}

/// How the engine tells of an image without a name.
const LOADED_ID: &str = "Loaded image ID: ";

/// The IDs of loaded images, if this document tells of nothing else. (Older engines tell of all at once.)
fn ids(document: &[u8]) -> Result<Vec<String>, scan::Broken> {
    let text = scan::text_of(document, "stream")?;
    let id = |line: &str| {
        let id = line.strip_prefix(LOADED_ID)?.trim_end();
        let hex = id.strip_prefix("sha256:")?;
        let whole = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        whole.then(|| id.to_owned())
    };
    let ids: Option<Vec<String>> = text.lines().map(id).collect();
    Ok(ids.unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_the_engine_tells_alone() {
        let id = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let read = |text: String| ids(said("stream", &text).to_string().as_bytes()).unwrap();
        assert_eq!(read(format!("{LOADED_ID}{}\n", id("a"))), [id("a")]);
        assert_eq!(read(format!("{LOADED_ID}{}\n{LOADED_ID}{}\n", id("a"), id("b"))), [id("a"), id("b")]);
        for other in [
            format!("Loaded image: {}\n", id("a")),
            format!("Error unpacking image x\n{LOADED_ID}{}\n", id("a")),
            format!("{LOADED_ID}sha256:1\n"),
        ] {
            assert!(read(other.clone()).is_empty(), "{other}");
        }
        assert!(ids(br#"{"status":"Loading layer"}"#).unwrap().is_empty());
    }
}
