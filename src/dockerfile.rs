//! Dockerfiles, read as the engine's classic builder reads them. What they may do is judged in [`crate::judge::dockerfile`].
//!
//! Engines from 20.10 to the newest read some texts in different ways (stray carriage returns, here-documents,
//! directives). What they could disagree about is refused, so that what was judged is what is built.

use crate::json::{self, Value};
use std::collections::BTreeMap;

/// A Dockerfile, or the `changes` of a commit or an import.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The escape character: a backslash unless a directive says otherwise.
    pub escape: char,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
    lines: Vec<String>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its keyword in lower case.
    pub keyword: String,
    /// Its keyword as it was written.
    written: String,
    /// Its flags, such as `--from=build`, without quotes.
    pub flags: Vec<String>,
    /// What follows the flags.
    pub args: String,
    first: usize,
    last: usize,
}

/// Variables that an instruction may use.
#[derive(Debug, Clone, PartialEq)]
pub enum Variables<'a> {
    /// These and no others.
    Known(&'a BTreeMap<String, String>),
    /// They are set where the instruction runs, which cannot be seen from here.
    Unknown,
}

/// Substitutions within substitutions.
const DEPTH: usize = 16;

/// An expanded word is at most this long.
const LONGEST: usize = 64 << 10;

/// So many instructions a Dockerfile may have.
const INSTRUCTIONS: usize = 4096;

/// Stands in an expanded word for a variable's value that is not known.
pub const UNKNOWN: char = '\u{FFFF}';

/// Reads a Dockerfile.
///
/// # Errors
/// What is wrong, with the line.
pub fn parse(text: &[u8]) -> Result<Dockerfile, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the Dockerfile is not valid UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let lines: Vec<String> = text
        .split_inclusive('\n')
        .map(|line| {
            let line = line.strip_suffix('\n').unwrap_or(line);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        })
        .collect();
    for (number, line) in lines.iter().enumerate() {
        if line.chars().any(|c| (c.is_control() && c != '\t') || c == UNKNOWN) {
            return Err(format!("line {} of the Dockerfile has control characters", number + 1));
        }
    }
    let escape = directives(&lines)?;
    let mut instructions = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let first = at;
        at += 1;
        let line = line.trim_start();
        if line.starts_with('#') {
            continue;
        }
        let (mut logical, mut more) = continued(line, escape);
        if !more && logical.is_empty() {
            continue;
        }
        while more {
            let Some(next) = lines.get(at) else { break };
            at += 1;
            if next.trim_start().starts_with('#') || next.trim().is_empty() {
                continue;
            }
            let (part, again) = continued(next, escape);
            logical.push_str(&part);
            more = again;
        }
        let mut instruction =
            instruction(&logical).map_err(|what| format!("line {} of the Dockerfile: {what}", first + 1))?;
        (instruction.first, instruction.last) = (first, at - 1);
        if opens_here_document(&instruction) {
            return Err(format!("line {} of the Dockerfile opens a here-document, which needs BuildKit", first + 1));
        }
        if instructions.len() >= INSTRUCTIONS {
            return Err(format!("the Dockerfile has more than {INSTRUCTIONS} instructions"));
        }
        instructions.push(instruction);
    }
    Ok(Dockerfile { escape, instructions, lines })
}

/// Reads one instruction, such as an `ONBUILD` trigger.
///
/// # Errors
/// What is wrong with it.
pub fn parse_one(text: &str) -> Result<Instruction, String> {
    let file = parse(text.as_bytes())?;
    match file.instructions.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err("an ONBUILD trigger must be one instruction".to_owned()),
    }
}

/// The escape character that the directives at the top set.
fn directives(lines: &[String]) -> Result<char, String> {
    let mut escape = None;
    let mut others = false;
    for line in lines {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let word =
            name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
        if !word || value.is_empty() {
            break;
        }
        match (name.as_str(), value) {
            ("escape", "\\" | "`") if escape.is_none() && !others => escape = value.chars().next(),
            ("escape", _) => return Err("the escape directive of the Dockerfile is not understood".to_owned()),
            // Old engines end the directives here, new ones do not.
            ("check", _) => others = true,
            ("syntax", _) => {}
            _ => break,
        }
    }
    Ok(escape.unwrap_or('\\'))
}

/// A line without its continuation character, and whether it had one.
fn continued(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(head) if !head.ends_with(escape) => (head.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

fn instruction(logical: &str) -> Result<Instruction, String> {
    let line = logical.trim();
    let (written, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if written.is_empty() || !written.chars().all(|c| c.is_ascii_alphabetic()) {
        let shown: String = written.chars().take(40).collect();
        return Err(format!("`{shown}` is no instruction"));
    }
    let (flags, args) = flags(rest)?;
    Ok(Instruction {
        keyword: written.to_ascii_lowercase(),
        written: written.to_owned(),
        flags,
        args: args.trim().to_owned(),
        first: 0,
        last: 0,
    })
}

/// The flags before the arguments, and the arguments.
fn flags(text: &str) -> Result<(Vec<String>, &str), String> {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (_, '\\' | '`') => return Err("flags with escapes are not understood".to_owned()),
                (_, c) if !c.is_ascii() => {
                    return Err("flags with other than ASCII characters are not understood".to_owned());
                }
                (Some(open), c) if c == open => quote = None,
                (Some(_), c) => word.push(c),
                (None, '"' | '\'') => quote = Some(c),
                (None, ' ' | '\t') => {
                    end = at;
                    break;
                }
                (None, c) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote of a flag is not closed".to_owned());
        }
        rest = rest.split_at(end).1;
        if word == "--" {
            break;
        }
        flags.push(word);
        rest = rest.trim_start();
    }
    Ok((flags, rest))
}

/// Could new engines read the following lines as a here-document's?
fn opens_here_document(instruction: &Instruction) -> bool {
    let inner = match instruction.keyword.as_str() {
        "onbuild" => instruction.args.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase(),
        keyword => keyword.to_owned(),
    };
    if !matches!(inner.as_str(), "run" | "copy" | "add") {
        return false;
    }
    let text = format!("{} {}", instruction.flags.join(" "), instruction.args);
    text.match_indices("<<").any(|(at, _)| {
        let (before, after) = text.split_at(at);
        let after = after.strip_prefix("<<").unwrap_or_default();
        let starts_word = before.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with(char::is_whitespace);
        starts_word && !after.starts_with('<')
    })
}

impl Dockerfile {
    /// The text with these instructions in place of those at the same positions, every other byte kept, and with a line
    /// after some of them. The numbers of the others stay where these find room or there are none, so that the engine's
    /// complaints name the right line.
    ///
    /// # Errors
    /// A text that does not read back as it was meant.
    pub fn replaced(
        &self,
        with: &BTreeMap<usize, Instruction>,
        then: &BTreeMap<usize, String>,
    ) -> Result<String, String> {
        let mut lines = self.lines.clone();
        for (at, new) in with {
            let Some(old) = self.instructions.get(*at) else { continue };
            for (number, line) in lines.iter_mut().enumerate().take(old.last + 1).skip(old.first) {
                *line = if number == old.first { new.line() } else { String::new() };
            }
        }
        let text = lines.join("\n") + "\n";
        let again = parse(text.as_bytes())?;
        let same = again.escape == self.escape
            && again.instructions.len() == self.instructions.len()
            && again.instructions.iter().zip(&self.instructions).enumerate().all(|(at, (new, old))| {
                let meant = with.get(&at).unwrap_or(old);
                (&new.keyword, &new.flags, &new.args) == (&meant.keyword, &meant.flags, &meant.args)
            });
        for (at, line) in then {
            let Some(old) = self.instructions.get(*at) else { continue };
            // What was replaced stands on its first line, with empty ones behind it.
            let last = if with.contains_key(at) { old.first } else { old.last };
            let next = self.instructions.get(at + 1).map_or(last + 1, |next| next.first);
            match lines.get_mut(last + 1) {
                // An empty line, or a comment.
                Some(free) if last + 1 < next => line.clone_into(free),
                _ => {
                    if let Some(slot) = lines.get_mut(last) {
                        slot.push('\n');
                        slot.push_str(line);
                    }
                }
            }
        }
        let text = lines.join("\n") + "\n";
        if same { Ok(text) } else { Err("the Dockerfile cannot be pinned to the images that it names".to_owned()) }
    }
}

impl Instruction {
    fn line(&self) -> String {
        let mut out = self.written.clone();
        for part in self.flags.iter().chain([&self.args]) {
            out.push(' ');
            out.push_str(part);
        }
        out
    }

    /// The values of a flag.
    pub fn flag(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("--{name}=");
        self.flags.iter().filter_map(move |flag| flag.strip_prefix(prefix.as_str()))
    }

    /// The words of the arguments, parted by white space.
    pub fn words(&self) -> Vec<&str> {
        self.args.split([' ', '\t']).filter(|word| !word.is_empty()).collect()
    }

    /// The sources and the destination of `ADD` and `COPY`, in either form.
    ///
    /// # Errors
    /// A text that looks like a JSON array of strings and is none.
    pub fn paths(&self) -> Result<Vec<String>, String> {
        if !self.args.starts_with('[') {
            return Ok(self.words().into_iter().map(str::to_owned).collect());
        }
        let list = json::parse(self.args.as_bytes()).ok();
        let items = list
            .as_ref()
            .and_then(Value::as_array)
            .ok_or("paths that begin with `[` must be a JSON array of strings")?;
        items
            .iter()
            .map(|item| {
                item.as_str().map(str::to_owned).ok_or_else(|| "paths in a JSON array must be strings".to_owned())
            })
            .collect()
    }

    /// The names and values of `LABEL`, `ENV` and `ARG`, not yet expanded; a value is absent where none is given.
    ///
    /// # Errors
    /// A name without a value where one must be.
    pub fn pairs(&self, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
        let words = split_words(&self.args, escape);
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        if self.keyword == "arg" {
            return Ok(words.iter().map(pair).collect());
        }
        match words.first() {
            None => Ok(Vec::new()),
            Some(first) if !first.contains('=') => match self.args.split_once([' ', '\t']) {
                Some((name, value)) => {
                    Ok(vec![(name.to_owned(), Some(value.trim_start_matches([' ', '\t']).to_owned()))])
                }
                None => Err(format!("{} must have two arguments", self.written)),
            },
            Some(_) => words
                .iter()
                .map(|word| match pair(word) {
                    (name, Some(value)) => Ok((name, Some(value))),
                    (name, None) => Err(format!("`{name}` must be of the form name=value")),
                })
                .collect(),
        }
    }

    /// The arguments of `LABEL`, `ENV` or `ARG` with these names in place of its own.
    ///
    /// # Errors
    /// A name without a value where one must be.
    pub fn renamed(&self, escape: char, names: &[String]) -> Result<String, String> {
        let old = self.pairs(escape)?;
        // One name and the rest of the line, or any number of `name=value`.
        let sign = match split_words(&self.args, escape).first() {
            Some(first) if first.contains('=') || self.keyword == "arg" => '=',
            Some(_) | None => ' ',
        };
        let pair = |(name, (_, value)): (&String, &(String, Option<String>))| match value {
            Some(value) => format!("{name}{sign}{value}"),
            None => name.clone(),
        };
        Ok(names.iter().zip(&old).map(pair).collect::<Vec<_>>().join(" "))
    }

    /// The same with these flags and arguments.
    #[must_use]
    pub fn with(&self, flags: Vec<String>, args: String) -> Self {
        Self { flags, args, ..self.clone() }
    }
}

/// Words parted by white space outside quotes; quotes and escapes stay.
fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            match chars.next() {
                // An escape at the end is dropped.
                None => break,
                Some(next) => {
                    word.push(c);
                    word.push(next);
                    continue;
                }
            }
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Expands variables and takes quotes and escapes away, as the classic builder does.
///
/// # Errors
/// What the builder would not take either, and the pattern forms that old engines lack.
pub fn expand(word: &str, escape: char, variables: &Variables<'_>) -> Result<String, String> {
    let mut lexer = Lexer { chars: word.chars().collect(), at: 0, depth: 0, escape, variables };
    lexer.until(None)
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    escape: char,
    variables: &'a Variables<'a>,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => loop {
                    match self.next().ok_or("a single quote is not closed")? {
                        '\'' => break,
                        c => out.push(c),
                    }
                },
                '"' => self.double_quoted(&mut out)?,
                '$' => self.substitute(&mut out)?,
                c if c == self.escape => match self.next() {
                    Some(c) => out.push(c),
                    None => break,
                },
                c => out.push(c),
            }
        }
        if stop.is_some() { Err("a `}` is missing".to_owned()) } else { Ok(out) }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next().ok_or("a double quote is not closed")? {
                '"' => return Ok(()),
                '$' => self.substitute(out)?,
                c if c == self.escape => match self.peek() {
                    None => {}
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.at += 1;
                        out.push(next);
                    }
                    Some(_) => out.push(c),
                },
                c => out.push(c),
            }
        }
    }

    fn substitute(&mut self, out: &mut String) -> Result<(), String> {
        if self.depth >= DEPTH {
            return Err(format!("more than {DEPTH} substitutions are within each other"));
        }
        self.depth += 1;
        let value = self.dollar()?;
        self.depth -= 1;
        if out.len() + value.len() > LONGEST {
            return Err(format!("the value is longer than {LONGEST} bytes"));
        }
        out.push_str(&value);
        Ok(())
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        self.at += 1;
        if matches!(self.peek(), None | Some('{' | '}' | ':')) {
            return Err("a bad substitution".to_owned());
        }
        let name = self.name();
        let value = self.value(&name);
        let (empty_is_unset, modifier) = match self.next().ok_or("a `}` is missing")? {
            '}' => return Ok(value.unwrap_or_default()),
            ':' => (true, self.next().ok_or("a `}` is missing")?),
            c => (false, c),
        };
        if !matches!(modifier, '-' | '+' | '?') {
            return Err(format!("the substitution `${{{name}{modifier}…}}` is not understood"));
        }
        let word = self.until(Some('}'))?;
        // Whether it is set may be as little known as to what.
        if value.as_ref().is_some_and(|value| value.contains(UNKNOWN)) {
            return Ok(UNKNOWN.to_string());
        }
        let set = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, set) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            _ => Err(format!("the variable `{name}` is not set")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    self.at += 1;
                    name.push(c);
                }
                return name;
            }
            Some(c) if "@*#?-$!".contains(c) => {
                self.at += 1;
                return c.to_string();
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            self.at += 1;
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        match self.variables {
            Variables::Known(known) => known.get(name).cloned(),
            Variables::Unknown => Some(UNKNOWN.to_string()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Vec<String>, String)> {
        parse(text.as_bytes()).unwrap().instructions.into_iter().map(|i| (i.keyword, i.flags, i.args)).collect()
    }

    #[test]
    fn lines_are_joined_as_the_builder_joins_them() {
        let text = "# syntax=x\n\n  from  a \\\n  # note\n\n   AS b\nRUN x \\\\\nCMD y\\  \n z\n";
        let read = read(text);
        assert_eq!(read[0].0, "from");
        assert_eq!(read[0].2, "a    AS b");
        assert_eq!(read[1].2, "x \\\\");
        assert_eq!(read[2], ("cmd".into(), vec![], "y z".into()));
        assert_eq!(
            parse("\u{FEFF}# escape=`\nFROM a `\n AS b\n".as_bytes()).unwrap().instructions[0].words(),
            ["a", "AS", "b"]
        );
        assert_eq!(parse(b"FROM a\r\nRUN b \\\r\n c\r\n").unwrap().instructions[1].args, "b  c");
    }

    #[test]
    fn what_engines_read_differently_is_refused() {
        for text in [
            "FROM a \\\r\r\n AS b",
            "FROM a\rRUN b",
            "# check=skip=all\n# escape=`\nFROM a",
            "FROM a\nRUN cat <<EOF\nFROM b\nEOF\n",
            "FROM a\nRUN cat 3<<-'EOF'\nFROM b\nEOF\n",
            "FROM a\nONBUILD RUN cat << EOF\nFROM b\nEOF\n",
            "FROM a\nCOPY --fr\\om=x a b",
            "FROM a\n\u{A0}FR\u{130}M b",
            "FROM a\u{0}",
            "FROM a\n# x\nR\u{212A}N",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for fine in ["FROM a\nRUN echo $((1<<2)) <<<word", "FROM a\n# RUN <<EOF\nENV x <<EOF"] {
            assert!(parse(fine.as_bytes()).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn flags_stand_before_the_arguments() {
        let read = read(
            "FROM --platform=linux/amd64 a\nCOPY --chown=\"a:b\" --from=x --  --from=y /d\nADD --link\t[\"a b\", \"c\"]",
        );
        assert_eq!(read[0], ("from".into(), vec!["--platform=linux/amd64".into()], "a".into()));
        assert_eq!(read[1], ("copy".into(), vec!["--chown=a:b".into(), "--from=x".into()], "--from=y /d".into()));
        let add = &parse(b"ADD [\"a b\", \"c\"]").unwrap().instructions[0];
        assert_eq!(add.paths().unwrap(), ["a b", "c"]);
        assert!(parse(b"ADD [\"a\", \"c\"] d").unwrap().instructions[0].paths().is_err());
    }

    #[test]
    fn words_are_expanded_as_the_builder_expands_them() {
        let known: BTreeMap<String, String> =
            [("A", "1"), ("E", ""), ("URL", "http://x")].map(|(k, v)| (k.into(), v.into())).into();
        let known = Variables::Known(&known);
        for (word, value) in [
            ("$A", "1"),
            ("${A}x$B", "1x"),
            ("${B:-d}${E:-e}${E-e}", "de"),
            ("${A:+y}${B:+y}${E:+y}${E+y}", "yy"),
            ("${B:-${A}-\"q\"}", "1-q"),
            ("'$A'\"$A\"", "$A1"),
            ("\\$A", "$A"),
            ("\"\\$A\\x\"", "$A\\x"),
            ("$", "$"),
            ("a$1b", "ab"),
            ("com.\"build\"kite", "com.buildkite"),
        ] {
            assert_eq!(expand(word, '\\', &known).unwrap(), value, "{word}");
        }
        for word in ["${A", "${}", "${A#x}", "${A/x/y}", "'a", "\"a", "${B:?no}", "${{A}}"] {
            assert!(expand(word, '\\', &known).is_err(), "{word}");
        }
        assert_eq!(expand("a$X/b", '\\', &Variables::Unknown).unwrap(), format!("a{UNKNOWN}/b"));
    }

    #[test]
    fn substitutions_are_bounded() {
        let nested = |depth: usize| format!("{}x{}", "${a:-".repeat(depth), "}".repeat(depth));
        let none = BTreeMap::new();
        assert_eq!(expand(&nested(16), '\\', &Variables::Known(&none)).unwrap(), "x");
        for variables in [Variables::Known(&none), Variables::Unknown] {
            for depth in [17, 100_000] {
                assert!(expand(&nested(depth), '\\', &variables).is_err());
                assert!(expand(&format!("\"{}\"", nested(depth)), '\\', &variables).is_err());
            }
        }
        let long = BTreeMap::from([("A".to_owned(), "x".repeat(40 << 10))]);
        assert!(expand("$A", '\\', &Variables::Known(&long)).is_ok());
        assert!(expand("$A$A", '\\', &Variables::Known(&long)).is_err());
        assert!(expand("${B:-$A$A}", '\\', &Variables::Known(&long)).is_err());
        assert!(parse("RUN x\n".repeat(4097).as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_known_may_be_set_or_not() {
        let known = BTreeMap::from([("PATH".to_owned(), UNKNOWN.to_string())]);
        for word in ["$PATH", "${PATH}", "${PATH:+x}", "${PATH:-x}", "${PATH+x}", "${A:-$PATH}", "\"${PATH:?x}\""] {
            let value = expand(word, '\\', &Variables::Known(&known)).unwrap();
            assert_eq!(value, UNKNOWN.to_string(), "{word}");
        }
    }

    #[test]
    fn names_can_be_replaced_within_pairs() {
        let renamed = |text: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            parse(text.as_bytes()).unwrap().instructions[0].renamed('\\', &names).unwrap()
        };
        assert_eq!(renamed("LABEL $A.x=\"1 2\"   b='$c d'", &["k.x", "b"]), "k.x=\"1 2\" b='$c d'");
        assert_eq!(renamed("LABEL $A  one = two", &["k"]), "k one = two");
    }

    #[test]
    fn pairs_have_two_forms() {
        let pairs = |text: &str| parse(text.as_bytes()).unwrap().instructions[0].pairs('\\');
        let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(
            pairs("LABEL a=b \"c d\"=e f='g h'").unwrap(),
            [some("a", "b"), some("\"c d\"", "e"), some("f", "'g h'")]
        );
        assert_eq!(pairs("LABEL a  b=c d").unwrap(), [some("a", "b=c d")]);
        assert_eq!(pairs("ARG a b=c").unwrap(), [("a".to_owned(), None), some("b", "c")]);
        assert!(pairs("LABEL a=b c").is_err());
        assert!(pairs("LABEL a").is_err());
    }

    #[test]
    fn instructions_can_be_replaced_where_they_stand() {
        let file = parse(b"# c\nFROM --platform=x \\\n busybox \\\n as b\nRUN x\nCOPY --from=y /a /b").unwrap();
        let pinned = file.instructions[0].with(vec!["--platform=x".into()], "sha256:0 as b".into());
        let copy = file.instructions[2].with(vec!["--from=sha256:1".into()], "/a /b".into());
        let text = file.replaced(&[(0, pinned), (2, copy)].into(), &BTreeMap::new()).unwrap();
        assert_eq!(text, "# c\nFROM --platform=x sha256:0 as b\n\n\nRUN x\nCOPY --from=sha256:1 /a /b\n");
    }
}
