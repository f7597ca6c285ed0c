//! A fake engine: fast, cheap, and just enough of the Engine API for what is measured.

mod streams;
pub mod world;

use std::cell::Cell;
use std::io::Result;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::net::UnixListener;
use tokio::task::LocalSet;

use crate::wire::{Head, Wire};
use world::{OWNER_LABEL, World, text};

/// Go's server sends a length for bodies up to this size and chunks longer ones.
const CHUNK_FROM: usize = 2048;

struct Engine {
    world: World,
    /// Bytes in an export, and wanted in an uploaded archive.
    bulk: u64,
    created: Cell<u64>,
}

pub fn run(socket: PathBuf, bulk: u64) -> Result<()> {
    let engine = Rc::new(Engine { world: World::new(), bulk, created: Cell::new(0) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let engine = engine.clone();
            tokio::task::spawn_local(async move {
                // A client that goes away in the middle is no failure here.
                let _ = engine.serve(Wire::new(stream)).await;
            });
        }
    })
}

impl Engine {
    async fn serve(&self, mut wire: Wire) -> Result<()> {
        while let Some(head) = wire.head().await? {
            let mut request = head.line.split(' ');
            let method = request.next().unwrap_or_default();
            let target = request.next().unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let path: Vec<_> = path.split('/').skip(1).skip_while(|part| is_version(part)).collect();
            if head.expects_continue {
                wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            match (method, path.as_slice()) {
                ("GET", ["containers", _, "export"]) => streams::export(&mut wire, self.bulk).await?,
                ("GET", ["containers", _, "logs"]) => return streams::logs(&mut wire).await,
                ("POST", ["containers", _, "attach"]) => return streams::echo(&mut wire).await,
                ("PUT", ["containers", _, "archive"]) | ("POST", ["images", "load"]) => {
                    let got = streams::sink(&mut wire, &head).await?;
                    let right = got == crate::archive::size(self.bulk);
                    let answer = if right { Answer::empty(200) } else { Answer::failure(400, "wrong archive size") };
                    wire.send(&answer.bytes(method)).await?;
                }
                (method, path) => {
                    let body = read(&mut wire, &head).await?;
                    wire.send(&self.answer(method, path, query, &body).bytes(method)).await?;
                }
            }
            if head.closes {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, method: &str, path: &[&str], query: &str, body: &[u8]) -> Answer {
        let world = &self.world;
        match (method, path) {
            ("GET" | "HEAD", ["_ping"]) => Answer::new(200, "text/plain; charset=utf-8", b"OK".to_vec()),
            ("GET", ["version"]) => Answer::json(200, world.version.clone()),
            ("GET", ["info"]) => Answer::json(200, world.info.clone()),
            ("GET", ["containers", "json"]) => Answer::json(200, world.containers(limit(query))),
            ("POST", ["containers", "create"]) => Answer::json(201, self.create(body)),
            ("GET", ["containers", id, "json"]) => Answer::json(200, world.container(id)),
            ("GET", ["images", .., "json"]) => Answer::json(200, world.image.clone()),
            ("GET", ["networks"]) => Answer::json(200, world.networks.clone()),
            ("GET", ["networks", _]) => Answer::json(200, world.network.clone()),
            ("GET", ["volumes"]) => Answer::json(200, world.volumes.clone()),
            ("GET", ["volumes", _]) => Answer::json(200, world.volume.clone()),
            ("POST", ["swarm", "init"]) => Answer::json(200, b"\"node\"".to_vec()),
            _ => {
                eprintln!("fake engine: nothing for {method} /{}?{query}", path.join("/"));
                Answer::failure(404, "page not found")
            }
        }
    }

    /// Tells in a warning whether an owner label arrived, so that the client can check it.
    fn create(&self, body: &[u8]) -> Vec<u8> {
        let number = self.created.get() + 1;
        self.created.set(number);
        let labelled = body.windows(OWNER_LABEL.len()).any(|window| window == OWNER_LABEL.as_bytes());
        let warning = if labelled { "labelled" } else { "unlabelled" };
        text(&serde_json::json!({"Id": format!("{number:064x}"), "Warnings": [warning]}))
    }
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn limit(query: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix("limit=")).and_then(|limit| limit.parse().ok())
}

async fn read(wire: &mut Wire, head: &Head) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(framing) = head.framing {
        wire.body(framing, |piece| body.extend_from_slice(piece)).await?;
    }
    Ok(body)
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Self { status, kind, body }
    }

    fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/json", body)
    }

    fn empty(status: u16) -> Self {
        Self::new(status, "text/plain; charset=utf-8", Vec::new())
    }

    fn failure(status: u16, message: &str) -> Self {
        Self::json(status, text(&serde_json::json!({"message": message})))
    }

    fn bytes(&self, method: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + 320);
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            404 => "Not Found",
            _ => "Bad Request",
        };
        bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", self.status).as_bytes());
        bytes.extend_from_slice(b"Api-Version: 1.47\r\nDocker-Experimental: false\r\nOstype: linux\r\n");
        bytes.extend_from_slice(b"Server: Docker/27.5.1 (linux)\r\nDate: Wed, 01 Jan 2025 00:00:00 GMT\r\n");
        bytes.extend_from_slice(format!("Content-Type: {}\r\n", self.kind).as_bytes());
        if method == "HEAD" || self.body.len() <= CHUNK_FROM {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
            if method != "HEAD" {
                bytes.extend_from_slice(&self.body);
            }
        } else {
            let size = self.body.len();
            bytes.extend_from_slice(format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n").as_bytes());
            bytes.extend_from_slice(&self.body);
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        bytes
    }
}
