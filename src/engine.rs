//! The Docker Engine behind its socket.

use crate::body::Body;
use crate::json::Value;
use crate::refusal::Refusal;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::path::PathBuf;

/// The engine.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine behind this socket. Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The path of its socket.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Sends a request and gives the answer as soon as its head is there.
    ///
    /// # Errors
    /// `Refusal::Engine`, naming the socket, when the engine cannot be reached or does not answer in HTTP.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Refusal> {
        let _ = request;
        Err(Refusal::Engine { message: format!("cannot reach the engine at {}", self.socket.display()) })
    }

    /// A call of sockguard's own: a small JSON document there and back (bounded), without a version prefix, so that
    /// the engine answers in its own newest version.
    ///
    /// # Errors
    /// As `send`; also an answer that is no JSON or exceeds the bound.
    pub async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Refusal> {
        let _ = (method, path_and_query, body);
        Err(Refusal::Engine { message: format!("cannot reach the engine at {}", self.socket.display()) })
    }
}
