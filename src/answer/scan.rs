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

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
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
        let mut at = 0;
        loop {
            let rest = piece.get(at..)?;
            match self.state {
                State::Text => {
                    let n = end_of_run(rest)?;
                    at += n + 1;
                    self.state = match (rest.get(n), self.depth) {
                        (Some(b'\\'), _) => State::Escape,
                        (_, 0) => return Some(at),
                        _ => State::Between,
                    };
                }
                State::Escape => {
                    rest.first()?;
                    at += 1;
                    self.state = State::Text;
                }
                State::Between => {
                    let n = rest.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'))?;
                    at += n + 1;
                    match rest.get(n) {
                        Some(b'"') => self.state = State::Text,
                        Some(b'{' | b'[') => self.depth = self.depth.saturating_add(1),
                        _ if self.depth <= 1 => return Some(at),
                        _ => self.depth -= 1,
                    }
                }
                State::Scalar => {
                    let end = |b: &u8| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                    return rest.iter().position(end).map(|n| at + n);
                }
                State::Start => match rest.first()? {
                    b'"' => {
                        at += 1;
                        self.state = State::Text;
                    }
                    b'{' | b'[' => {
                        at += 1;
                        self.depth = 1;
                        self.state = State::Between;
                    }
                    _ => self.state = State::Scalar,
                },
            }
        }
    }

    /// Is the value so far a number or a word, which the end of the document may end?
    pub fn in_scalar(&self) -> bool {
        self.state == State::Scalar
    }
}

/// Where the next quote or backslash is. Eight bytes are looked at in one step: most of an answer lies in strings.
fn end_of_run(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    // A byte that is zero has its high bit set in the result, and none before the first one has.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if found != 0 {
            return Some(i * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let n = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    Some(words.len() * 8 + n)
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
    Parts { text: object, at: 0, open: b'{', state: PartState::Before }
}

/// The items of an array, in order, as members without a key.
pub fn items(array: &[u8]) -> Parts<'_> {
    Parts { text: array, at: 0, open: b'[', state: PartState::Before }
}

/// The parts of an object or an array.
pub struct Parts<'a> {
    text: &'a [u8],
    at: usize,
    open: u8,
    state: PartState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PartState {
    Before,
    First,
    Further,
    Over,
}

impl<'a> Parts<'a> {
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn value(&mut self) -> Result<(&'a [u8], usize), Broken> {
        if matches!(self.peek(), None | Some(b',' | b':' | b']' | b'}')) {
            return Err(Broken("a value is missing"));
        }
        let at = self.at;
        let rest = self.text.get(at..).unwrap_or_default();
        let mut extent = Extent::default();
        let n = match extent.feed(rest) {
            Some(n) => n,
            None if extent.in_scalar() => rest.len(),
            None => return Err(Broken("a value has no end")),
        };
        self.at += n;
        Ok((rest.get(..n).unwrap_or_default(), at))
    }

    fn part(&mut self) -> Result<Option<Member<'a>>, Broken> {
        let close = if self.open == b'{' { b'}' } else { b']' };
        if self.state == PartState::Before {
            if self.peek() != Some(self.open) {
                return Err(Broken("an object or an array is missing"));
            }
            self.at += 1;
            self.state = PartState::First;
            if self.peek() == Some(close) {
                return Ok(None);
            }
        } else {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => return Ok(None),
                _ => return Err(Broken("parts of a value run together")),
            }
            self.state = PartState::Further;
        }
        let mut key: &[u8] = b"";
        if self.open == b'{' {
            if self.peek() != Some(b'"') {
                return Err(Broken("a key is missing"));
            }
            let (quoted, _) = self.value()?;
            key = unquoted(quoted);
            if self.peek() != Some(b':') {
                return Err(Broken("a key has no value"));
            }
            self.at += 1;
        }
        let (value, at) = self.value()?;
        Ok(Some(Member { key, value, at }))
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

/// The text of a string value, decoded; nothing where the value is no string.
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.len() < 2 || value.first() != Some(&b'"') {
        return None;
    }
    decoded(unquoted(value))
}

/// The text of an encoded string without its quotes.
pub fn decoded(inner: &[u8]) -> Option<Cow<'_, str>> {
    if !inner.contains(&b'\\') {
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

/// Writes an object again: `write` writes each member's value, or hides the member.
pub fn each_member(
    object: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&Member<'_>, &mut Vec<u8>) -> Result<Show, Broken>,
) -> Result<(), Broken> {
    out.push(b'{');
    let mut comma = Comma::default();
    for member in members(object) {
        let member = member?;
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
    Ok(())
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
#[expect(clippy::expect_used, reason = "tests")]
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
    fn texts_are_decoded() {
        assert_eq!(text(br#""a\u003cb\"""#).as_deref(), Some("a<b\""));
        assert_eq!(text(br#""plain""#).as_deref(), Some("plain"));
        assert_eq!(text(b"1"), None);
        assert_eq!(text(br#""\ud800""#), None);
    }
}
