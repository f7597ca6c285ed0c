//! As much of HTTP/1.1 as the recording engine and the client of the cases need.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;

/// A request or an answer.
#[derive(Default)]
pub struct Message {
    /// The first line.
    pub line: String,
    /// The headers as they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
}

/// Reads the head of a message; nothing where the connection has ended.
pub fn head(from: &mut BufReader<UnixStream>) -> io::Result<Option<Message>> {
    let mut message = Message { line: line(from)?, ..Message::default() };
    if message.line.is_empty() {
        return Ok(None);
    }
    loop {
        let text = line(from)?;
        if text.is_empty() {
            return Ok(Some(message));
        }
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        message.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn line(from: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a message's body. One without length ends with the connection if it is an answer's, and is empty otherwise.
pub fn body(from: &mut BufReader<UnixStream>, message: &mut Message, until_end: bool) -> io::Result<()> {
    if message.header("Transfer-Encoding").is_some() {
        loop {
            let size = usize::from_str_radix(line(from)?.trim(), 16).map_err(io::Error::other)?;
            let mut piece = vec![0; size];
            from.read_exact(&mut piece)?;
            message.body.append(&mut piece);
            line(from)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
    if let Some(length) = message.header("Content-Length").and_then(|text| text.parse::<usize>().ok()) {
        message.body = vec![0; length];
        return from.read_exact(&mut message.body);
    }
    if until_end {
        from.read_to_end(&mut message.body)?;
    }
    Ok(())
}
