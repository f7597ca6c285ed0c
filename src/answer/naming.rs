//! The progress of a build or an import. The new image gets its names at its end, not from the engine: whoever sends a
//! long context, or runs a long step, would otherwise take a name that somebody else was given meanwhile.

use super::progress::Steps;
use super::scan::{self, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use crate::body::BodyError;
use crate::json::{Object, Value};
use crate::lookup::Lookup;
use crate::permit::Progress;
use crate::reference::Reference;
use crate::steps::{self, Whose};
use std::rc::Rc;

/// Passes the progress on and names the image at its end.
pub struct Naming {
    world: Rc<Lookup>,
    names: Vec<Reference>,
    from: Progress,
    splitter: Splitter,
    steps: Steps,
    image: Option<String>,
}

impl Naming {
    /// For these names. `labels` instructions were added to the Dockerfile.
    pub fn new(world: Rc<Lookup>, names: Vec<Reference>, from: Progress, labels: usize) -> Self {
        // The label among the build's parameters is a step as well.
        let steps = Steps::new(&world.agent.owner, labels + 1);
        Self { world, names, from, splitter: Splitter::new(Parts::Documents), steps, image: None }
    }
}

impl Editor for Naming {
    async fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut input = piece;
        while let Some(token) = self.splitter.next(&mut input)? {
            let Token::Value(document) = token else { continue };
            if let Some(image) = image(document, self.from)? {
                self.image = Some(image);
            }
            let mark = out.len();
            let shown = match self.from {
                Progress::Build => self.steps.document(document, out)?,
                Progress::QuietBuild | Progress::Import => scan::pass(document, out),
            };
            match shown {
                Show::Shown => out.extend_from_slice(b"\r\n"),
                Show::Hidden => out.truncate(mark),
            }
        }
        Ok(())
    }

    fn holds(&self) -> usize {
        self.splitter.held()
    }

    async fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.splitter.finish()?;
        // A build that failed tells of no image.
        let Some(image) = &self.image else { return Ok(()) };
        for name in &self.names {
            let said = match steps::tag(&self.world, image, name, Whose::Made).await {
                Ok(()) if self.from == Progress::Build => said("stream", &format!("Successfully tagged {name}\n")),
                Ok(()) => continue,
                Err(refusal) => failed(&refusal.message(&self.world.agent.policy.name)),
            };
            out.extend_from_slice(said.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

pub(super) fn said(key: &str, text: &str) -> Value {
    Value::from([(key, Value::from(text))])
}

/// An error as the engine tells it in the middle of a progress.
pub(super) fn failed(message: &str) -> Value {
    let mut out = Object::new();
    out.set("errorDetail", said("message", message));
    out.set("error", message);
    Value::Object(out)
}

/// The ID of the new image, if this document has it.
fn image(document: &[u8], from: Progress) -> Result<Option<String>, scan::Broken> {
    let found = match from {
        Progress::Build => match scan::find(document, "aux")? {
            Some(aux) => scan::text_of(aux.value, "ID")?,
            None => return Ok(None),
        },
        Progress::QuietBuild => scan::text_of(document, "stream")?,
        Progress::Import => scan::text_of(document, "status")?,
    };
    let id = found.trim();
    let hex = id.strip_prefix("sha256:").unwrap_or_default();
    let whole = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    Ok(whole.then(|| id.to_owned()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_engine_tells_the_image_of_a_build() {
        let id = format!("sha256:{}", "a".repeat(64));
        let aux = format!(r#"{{"aux":{{"ID":"{id}"}}}}"#);
        let printed = format!(r#"{{"stream":"{id}\n"}}"#);
        let status = format!(r#"{{"status":"{id}"}}"#);
        assert_eq!(image(aux.as_bytes(), Progress::Build).unwrap(), Some(id.clone()));
        assert_eq!(image(printed.as_bytes(), Progress::Build).unwrap(), None);
        assert_eq!(image(printed.as_bytes(), Progress::QuietBuild).unwrap(), Some(id.clone()));
        assert_eq!(image(status.as_bytes(), Progress::Import).unwrap(), Some(id));
        assert_eq!(image(br#"{"status":"Downloading"}"#, Progress::Import).unwrap(), None);
        assert_eq!(image(br#"{"stream":"Step 1/2 : FROM x"}"#, Progress::Build).unwrap(), None);
    }
}
