//! Splits an answer into its parts while it arrives: only the part that is being read is held. One that is too large is
//! passed over: some owner made it so, and the others' lists are not to break on it. Where it is known what is asked of
//! each object, only that is held, and an object of any size is read.

use super::scan::{self, Broken, Extent};

/// The largest part that is read. A container with a thousand labels has 100 KiB.
const LARGEST_PART: usize = 8 << 20;

/// The largest field that is read where objects are asked for some of theirs. The names of an image with ten thousand of
/// them have it.
const LARGEST_FIELD: usize = 1 << 20;

/// What is kept of a larger one.
const BEGINNING: usize = 4 << 10;

/// What is kept of the buffer between parts.
const KEPT: usize = 64 << 10;

/// A step through the document.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// `{` or `[` of a value that is gone into.
    Open(u8),
    /// The key of the next value, as it is encoded, without its quotes.
    Key(&'a [u8]),
    /// A whole value.
    Value(&'a [u8]),
    /// The beginning of a value that is too large to be read.
    TooLarge(&'a [u8]),
    /// The end of what was gone into.
    Close(u8),
}

/// Which values are gone into: the root (unless every document is one part), and the values of these keys.
#[derive(Debug, Clone, Copy)]
pub enum Parts {
    /// The items of the root array.
    Items,
    /// The members of the root object, and within it what these keys hold.
    Under(&'static [&'static str]),
    /// Documents one after the other, each a part.
    Documents,
    /// These fields of each object, and what leads to them.
    Fields(Objects, Fields),
}

/// Where the objects are that are asked for some of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// In the root array, or in one that the fields' paths lead to.
    Listed,
    /// They are documents, one after the other.
    Documents,
}

/// The fields that are asked for, each by the keys that lead to it. They are the engine's own, which it never writes with
/// escapes.
pub type Fields = &'static [&'static [&'static str]];

/// What is done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is a part.
    Hold,
    /// It is gone into, since this key leads to a part.
    Enter(&'static str),
    /// Nobody asks for it.
    Skip,
}

/// The splitter.
#[derive(Debug)]
pub struct Splitter {
    parts: Parts,
    /// What was gone into, with the key that led there.
    open: Vec<(u8, Option<&'static str>)>,
    expect: Expect,
    extent: Option<Extent>,
    held: Vec<u8>,
    /// So much of the part that is being read was seen in earlier pieces; it is held unless it is too large.
    seen: usize,
    /// What is done with the value of the key that was read last.
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value.
    Value,
    /// A value or the end, after `[`.
    ValueOrClose,
    /// A key or the end, after `{`.
    KeyOrClose,
    Key,
    Colon,
    CommaOrClose,
    Nothing,
}

/// Where the bytes of a part are.
enum Found {
    Nothing,
    Open(u8),
    Close(u8),
    Key(usize),
    Value(usize),
    TooLarge(usize),
}

impl Splitter {
    /// A splitter at the beginning of an answer.
    pub fn new(parts: Parts) -> Self {
        let (open, held) = (Vec::new(), Vec::new());
        Self { parts, open, expect: Expect::Value, extent: None, held, seen: 0, then: Then::Hold }
    }

    /// The next token. Takes from `input` what was read; nothing when more input is needed.
    ///
    /// # Errors
    /// The document is not JSON as far as it has to be, or a key is too large.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Token<'s>>, Broken> {
        if self.extent.is_none() {
            // A large part is not a reason to keep so much for the rest of a long stream.
            if self.held.capacity() > KEPT {
                self.held = Vec::new();
            }
            self.held.clear();
            self.seen = 0;
        }
        let before = *input;
        match self.step(input)? {
            Found::Nothing => Ok(None),
            Found::Open(byte) => Ok(Some(Token::Open(byte))),
            Found::Close(byte) => Ok(Some(Token::Close(byte))),
            Found::Key(n) => {
                let quoted = self.taken(before, input, n);
                Ok(Some(Token::Key(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default())))
            }
            Found::Value(n) => Ok(Some(Token::Value(self.taken(before, input, n)))),
            Found::TooLarge(n) => {
                let part = self.taken(before, input, n);
                Ok(Some(Token::TooLarge(part.get(..BEGINNING).unwrap_or(part))))
            }
        }
    }

    /// The part that ended `n` bytes before the rest of the input.
    fn taken<'a>(&'a self, before: &'a [u8], rest: &[u8], n: usize) -> &'a [u8] {
        if !self.held.is_empty() {
            return &self.held;
        }
        let end = before.len().saturating_sub(rest.len());
        before.get(end.saturating_sub(n)..end).unwrap_or_default()
    }

    /// So many bytes are held.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// The answer has ended.
    ///
    /// # Errors
    /// It ended too early.
    pub fn finish(&self) -> Result<(), Broken> {
        let documents = matches!(self.parts, Parts::Documents | Parts::Fields(Objects::Documents, _));
        let between = documents && self.open.is_empty() && self.extent.is_none();
        if self.expect == Expect::Nothing || (between && self.expect == Expect::Value) {
            return Ok(());
        }
        Err(Broken("it ends too early"))
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Found, Broken> {
        let largest = match self.parts {
            Parts::Items | Parts::Under(_) | Parts::Documents => LARGEST_PART,
            Parts::Fields(..) => LARGEST_FIELD,
        };
        loop {
            if let Some(extent) = &mut self.extent {
                let Some(n) = extent.feed(input) else {
                    self.seen = self.seen.saturating_add(input.len());
                    if self.then == Then::Skip {
                        // Nothing of it is held.
                    } else if self.seen > largest {
                        self.held.extend_from_slice(input.get(..BEGINNING).unwrap_or(input));
                        self.held.truncate(BEGINNING);
                        self.held.shrink_to_fit();
                    } else {
                        self.held.extend_from_slice(input);
                    }
                    *input = &[];
                    return Ok(Found::Nothing);
                };
                let (part, rest) = input.split_at_checked(n).unwrap_or((input, &[]));
                let too_large = self.seen.saturating_add(n) > largest;
                if self.then != Then::Skip && !too_large && !self.held.is_empty() {
                    self.held.extend_from_slice(part);
                }
                *input = rest;
                self.extent = None;
                if self.expect == Expect::Key {
                    self.expect = Expect::Colon;
                    let quoted = if self.held.is_empty() { part } else { &self.held };
                    let key = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
                    self.then = match (too_large, self.parts) {
                        (false, _) => self.after_key(key),
                        (true, Parts::Fields(..)) => Then::Skip,
                        (true, _) => return Err(Broken("a key of it is too large")),
                    };
                    if self.then == Then::Skip {
                        self.forget();
                        continue;
                    }
                    return Ok(Found::Key(n));
                }
                if self.then == Then::Skip {
                    self.after_value();
                    self.forget();
                    continue;
                }
                self.after_value();
                if too_large {
                    tracing::debug!("a part of an answer is passed over: it has {} bytes", self.seen.saturating_add(n));
                    return Ok(Found::TooLarge(n));
                }
                return Ok(Found::Value(n));
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(Found::Nothing) };
            match (byte, self.expect) {
                // Record separators stand before each document of a JSON sequence.
                (b' ' | b'\t' | b'\n' | b'\r' | 0x1e, _) => *input = rest,
                (b',', Expect::CommaOrClose) => {
                    *input = rest;
                    let in_object = matches!(self.open.last(), Some((b'{', _)));
                    self.expect = if in_object { Expect::Key } else { Expect::Value };
                }
                (b':', Expect::Colon) => {
                    *input = rest;
                    self.expect = Expect::Value;
                }
                (b'}' | b']', Expect::CommaOrClose | Expect::KeyOrClose | Expect::ValueOrClose) => {
                    let open = self.open.pop().map(|(open, _)| open);
                    if open != Some(if byte == b'}' { b'{' } else { b'[' }) {
                        return Err(Broken("brackets do not match"));
                    }
                    *input = rest;
                    self.after_value();
                    return Ok(Found::Close(byte));
                }
                (b'"', Expect::Key | Expect::KeyOrClose) => {
                    if let Some(rest) = self.behind_unwanted(input) {
                        *input = rest;
                        self.expect = Expect::CommaOrClose;
                        continue;
                    }
                    self.expect = Expect::Key;
                    self.extent = Some(Extent::default());
                }
                (b'}' | b']' | b',' | b':', _) => return Err(Broken("a value is missing")),
                (b'{' | b'[', Expect::Value | Expect::ValueOrClose) if self.goes_into() => {
                    let fits = match self.parts {
                        _ if !self.open.is_empty() => true,
                        Parts::Items => byte == b'[',
                        Parts::Under(_) | Parts::Documents | Parts::Fields(Objects::Documents, _) => byte == b'{',
                        Parts::Fields(Objects::Listed, _) => true,
                    };
                    if !fits {
                        return Err(Broken("it has another form"));
                    }
                    *input = rest;
                    let key = if let Then::Enter(key) = self.then { Some(key) } else { None };
                    self.then = Then::Hold;
                    self.open.push((byte, key));
                    self.expect = if byte == b'{' { Expect::KeyOrClose } else { Expect::ValueOrClose };
                    return Ok(Found::Open(byte));
                }
                (_, Expect::Value | Expect::ValueOrClose) => {
                    match (self.parts, self.then, self.open.last()) {
                        // Where an object leads to fields, anything else has none: `null`, for one.
                        (Parts::Fields(..), Then::Enter(_), _) => self.then = Then::Skip,
                        (Parts::Fields(..), _, None | Some((b'[', _))) => {
                            return Err(Broken("something stands where an object belongs"));
                        }
                        _ => {}
                    }
                    self.extent = Some(Extent::default());
                }
                (_, _) => return Err(Broken("something stands where it does not belong")),
            }
        }
    }

    /// Forgets a part that nobody asks for.
    fn forget(&mut self) {
        self.held.clear();
        self.seen = 0;
    }

    fn after_value(&mut self) {
        self.then = Then::Hold;
        self.expect = match (self.open.is_empty(), self.parts) {
            (false, _) => Expect::CommaOrClose,
            (true, Parts::Documents | Parts::Fields(Objects::Documents, _)) => Expect::Value,
            (true, Parts::Items | Parts::Under(_) | Parts::Fields(Objects::Listed, _)) => Expect::Nothing,
        };
    }

    /// What stands behind a member that nobody asks for, where this piece has all of it.
    fn behind_unwanted<'i>(&self, input: &'i [u8]) -> Option<&'i [u8]> {
        let Parts::Fields(..) = self.parts else { return None };
        let (_, inside) = input.split_first()?;
        let behind = scan::behind_string(inside).ok()?;
        let key = inside.get(..inside.len() - behind.len() - 1)?;
        let value = behind.strip_prefix(b":").filter(|_| self.after_key(key) == Then::Skip)?;
        match value {
            [b'"' | b'{' | b'[' | b'a'..=b'z' | b'0'..=b'9', ..] => scan::behind(value).ok(),
            _ => None,
        }
    }

    /// What is done with the value of this key?
    fn after_key(&self, key: &[u8]) -> Then {
        match self.parts {
            Parts::Items | Parts::Documents => Then::Hold,
            Parts::Under(keys) => keys.iter().find(|k| k.as_bytes() == key).map_or(Then::Hold, |key| Then::Enter(key)),
            Parts::Fields(_, fields) => {
                let depth = self.entered().count();
                fields.iter().find_map(|field| self.leads_to(key, field, depth)).unwrap_or(Then::Skip)
            }
        }
    }

    /// What is done with the value of this key, if it is this field or leads to it.
    fn leads_to(&self, key: &[u8], field: &[&'static str], depth: usize) -> Option<Then> {
        let (before, [next, behind @ ..]) = field.split_at_checked(depth)? else { return None };
        if next.as_bytes() != key || !self.entered().eq(before.iter().copied()) {
            return None;
        }
        Some(if behind.is_empty() { Then::Hold } else { Then::Enter(next) })
    }

    /// The keys that lead here.
    fn entered(&self) -> impl Iterator<Item = &'static str> {
        self.open.iter().filter_map(|(_, key)| *key)
    }

    fn goes_into(&self) -> bool {
        let entered = matches!(self.then, Then::Enter(_));
        match self.parts {
            Parts::Documents => false,
            Parts::Items => self.open.is_empty(),
            Parts::Under(_) => self.open.is_empty() || entered,
            Parts::Fields(..) => entered || matches!(self.open.last(), None | Some((b'[', _))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn all(parts: Parts, pieces: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let mut splitter = Splitter::new(parts);
        let mut seen = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(token) = splitter.next(&mut input)? {
                seen.push(match token {
                    Token::Open(b) | Token::Close(b) => char::from(b).to_string(),
                    Token::Key(k) => format!("{}:", String::from_utf8_lossy(k)),
                    Token::Value(v) => String::from_utf8_lossy(v).into_owned(),
                    Token::TooLarge(v) => format!("{} …", String::from_utf8_lossy(&v[..5])),
                });
            }
        }
        splitter.finish()?;
        Ok(seen)
    }

    const VOLUMES: Parts = Parts::Under(&["Volumes", "Items"]);

    #[test]
    fn parts_are_the_same_however_the_answer_arrives() {
        let cases: &[(Parts, &str, &[&str])] = &[
            (Parts::Items, "[{\"a\":\"]\"},{},3]\n", &["[", "{\"a\":\"]\"}", "{}", "3", "]"]),
            (Parts::Items, "[]", &["[", "]"]),
            (Parts::Items, "null\n", &["null"]),
            (
                VOLUMES,
                "{\"Volumes\":[{\"x\":[1]},2],\"W\":[1]}\n",
                &["{", "Volumes:", "[", "{\"x\":[1]}", "2", "]", "W:", "[1]", "}"],
            ),
            (
                VOLUMES,
                "{\"Volumes\":{\"n\":1,\"Items\":[[1]]}}",
                &["{", "Volumes:", "{", "n:", "1", "Items:", "[", "[1]", "]", "}", "}"],
            ),
            (VOLUMES, "{\"Volumes\":null,\"W\":null}", &["{", "Volumes:", "null", "W:", "null", "}"]),
            (Parts::Documents, "{\"a\":1}\n\x1e{\"b\":\"}\"}\n", &["{\"a\":1}", "{\"b\":\"}\"}"]),
            (Parts::Documents, "", &[]),
        ];
        for (parts, text, expected) in cases {
            let bytes = text.as_bytes();
            assert_eq!(all(*parts, &[bytes]).expect(text), *expected);
            for i in 0..=bytes.len() {
                for j in i..=bytes.len() {
                    let pieces = [&bytes[..i], &bytes[i..j], &bytes[j..]];
                    assert_eq!(all(*parts, &pieces).expect(text), *expected, "{text} {i} {j}");
                }
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(all(*parts, &single).expect(text), *expected);
        }
    }

    #[test]
    fn what_is_cut_or_malformed_is_an_error() {
        for text in [
            "",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[1 2]",
            "{]",
            "[1]x",
            "[}",
            "{\"a\"}",
            "{\"a\":}",
            "{,}",
            "[1][2]",
            "[{\"a\":1]",
        ] {
            assert!(all(Parts::Items, &[text.as_bytes()]).is_err(), "{text}");
            assert!(all(VOLUMES, &[text.as_bytes()]).is_err(), "{text}");
        }
        assert!(all(Parts::Documents, &[b"{\"a\":1}{\"b\""]).is_err());
    }

    #[test]
    fn what_a_piece_has_whole_is_read_as_what_comes_byte_by_byte() {
        const FIELDS: Fields = &[&["Id"], &["Labels", "a.b"], &["Config", "Labels", "a.b"], &["Config", "Id"]];
        const EVERY: [Parts; 6] = [
            Parts::Items,
            Parts::Documents,
            VOLUMES,
            Parts::Under(&["Config", "Labels"]),
            Parts::Fields(Objects::Listed, FIELDS),
            Parts::Fields(Objects::Documents, FIELDS),
        ];
        let deep = format!("{}\"}}]\"{}", "[{\"Id\":".repeat(30), "}]".repeat(30));
        let strings: Vec<String> = (0..20)
            .flat_map(|n| {
                ["\\\"", "\\\\", "\\u0022", "é", "☃\\n", "", "}", "{\\\"Id\\\":["].map(|end| "x".repeat(n) + end)
            })
            .collect();
        let mut objects: Vec<String> = [
            r#""Id":"1","Id":"2","Labels":{"a.b":"3","a.b":null,"a.b":{}},"Labels":[],"Config":1"#,
            r#""\\Id":"\"Id\"","Id\"":"\\","Id":"\"","Id\\":"\\\"","Labels":{"a.b\\":"","a.b":"\\\\"}"#,
            r#" "Id" : 1 , "x" :2, "Config":{"Id": [ ] , "Labels" : {"a.b": true } } , "y": "", "Labels" :null"#,
            r#""a":0,"b":-1.5e3,"c":null,"d":true,"Id":12,"e":[1,[2,{"Id":"]"}]],"f":{},"Config":{"Id":[]},"g":3"#,
            r#""Config":{"x":{"Labels":{"a.b":1}},"Labels":{"Labels":{"a.b":2},"a.b":3},"Id":{"Id":"}"}}"#,
            r#""Labels":{"c":1"#,
            r#""c":1}}"#,
            r#""c":"d""e":1"#,
            r#""c" 1"#,
            r#""c":}"#,
            r#""c":,"d":1"#,
            r#""c":1,,"d":1"#,
            r#""c":]"#,
            r#""c":"d"#,
            r#""Id""#,
            r#"c:1"#,
        ]
        .map(str::to_owned)
        .into();
        objects.push(format!(r#""c":{deep},"Id":{deep},"Config":{{"Id":1}}"#));
        objects.extend(
            strings.iter().map(|text| format!(r#""{text}":"{text}","Id":"{text}","Labels":{{"{text}":["{text}"]}}"#)),
        );
        for object in &objects {
            for text in
                [format!("{{{object}}}"), format!("[{{{object}}},{{}}]"), format!("{{\"Config\":[{{{object}}}]}}\n")]
            {
                let bytes = text.as_bytes();
                for parts in EVERY {
                    let slowly = all(parts, &bytes.chunks(1).collect::<Vec<_>>());
                    for i in 0..=bytes.len() {
                        assert_eq!(all(parts, &[&bytes[..i], &bytes[i..]]), slowly, "{parts:?} {text} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_part_that_is_too_large_is_passed_over() {
        let escapes = "\\b\\\"]".repeat((9 << 20) / 5);
        let list = format!("[{{\"a\":1}},{{\"Labels\":{{\"x\":\"{escapes}\"}}}},{{\"b\":2}}]");
        let volumes = format!("{{\"Volumes\":{list},\"W\":null}}");
        for size in [1021, 65_537, 1 << 20, LARGEST_PART, usize::MAX] {
            let pieces: Vec<&[u8]> = list.as_bytes().chunks(size).collect();
            assert_eq!(all(Parts::Items, &pieces).expect("a list"), ["[", "{\"a\":1}", "{\"Lab …", "{\"b\":2}", "]"]);
            let pieces: Vec<&[u8]> = volumes.as_bytes().chunks(size).collect();
            let expected = ["{", "Volumes:", "[", "{\"a\":1}", "{\"Lab …", "{\"b\":2}", "]", "W:", "null", "}"];
            assert_eq!(all(VOLUMES, &pieces).expect("volumes"), expected);
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut splitter = Splitter::new(Parts::Items);
        let long = vec![b'x'; LARGEST_PART / 4];
        for piece in std::iter::once(&b"[\""[..]).chain(std::iter::repeat_n(&long[..], 20)) {
            let mut input = piece;
            while splitter.next(&mut input).expect("so far").is_some() {}
            assert!(splitter.held.capacity() <= 2 * LARGEST_PART);
        }
        assert_eq!(splitter.held.capacity(), BEGINNING);
        assert!(splitter.finish().is_err());
        let key = [b"{\"".to_vec(), vec![b'k'; LARGEST_PART], b"\":1}".to_vec()].concat();
        assert_eq!(all(VOLUMES, &[&key]), Err(Broken("a key of it is too large")));
    }
}
