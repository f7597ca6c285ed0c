//! Spans of a JSON document: where a value ends, what members an object has, without building a tree.
//!
//! The documents are the engine's own encoding, so syntax inside a value that is only passed on is not checked; what
//! cannot be followed is an error, never a guess.

use crate::json::{self, Value};
use std::borrow::Cow;

/// An answer that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the engine's answer cannot be understood: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// Finds the end of one value, over any number of pieces.
#[derive(Debug, Default)]
pub struct Extent {
    depth: u32,
    state: State,
}

/// Within a value.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Before it.
    #[default]
    Start,
    /// A number or a word; its end is the first byte that is not part of it.
    Scalar,
    /// Within brackets, outside of strings.
    Between,
    /// In a string.
    Text,
    /// In a string, after a backslash.
    Escape,
}

impl Extent {
    /// Reads on; gives the number of bytes of this piece that belong to the value once its end is seen.
    pub fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        let mut rest = piece;
        if self.state == State::Start {
            self.state = match *piece {
                [] => return None,
                [b'"', ref inside @ ..] => {
                    rest = inside;
                    State::Text
                }
                [b'{' | b'[', ..] => State::Between,
                _ => State::Scalar,
            };
        }
        match self.state {
            State::Start | State::Between => {}
            State::Scalar => {
                let end = |b: &u8| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                return piece.iter().position(end);
            }
            State::Text | State::Escape => {
                if self.state == State::Escape {
                    (_, rest) = rest.split_first()?;
                }
                rest = self.seen(behind_string(rest))?;
                if self.depth == 0 {
                    return Some(piece.len() - rest.len());
                }
            }
        }
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'"' => rest = self.seen(behind_string(rest))?,
                ..b'[' => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if self.depth <= 1 => return Some(piece.len() - rest.len()),
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// What stands behind a string, if the piece has its end.
    fn seen<'a>(&mut self, behind: Result<&'a [u8], State>) -> Option<&'a [u8]> {
        self.state = behind.err().unwrap_or(State::Between);
        behind.ok()
    }
}

/// What stands behind a value that begins here. Where its end is not there, that is told.
#[inline(always)]
pub fn behind(value: &[u8]) -> Result<&[u8], State> {
    if let [b'"', inside @ ..] = value {
        return behind_string(inside);
    }
    let mut extent = Extent::default();
    extent.feed(value).and_then(|n| value.get(n..)).ok_or(extent.state)
}

/// What stands behind a string's closing quote. The text begins within the string; where it also ends in it, that is told.
#[inline(always)]
pub fn behind_string(mut text: &[u8]) -> Result<&[u8], State> {
    loop {
        text = match from_special(text) {
            [b'"', behind @ ..] => return Ok(behind),
            [_, _, behind @ ..] => behind,
            [_] => return Err(State::Escape),
            [] => return Err(State::Text),
        };
    }
}

/// The text from its first quote or backslash on. Most of an answer lies in strings, and most strings are short: of these,
/// eight bytes are looked at in one step.
#[inline(always)]
fn from_special(text: &[u8]) -> &[u8] {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    let mut long = text;
    if let Some((short, behind)) = text.split_first_chunk::<32>() {
        for (i, word) in short.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            // The high bit of the first byte that is one of them is set, and none before it is.
            let found = ((word ^ QUOTES).wrapping_sub(ONES) | (word ^ BACKSLASHES).wrapping_sub(ONES)) & !word & HIGH;
            if found != 0 {
                return text.get(i * 8 + (found.trailing_zeros() / 8) as usize..).unwrap_or_default();
            }
        }
        long = behind;
    }
    memchr::memchr2(b'"', b'\\', long).and_then(|n| long.get(n..)).unwrap_or_default()
}

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The key as it is encoded, without its quotes.
    pub key: &'a [u8],
    /// The value as it is encoded.
    pub value: &'a [u8],
    /// Where the value begins in the object's text.
    pub at: usize,
}

/// The members of an object, in order.
pub fn members(object: &[u8]) -> Parts<'_> {
    Parts { rest: object, length: object.len(), open: b'{', state: PartState::Before }
}

/// The items of an array, in order, as members without a key.
pub fn items(array: &[u8]) -> Parts<'_> {
    Parts { rest: array, length: array.len(), open: b'[', state: PartState::Before }
}

/// The parts of an object or an array.
pub struct Parts<'a> {
    /// What is not read yet.
    rest: &'a [u8],
    length: usize,
    open: u8,
    state: PartState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PartState {
    Before,
    Further,
    Over,
}

impl<'a> Parts<'a> {
    /// What comes next that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// Takes this byte, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]).or_else(|| {
            self.peek();
            self.rest.strip_prefix(&[byte])
        });
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The string whose opening quote was taken, without its quotes.
    fn string(&mut self) -> Result<&'a [u8], Broken> {
        let inside = self.rest;
        self.rest = behind_string(inside).map_err(|_| Broken("a value has no end"))?;
        Ok(inside.get(..inside.len() - self.rest.len() - 1).unwrap_or_default())
    }

    fn value(&mut self) -> Result<&'a [u8], Broken> {
        if matches!(self.peek(), None | Some(b',' | b':' | b']' | b'}')) {
            return Err(Broken("a value is missing"));
        }
        let rest = self.rest;
        self.rest = match behind(rest) {
            Ok(behind) => behind,
            Err(State::Scalar) => &[],
            Err(_) => return Err(Broken("a value has no end")),
        };
        Ok(rest.get(..rest.len() - self.rest.len()).unwrap_or_default())
    }

    /// The next key, which is empty in an array; nothing at the end.
    fn key(&mut self) -> Result<Option<&'a [u8]>, Broken> {
        let close = if self.open == b'{' { b'}' } else { b']' };
        if self.state == PartState::Before {
            if !self.take(self.open) {
                return Err(Broken("an object or an array is missing"));
            }
            self.state = PartState::Further;
            if self.take(close) {
                return Ok(None);
            }
        } else if self.take(close) {
            return Ok(None);
        } else if !self.take(b',') {
            return Err(Broken("parts of a value run together"));
        }
        if self.open == b'[' {
            return Ok(Some(b""));
        }
        if !self.take(b'"') {
            return Err(Broken("a key is missing"));
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err(Broken("a key has no value"));
        }
        Ok(Some(key))
    }

    fn part(&mut self) -> Result<Option<Member<'a>>, Broken> {
        let Some(key) = self.key()? else { return Ok(None) };
        let value = self.value()?;
        Ok(Some(Member { key, value, at: self.read() - value.len() }))
    }

    /// So many bytes are read.
    fn read(&self) -> usize {
        self.length - self.rest.len()
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Member<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == PartState::Over {
            return None;
        }
        let part = self.part();
        if !matches!(part, Ok(Some(_))) {
            self.state = PartState::Over;
        }
        part.transpose()
    }
}

fn unquoted(quoted: &[u8]) -> &[u8] {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// The member of this key. Keys of the engine's structures need no decoding.
pub fn find<'a>(object: &'a [u8], key: &str) -> Result<Option<Member<'a>>, Broken> {
    for member in members(object) {
        let member = member?;
        if member.key == key.as_bytes() {
            return Ok(Some(member));
        }
    }
    Ok(None)
}

/// Where the value of this key begins: where it ends is not looked for. The members before it are shown to `passed`.
pub fn place<'a>(object: &'a [u8], key: &str, mut passed: impl FnMut(Member<'a>)) -> Result<Option<usize>, Broken> {
    let mut members = members(object);
    while let Some(found) = members.key()? {
        members.peek();
        let at = members.read();
        if found == key.as_bytes() {
            return Ok(Some(at));
        }
        passed(Member { key: found, value: members.value()?, at });
    }
    Ok(None)
}

/// The text of a string value, decoded; nothing where the value is no string.
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.len() < 2 || value.first() != Some(&b'"') {
        return None;
    }
    decoded(unquoted(value))
}

/// The text of an encoded string without its quotes.
pub fn decoded(inner: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    match json::parse(&quoted) {
        Ok(Value::String(text)) => Some(Cow::Owned(text)),
        _ => None,
    }
}

/// The text of a string member, decoded; empty where there is none.
pub fn text_of<'a>(object: &'a [u8], key: &str) -> Result<Cow<'a, str>, Broken> {
    Ok(find(object, key)?.and_then(|m| text(m.value)).unwrap_or_default())
}

/// The integer of a number value.
pub fn int(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Is it `null`?
pub fn is_null(value: &[u8]) -> bool {
    value == b"null"
}

/// Has it neither members nor items: `null`, `{}`, `[]`?
pub fn is_empty(value: &[u8]) -> bool {
    is_null(value) || value.iter().all(|b| matches!(b, b'{' | b'}' | b'[' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
}

/// Is something shown to the client?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// It was written.
    Shown,
    /// It is left out.
    Hidden,
}

/// Writes an object again: `write` writes each member's value, or hides the member. Gives what stands behind the object.
pub fn each_member<'a>(
    object: &'a [u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&Member<'a>, &mut Vec<u8>) -> Result<Show, Broken>,
) -> Result<&'a [u8], Broken> {
    out.push(b'{');
    let mut comma = Comma::default();
    let mut members = members(object);
    while let Some(member) = members.part()? {
        let mark = out.len();
        comma.write(out);
        out.push(b'"');
        out.extend_from_slice(member.key);
        out.extend_from_slice(b"\":");
        match write(&member, out)? {
            Show::Shown => comma.written(),
            Show::Hidden => out.truncate(mark),
        }
    }
    out.push(b'}');
    Ok(members.rest)
}

/// Writes an array again: `write` writes each item, or hides it.
pub fn each_item(
    array: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<Show, Broken>,
) -> Result<(), Broken> {
    out.push(b'[');
    let mut comma = Comma::default();
    for item in items(array) {
        let item = item?;
        let mark = out.len();
        comma.write(out);
        match write(item.value, out)? {
            Show::Shown => comma.written(),
            Show::Hidden => out.truncate(mark),
        }
    }
    out.push(b']');
    Ok(())
}

/// The commas between parts.
#[derive(Debug, Default)]
pub struct Comma(bool);

impl Comma {
    /// Writes a comma if a part stands before.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.0 {
            out.push(b',');
        }
    }

    /// A part was written.
    pub fn written(&mut self) {
        self.0 = true;
    }
}

/// Passes a value as it is.
pub fn pass(value: &[u8], out: &mut Vec<u8>) -> Show {
    out.extend_from_slice(value);
    Show::Shown
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn keys(object: &str) -> Vec<(String, String)> {
        let owned = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        members(object.as_bytes()).map(|m| m.map(|m| (owned(m.key), owned(m.value))).expect("a member")).collect()
    }

    #[test]
    fn members_are_found_whatever_their_strings_hold() {
        let all = keys(r#"{"a":"}\"{,","b":[1,{"c":"]"}],"d\\":-1.5e3 , "e" : null,"f":{}}"#);
        let expected =
            [("a", r#""}\"{,""#), ("b", r#"[1,{"c":"]"}]"#), ("d\\\\", "-1.5e3"), ("e", "null"), ("f", "{}")];
        assert_eq!(all, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(keys("{}").is_empty());
        assert!(keys(" { } ").is_empty());
    }

    #[test]
    fn what_cannot_be_followed_is_an_error() {
        for text in
            ["", "[", "{", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1"#, r#"{"a":"x}"#, r#"{"a":1 "b":2}"#, "{1:2}", "null"]
        {
            assert!(members(text.as_bytes()).any(|m| m.is_err()), "{text}");
        }
    }

    #[test]
    fn the_end_of_a_value_is_found_over_any_pieces() {
        for value in [r#""a\"b\\""#, r#"{"a":["}",{}]}"#, "[]", r#"["\\"]"#] {
            for split in 0..value.len() {
                let (one, two) = value.as_bytes().split_at(split);
                let mut extent = Extent::default();
                assert_eq!(extent.feed(one), None, "{value} {split}");
                let rest = [two, b",1"].concat();
                assert_eq!(extent.feed(&rest), Some(two.len()), "{value} {split}");
            }
        }
    }

    #[test]
    fn a_string_ends_at_its_first_quote_that_is_not_escaped() {
        for length in 0..80 {
            for (end, expected) in
                [("\"", Ok("rest\"")), ("\\\"", Ok("")), ("\\\\\"", Ok("rest\"")), ("\u{4a2}\"", Ok("rest\""))]
            {
                let text = "\u{e9}".repeat(length / 2) + &"x".repeat(length % 2) + end + "rest\"";
                assert_eq!(behind_string(text.as_bytes()), expected.map(str::as_bytes), "{text}");
                let cut = text.len() - "rest\"".len();
                for (n, _) in text.bytes().enumerate().take(cut) {
                    let state = if text.as_bytes()[..n].ends_with(b"\\") && !text.as_bytes()[..n].ends_with(b"\\\\") {
                        State::Escape
                    } else {
                        State::Text
                    };
                    assert_eq!(behind_string(&text.as_bytes()[..n]), Err(state), "{text} {n}");
                }
            }
        }
    }

    #[test]
    fn texts_are_decoded() {
        assert_eq!(text(br#""a\u003cb\"""#).as_deref(), Some("a<b\""));
        assert_eq!(text(br#""plain""#).as_deref(), Some("plain"));
        assert_eq!(text(b"1"), None);
        assert_eq!(text(br#""\ud800""#), None);
    }
}
