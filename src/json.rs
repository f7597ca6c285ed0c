//! A strict JSON reader and its encoder.
//!
//! The engine's decoder (Go's `encoding/json`) is lenient: keys match without regard to case, a repeated key merges,
//! invalid UTF-8 is replaced. Two readers of one document are how guards are bypassed, so whatever could be read in
//! two ways is refused here, and what goes to the engine is our own encoding of the tree that was judged.
//!
//! Numbers keep the literal they came with: a 64-bit integer must not pass through a float.

use smol_str::SmolStr;
use std::fmt;

/// Objects and arrays may be nested this deep. The deepest body of the Engine API needs eight.
const MAX_DEPTH: usize = 32;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as the literal that was sent.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order it was sent.
    Object(Object),
}

/// The literal of a JSON number.
#[derive(Debug, Clone, PartialEq)]
pub struct Number(Literal);

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    /// One that is written so, and in no other way.
    Int(i64),
    /// Any other.
    Text(Box<str>),
}

impl Number {
    fn read(literal: &str) -> Self {
        match literal.parse() {
            Ok(n) if literal != "-0" => Self(Literal::Int(n)),
            _ => Self(Literal::Text(literal.into())),
        }
    }

    fn encode(&self, out: &mut String) {
        match &self.0 {
            Literal::Int(0) => out.push('0'),
            Literal::Int(n) => out.push_str(&n.to_string()),
            Literal::Text(literal) => out.push_str(literal),
        }
    }
}

/// A key: nearly all are so short that they need no memory of their own.
pub type Key = SmolStr;

/// An object: members in order, no key twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(Vec<Member>);

/// A member of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Tells most keys from another at once.
    hash: u32,
    key: Key,
    value: Value,
}

impl Member {
    fn new(key: Key, value: Value) -> Self {
        Self { hash: hash(&key), key, value }
    }
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonError {
    /// Byte offset in the document.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for JsonError {}

/// Reads one document. Nothing but white space may follow it.
///
/// # Errors
/// Anything that is not strict JSON in UTF-8, an object with the same key twice, nesting beyond 32 levels, a lone
/// surrogate escape.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| JsonError { at: e.valid_up_to(), what: "the document is not valid UTF-8".to_owned() })?;
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, depth: 0 };
    reader.space();
    let value = reader.value()?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.error("something follows the document")),
    }
}

/// Folds a key as Go's decoder does when it looks for a struct field: without regard to case, by Unicode's simple
/// folding. Field names are ASCII, and only two other characters fold to ASCII letters.
pub fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212A}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Would Go's decoder take this key for the field of that name?
pub fn folds_to(key: &str, field: &str) -> bool {
    if key.is_ascii() { key.eq_ignore_ascii_case(field) } else { fold(key) == fold(field) }
}

impl Value {
    /// Is this a value that says nothing: `null`, `false`, `0`, `""`, `[]`, `{}`?
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(Number(Literal::Int(n))) => *n == 0,
            Value::Number(Number(Literal::Text(n))) => matches!(&**n, "0.0" | "-0"),
            Value::String(s) => s.is_empty(),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.0.is_empty(),
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// The integer of a number that is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Number(Number(Literal::Int(n))) => Some(*n),
            Value::Number(Number(Literal::Text(n))) => n.parse().ok(),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(a) => Some(a),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(o) => Some(o),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Value::Object(o) => Some(o),
            _ => None,
        }
    }

    /// Follows a path of object members.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |v, key| v.as_object()?.get(key))
    }

    /// What kind of value it is, for messages about values that may be secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// A short form for messages: strings in backticks, long values cut.
    pub fn shown(&self) -> String {
        const LONG: usize = 120;
        let mut text = match self {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        if text.chars().count() > LONG {
            text = text.chars().take(LONG).chain("…".chars()).collect();
        }
        format!("`{text}`")
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::String(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::String(s)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Number(Number(Literal::Int(n)))
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<Key>, const N: usize> From<[(K, Value); N]> for Value {
    fn from(members: [(K, Value); N]) -> Self {
        Value::Object(members.into_iter().collect())
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    fn place(&self, key: &str) -> Option<usize> {
        let hash = hash(key);
        self.0.iter().position(|member| member.hash == hash && member.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(self.place(key)?).map(|member| &member.value)
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        let place = self.place(key)?;
        self.0.get_mut(place).map(|member| &mut member.value)
    }

    /// The object under a key, made when it is absent or `null`.
    pub fn entry_object(&mut self, key: &str) -> &mut Object {
        let place = match self.place(key) {
            Some(place) => place,
            None => {
                self.0.push(Member::new(Key::new(key), Value::Null));
                self.0.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "the place was found or made just above")]
        let slot = &mut self.0[place].value;
        if !matches!(slot, Value::Object(_)) {
            *slot = Value::Object(Object::new());
        }
        match slot {
            Value::Object(o) => o,
            _ => unreachable!("made an object just above"),
        }
    }

    /// Sets a key, replacing what was there.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.get_mut(key) {
            Some(slot) => *slot = value,
            None => self.0.push(Member::new(Key::new(key), value)),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.place(key)?;
        Some(self.0.remove(place).value)
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|member| (member.key.as_str(), &member.value))
    }

    /// The members in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.0.iter_mut().map(|member| (member.key.as_str(), &mut member.value))
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Has it no members?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the members for which `keep` says so, until it fails; it may change keys, if they stay different.
    ///
    /// # Errors
    /// That of `keep`.
    pub fn try_retain<E>(&mut self, mut keep: impl FnMut(&mut Key, &mut Value) -> Result<bool, E>) -> Result<(), E> {
        let mut failed = None;
        self.0.retain_mut(|member| match &failed {
            Some(_) => true,
            None => {
                let kept = keep(&mut member.key, &mut member.value);
                member.hash = hash(&member.key);
                kept.unwrap_or_else(|e| {
                    failed = Some(e);
                    true
                })
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Keeps the members for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.0.retain_mut(|member| keep(&member.key, &mut member.value));
    }
}

impl IntoIterator for Object {
    type Item = (Key, Value);
    type IntoIter = std::iter::Map<std::vec::IntoIter<Member>, fn(Member) -> (Key, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|member| (member.key, member.value))
    }
}

impl<K: Into<Key>> FromIterator<(K, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(members: I) -> Self {
        Object(members.into_iter().map(|(key, value)| Member::new(key.into(), value)).collect())
    }
}

/// The encoding that is sent.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encoded())
    }
}

impl Value {
    /// The encoding that is sent: compact, keys and strings escaped as JSON requires.
    pub fn encoded(&self) -> String {
        let mut out = String::with_capacity(self.length());
        self.encode(&mut out);
        out
    }

    /// How long the encoding is, where nothing in it has to be escaped.
    fn length(&self) -> usize {
        match self {
            Value::Null | Value::Bool(_) => 5,
            Value::Number(Number(Literal::Int(_))) => 20,
            Value::Number(Number(Literal::Text(literal))) => literal.len(),
            Value::String(s) => s.len() + 2,
            Value::Array(items) => items.iter().fold(2, |sum, item| sum + item.length() + 1),
            Value::Object(o) => o.iter().fold(2, |sum, (key, value)| sum + key.len() + value.length() + 4),
        }
    }

    fn encode(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Number(n) => n.encode(out),
            Value::String(s) => encode_string(s, out),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.encode(out);
                }
                out.push(']');
            }
            Value::Object(o) => {
                out.push('{');
                for (i, (key, value)) in o.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    encode_string(key, out);
                    out.push(':');
                    value.encode(out);
                }
                out.push('}');
            }
        }
    }
}

fn encode_string(s: &str, out: &mut String) {
    out.reserve(s.len() + 2);
    out.push('"');
    let mut rest = s;
    loop {
        // What is escaped is ASCII, so every place that is found is the beginning of a character.
        let (plain, special) = rest.split_at(plain(rest.as_bytes()));
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => break,
        }
        rest = chars.as_str();
    }
    out.push('"');
}

/// How many bytes of a string's inside stand for themselves, before the next quote, backslash or control character. Eight
/// are looked at in one step.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    // A byte that is less than `least` (at most 0x80) has its high bit set in the result, and none before the first one
    // has.
    let less = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word & HIGH;
    let special = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let found = less(word, 0x20) | less(word ^ QUOTES, 1) | less(word ^ BACKSLASHES, 1);
        (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
    };
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        if let Some(n) = special(*word) {
            return i * 8 + n;
        }
    }
    // The last eight again, though some of them were looked at already.
    match (rest, text.last_chunk::<8>()) {
        ([], _) => text.len(),
        (_, Some(word)) => special(*word).map_or(text.len(), |n| text.len() - 8 + n),
        (short, None) => short.iter().position(|b| matches!(b, b'"' | b'\\' | ..b' ')).unwrap_or(short.len()),
    }
}

/// A number for a key, of its length and its first and last bytes. Keys with different numbers are different.
fn hash(key: &str) -> u32 {
    let key = key.as_bytes();
    let (first, last) = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (key.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    };
    let mixed = (first ^ last.rotate_left(29) ^ key.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Objects of up to so many members are searched for each key.
const SEARCHED: usize = 100;

/// A key that stands twice among these.
fn repeated(members: &[Member]) -> Option<&str> {
    let mut keys: Vec<&str> = members.iter().map(|member| member.key.as_str()).collect();
    keys.sort_unstable();
    keys.iter().zip(keys.iter().skip(1)).find(|(key, next)| key == next).map(|(key, _)| *key)
}

fn twice(at: usize, key: &str) -> JsonError {
    JsonError { at, what: format!("the key `{key}` stands twice in one object") }
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn error(&self, what: &str) -> JsonError {
        JsonError { at: self.at, what: what.to_owned() }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("expected a JSON value"))
        }
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("expected a JSON value")),
            None => Err(self.error("the document ends too early")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, JsonError>) -> Result<Value, JsonError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("the document is nested too deeply"));
        }
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Object::new()));
        }
        let mut members: Vec<Member> = Vec::with_capacity(16);
        let mut marks = 0;
        loop {
            self.space();
            let start = self.at;
            let key = self.key()?;
            let hash = hash(&key);
            // Objects like a HostConfig are searched; large ones (thousands of labels) would make that quadratic.
            if members.len() < SEARCHED {
                let mark = 1_u128 << (hash % 128);
                let perhaps = marks & mark != 0;
                marks |= mark;
                if perhaps && members.iter().any(|member| member.hash == hash && member.key == key) {
                    return Err(twice(start, &key));
                }
            }
            self.space();
            self.expect(b':', "expected `:` after a key")?;
            self.space();
            let value = self.value()?;
            if members.len() == 16 {
                // A container's `HostConfig` has some 70.
                members.reserve(64);
            }
            members.push(Member { hash, key, value });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    if members.len() > SEARCHED
                        && let Some(key) = repeated(&members)
                    {
                        return Err(twice(self.at, key));
                    }
                    self.at += 1;
                    // A document may have very many small ones.
                    members.shrink_to_fit();
                    return Ok(Value::Object(Object(members)));
                }
                _ => return Err(self.error("expected `,` or `}` in an object")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.space();
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.error("expected `,` or `]` in an array")),
            }
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.error("expected a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let literal = self.text.get(start..self.at).unwrap_or_default();
        Ok(Value::Number(Number::read(literal)))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"', "expected a string")?;
        let mut out = self.plain().to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                    out.push_str(self.plain());
                }
                Some(_) => return Err(self.error("a control character stands in a string")),
                None => return Err(self.error("the document ends within a string")),
            }
        }
    }

    fn key(&mut self) -> Result<Key, JsonError> {
        let start = self.at;
        self.expect(b'"', "expected a string")?;
        let plain = Key::new(self.plain());
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(plain);
        }
        self.at = start;
        self.string().map(Key::from)
    }

    /// What stands for itself from here on.
    fn plain(&mut self) -> &str {
        let start = self.at;
        self.at += plain(self.bytes.get(start..).unwrap_or_default());
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("an unknown escape stands in a string")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let code = if (0xD800..0xDC00).contains(&first) {
            if self.peek() != Some(b'\\') || self.bytes.get(self.at + 1) != Some(&b'u') {
                return Err(self.error("a lone surrogate stands in a string"));
            }
            self.at += 2;
            let second = self.hex4()?;
            if !(0xDC00..0xE000).contains(&second) {
                return Err(self.error("a lone surrogate stands in a string"));
            }
            0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
        } else {
            first
        };
        // What is left that is no character is a low surrogate on its own.
        char::from_u32(code).ok_or_else(|| self.error("a lone surrogate stands in a string"))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or_else(|| self.error("expected four hex digits"))?;
        let mut code = 0;
        for digit in digits {
            let value = char::from(*digit).to_digit(16).ok_or_else(|| self.error("expected four hex digits"))?;
            code = code * 16 + value;
        }
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        for text in [
            r#"{"a":[1,2.5,-3e10,9007199254740993],"b":null,"c":{"d":true,"e":false}}"#,
            r#""quote \" backslash \\ newline \u000a snowman ☃""#,
            r#"[]"#,
            r#"{}"#,
            r#"18446744073709551616"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
        assert_eq!(parse(br#" "\ud83d\ude00\/\n" "#).unwrap(), Value::String("😀/\n".to_owned()));
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_refused() {
        for text in [
            &br#"{"a":1,"a":2}"#[..],
            br#"{"a":1} {"b":2}"#,
            br#"{"a":1}x"#,
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            br#""\ud800""#,
            br#""\ud800\u0041""#,
            br#""\udc00""#,
            br#""\x41""#,
            b"\"\n\"",
            b"01",
            b"1.",
            b"1e",
            b"+1",
            b"-",
            b".5",
            b"NaN",
            b"[1,]",
            b"{\"a\":1,}",
            b"{a:1}",
            b"[1 2]",
            b"'a'",
            b"",
            b"tru",
            b"/* */ {}",
            b"\"\\u12\"",
            b"\"abc",
        ] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        let deep = "[".repeat(33) + &"]".repeat(33);
        assert!(parse(deep.as_bytes()).is_err());
        let fine = "[".repeat(32) + &"]".repeat(32);
        assert!(parse(fine.as_bytes()).is_ok());
    }

    #[test]
    fn plain_text_ends_where_something_is_escaped() {
        for byte in 0..=u8::MAX {
            let special = byte < b' ' || byte == b'"' || byte == b'\\';
            for at in 0..20 {
                let mut text = [b'\xc3'; 20];
                text[at] = byte;
                assert_eq!(plain(&text), if special { at } else { text.len() }, "{byte} at {at}");
                // What comes behind it changes nothing.
                text[19] = b'"';
                assert_eq!(plain(&text), if special { at } else { 19 }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn many_members_are_checked_for_duplicates_too() {
        let body: String = (0..5000).map(|i| format!("\"k{i}\":1,")).collect();
        assert!(parse(format!("{{{body}\"last\":1}}").as_bytes()).is_ok());
        assert!(parse(format!("{{{body}\"k4321\":1}}").as_bytes()).is_err());
    }

    #[test]
    fn keys_fold_as_in_go() {
        assert_eq!(fold("HoſtConfig"), "hostconfig");
        assert_eq!(fold("NetworKMode"), "networkmode");
        assert_eq!(fold("É"), "É");
    }
}
