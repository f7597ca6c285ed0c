//! Lists: each element is shown or left out as it arrives.

use super::scan::{Comma, Show};
use super::split::{Parts, Splitter, Token};
use super::stream::Editor;
use super::upstream::{OwnContainers, Upstream};
use super::{Viewer, containers, images, networks, volumes};
use crate::body::BodyError;

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers.
    Containers,
    /// Images.
    Images,
    /// Networks.
    Networks,
    /// Volumes, which stand in an object beside warnings.
    Volumes,
}

/// Shows or hides elements.
pub struct Elements<U> {
    viewer: Viewer<U>,
    own: Option<OwnContainers>,
}

impl<U: Upstream> Elements<U> {
    /// For this agent.
    pub fn new(viewer: Viewer<U>) -> Self {
        Self { viewer, own: None }
    }

    /// The agent's own containers, asked for once, where an element makes it necessary.
    pub async fn own(&mut self) -> Result<&OwnContainers, BodyError> {
        let own = match self.own.take() {
            Some(own) => own,
            None => OwnContainers::load(&*self.viewer.upstream, &self.viewer.agent.owner)
                .await
                .map_err(|refusal| refusal.message(&self.viewer.agent.policy.name))?,
        };
        Ok(self.own.insert(own))
    }

    /// Writes an element, if the agent may see it. One that cannot be understood is left out: whose it is cannot be
    /// known, and the agent's other objects are no less there.
    pub async fn write(&mut self, kind: Kind, element: &[u8], out: &mut Vec<u8>) -> Result<Show, BodyError> {
        let mark = out.len();
        let me = &self.viewer.agent.owner;
        let written = match kind {
            Kind::Containers => containers::element(element, me, &self.viewer.memory, out),
            Kind::Volumes => volumes::element(element, &self.viewer.agent, out),
            Kind::Networks => match networks::names_containers(element) {
                Ok(true) => {
                    let me = me.clone();
                    networks::element(element, &me, self.own().await?, out)
                }
                Ok(false) => networks::element(element, me, &OwnContainers::default(), out),
                Err(broken) => Err(broken),
            },
            Kind::Images => match images::visible(element, me, &self.viewer.memory) {
                Ok(true) => match images::counts_containers(element) {
                    Ok(true) => images::element(element, self.own().await?, out),
                    Ok(false) => images::element(element, &OwnContainers::default(), out),
                    Err(broken) => Err(broken),
                },
                Ok(false) => Ok(Show::Hidden),
                Err(broken) => Err(broken),
            },
        };
        if matches!(written, Ok(Show::Shown)) {
            return Ok(Show::Shown);
        }
        out.truncate(mark);
        if let Err(broken) = written {
            tracing::warn!("an element of a list is left out: {broken}");
        }
        Ok(Show::Hidden)
    }
}

/// Edits a list.
pub struct List<U> {
    splitter: Splitter,
    writer: Writer<U>,
}

struct Writer<U> {
    kind: Kind,
    elements: Elements<U>,
    depth: usize,
    key: Vec<u8>,
    commas: [Comma; 2],
}

impl<U: Upstream> List<U> {
    /// A list of this kind.
    pub fn new(kind: Kind, viewer: Viewer<U>) -> Self {
        let parts = match kind {
            Kind::Containers | Kind::Images | Kind::Networks => Parts::Items,
            Kind::Volumes => Parts::Under(&["Volumes"]),
        };
        let elements = Elements::new(viewer);
        let writer = Writer { kind, elements, depth: 0, key: Vec::new(), commas: [Comma::default(), Comma::default()] };
        Self { splitter: Splitter::new(parts), writer }
    }
}

impl<U: Upstream> Editor for List<U> {
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
        // Volumes lie one deeper, in the root object.
        let of_elements = if self.kind == Kind::Volumes { 2 } else { 1 };
        match token {
            Token::Open(byte) => {
                out.push(byte);
                self.depth += 1;
            }
            Token::Close(byte) => {
                out.push(byte);
                self.depth -= 1;
                if self.depth == 0 {
                    out.push(b'\n');
                }
            }
            Token::Key(key) => {
                let [_, comma] = &mut self.commas;
                comma.write(out);
                comma.written();
                out.push(b'"');
                out.extend_from_slice(key);
                out.extend_from_slice(b"\":");
                self.key.clear();
                self.key.extend_from_slice(key);
            }
            Token::Value(value) if self.depth == of_elements => {
                let mark = out.len();
                let [comma, _] = &self.commas;
                comma.write(out);
                match self.elements.write(self.kind, value, out).await? {
                    Show::Shown => {
                        let [comma, _] = &mut self.commas;
                        comma.written();
                    }
                    Show::Hidden => out.truncate(mark),
                }
            }
            Token::TooLarge(_) if self.depth == of_elements => {}
            // The engine's warnings are about all tenants' volumes.
            Token::Value(_) | Token::TooLarge(_) if self.depth == 1 => out.extend_from_slice(b"null"),
            Token::Value(b"null") => out.extend_from_slice(b"null\n"),
            Token::Value(_) | Token::TooLarge(_) => return Err("the engine's answer is no list".into()),
        }
        Ok(())
    }
}
