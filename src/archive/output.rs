//! A build's output: the names that the client wrote stand where the engine was given IDs.

use crate::body::{Body, BodyError};
use crate::json::Value;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A line is not looked at beyond this length.
const LINE: usize = 64 << 10;

/// How the engine announces an instruction.
const STEP: &[u8] = b"{\"stream\":\"Step ";

/// The output with these names in place of these IDs, in the order of the Dockerfile.
pub fn named(body: Body, names: Vec<(String, String)>) -> Body {
    if names.is_empty() {
        return body;
    }
    Body::edited(Named { body, names: names.into(), line: BytesMut::new() })
}

struct Named {
    body: Body,
    names: VecDeque<(String, String)>,
    line: BytesMut,
}

impl Named {
    /// Takes bytes in, and gives the lines that are whole.
    fn lines(&mut self, bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE {
                let line = self.line.split();
                out.extend_from_slice(&self.edit(&line));
            }
        }
        out.freeze()
    }

    fn edit(&mut self, line: &[u8]) -> Vec<u8> {
        let Some(text) = std::str::from_utf8(line).ok().filter(|_| line.starts_with(STEP)) else {
            return line.to_vec();
        };
        let Some(at) = self.names.iter().position(|(id, _)| text.contains(id.as_str())) else { return line.to_vec() };
        let Some((id, name)) = self.names.drain(..=at).next_back() else { return line.to_vec() };
        let quoted = Value::from(name).to_string();
        text.replacen(&id, quoted.trim_matches('"'), 1).into_bytes()
    }
}

impl HttpBody for Named {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let out = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.lines(&data),
                    Err(_) => continue,
                },
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None if this.line.is_empty() => return Poll::Ready(None),
                None => this.line.split().freeze(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_show_the_names_that_were_written() {
        let names = [("sha256:0", "alpine"), ("sha256:0", "a\"b"), ("sha256:1", "x")];
        let names = names.map(|(id, name)| (id.to_owned(), name.to_owned())).into();
        let mut named = Named { body: Body::Empty, names, line: BytesMut::new() };
        let out = [
            &b"{\"stream\":\"Step 1/3 : FROM sha256:0\"}\r\n{\"stre"[..],
            b"am\":\"Step 2/3 : FROM sha256:0 AS y\"}\r\n",
            b"{\"stream\":\" ---\\u003e sha256:1\\n\"}\r\n{\"stream\":\"Step 3/3 : COPY --from=sha256:1 / /\"}\r\n",
        ]
        .map(|part| named.lines(part))
        .concat();
        let expected = "{\"stream\":\"Step 1/3 : FROM alpine\"}\r\n{\"stream\":\"Step 2/3 : FROM a\\\"b AS y\"}\r\n\
                        {\"stream\":\" ---\\u003e sha256:1\\n\"}\r\n{\"stream\":\"Step 3/3 : COPY --from=x / /\"}\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
