//! The fields of JSON request bodies, each with an explicit treatment, and the pass over a document that applies it.
//!
//! After the pass a document holds known fields only, each once, under the name that the Engine API gives it, each of
//! the shape that the engine reads; what the treatment leaves to a guard is looked at there.

use crate::json::{self, Key, Object, Value};
use crate::refusal::Refusal;

/// What becomes of a field.
#[derive(Debug, Clone, Copy)]
pub enum Treat {
    /// Whatever it says stays within what the owner may do: forwarded when it has this shape.
    Plain(Shape),
    /// A guard judges it; the pass only sees to its shape.
    Judged(Shape),
    /// Only a silent value (`null`, `false`, `0`, `""`, `[]`, `{}`) is accepted; `key` is what would allow another.
    Silent(&'static str),
    /// Only `null` is accepted, and dropped: here an empty list says something (`MaskedPaths: []` unmasks).
    Null(&'static str),
    /// Accepted and dropped whatever it is: the engine ignores it or fills it in itself.
    Drop,
    /// An object with fields of its own.
    Object(&'static [Field]),
    /// A list of objects with fields of their own.
    Each(&'static [Field]),
    /// An object whose keys are the client's, and whose values have fields of their own.
    Map(&'static [Field]),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in the Engine API.
    pub name: &'static str,
    /// What becomes of it.
    pub treat: Treat,
}

/// A field and its treatment.
pub const fn field(name: &'static str, treat: Treat) -> Field {
    Field { name, treat }
}

/// The shapes of values. `null` is accepted everywhere and means absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A 64-bit integer.
    Int,
    /// A list of strings.
    Texts,
    /// A list of 64-bit integers.
    Ints,
    /// A string or a list of strings (`Cmd`, `Entrypoint`).
    Words,
    /// A list of lists of strings.
    TextLists,
    /// An object of strings under keys of the client's (labels, options).
    TextMap,
    /// An object of empty objects under keys of the client's (`ExposedPorts`, `Volumes`).
    Set,
    /// An object of lists of `{HostIp, HostPort}` (`PortBindings`).
    Ports,
}

/// Passes over a body.
///
/// # Errors
/// A field that is not known and not silent, one that is there twice after the engine's key folding, a value of the
/// wrong shape, a value that is not allowed.
pub fn check(fields: &'static [Field], document: Value) -> Result<Object, Refusal> {
    match document {
        Value::Object(mut object) => object_pass(fields, &mut object, Path::Root).map(|()| object),
        other => Err(Refusal::malformed(format!("the body must be a JSON object, not {}", other.kind()))),
    }
}

/// Where in the document a value stands. It is only written out for a refusal.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(&printable(key)),
            Path::Key(parent, key) => write!(f, "{parent}.{}", printable(key)),
            Path::Item(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

fn object_pass(fields: &'static [Field], object: &mut Object, path: Path<'_>) -> Result<(), Refusal> {
    let mut seen = vec![false; fields.len()];
    // Clients written in Go send the fields in this order, so the next is looked for behind the last.
    let mut next = 0;
    object.try_retain(|key, value| {
        let first = key.as_bytes().first();
        let same = |f: &Field| f.name.len() == key.len() && f.name.as_bytes().first() == first && f.name == key;
        let (before, behind) = fields.split_at_checked(next).unwrap_or((fields, &[]));
        let exact = behind.iter().position(same).map(|n| next + n).or_else(|| before.iter().position(same));
        next = exact.map_or(next, |place| place + 1);
        let place = exact.or_else(|| fields.iter().position(|f| json::folds_to(key, f.name)));
        let Some((field, seen)) = place.and_then(|place| Some((fields.get(place)?, seen.get_mut(place)?))) else {
            if value.is_empty() {
                return Ok(false);
            }
            return Err(Refusal::unknown(Path::Key(&path, key).to_string()));
        };
        let path = Path::Key(&path, field.name);
        if std::mem::replace(seen, true) {
            return Err(Refusal::malformed(format!(
                "{path} stands twice (the engine reads keys without regard to case)"
            )));
        }
        if exact.is_none() {
            *key = Key::new_static(field.name);
        }
        value_pass(field.treat, value, path)
    })
}

/// Is the value kept?
fn value_pass(treat: Treat, value: &mut Value, path: Path<'_>) -> Result<bool, Refusal> {
    if matches!(value, Value::Null) {
        return Ok(false);
    }
    let wrong =
        |expected: &str, value: &Value| Refusal::malformed(format!("{path} must be {expected}, not {}", value.kind()));
    match (treat, value) {
        (Treat::Plain(shape) | Treat::Judged(shape), value) => {
            shaped(shape, value).map_err(|expected| wrong(expected, value))?;
        }
        (Treat::Silent(_), value) if value.is_empty() => {}
        (Treat::Silent(key) | Treat::Null(key), value) => {
            return Err(Refusal::not_allowed(path.to_string(), value, key));
        }
        (Treat::Drop, _) => return Ok(false),
        (Treat::Object(fields), Value::Object(object)) => object_pass(fields, object, path)?,
        (Treat::Object(_), other) => return Err(wrong("an object", other)),
        (Treat::Each(fields), Value::Array(items)) => {
            for (at, item) in items.iter_mut().enumerate() {
                match item {
                    Value::Object(object) => object_pass(fields, object, Path::Item(&path, at))?,
                    other => return Err(wrong("a list of objects", other)),
                }
            }
        }
        (Treat::Each(_), other) => return Err(wrong("a list", other)),
        (Treat::Map(fields), Value::Object(members)) => {
            for (key, member) in members.iter_mut() {
                match member {
                    Value::Object(object) => object_pass(fields, object, Path::Key(&path, key))?,
                    Value::Null => *member = Value::Object(Object::new()),
                    other => return Err(wrong("an object of objects", other)),
                }
            }
        }
        (Treat::Map(_), other) => return Err(wrong("an object", other)),
    }
    Ok(true)
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Value::Object(object)
    }
}

fn printable(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Has the value this shape? Else what was expected.
fn shaped(shape: Shape, value: &Value) -> Result<(), &'static str> {
    let texts = |items: &[Value]| items.iter().all(|item| item.as_str().is_some());
    let fine = match (shape, value) {
        (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => true,
        (Shape::Int, Value::Number(_)) => value.as_i64().is_some(),
        (Shape::Texts | Shape::Words, Value::Array(items)) => texts(items),
        (Shape::Words, Value::String(_)) => true,
        (Shape::TextLists, Value::Array(items)) => items.iter().all(|item| item.as_array().is_some_and(texts)),
        (Shape::Ints, Value::Array(items)) => items.iter().all(|item| item.as_i64().is_some()),
        (Shape::TextMap, Value::Object(o)) => o.iter().all(|(_, v)| v.as_str().is_some()),
        (Shape::Set, Value::Object(o)) => o.iter().all(|(_, v)| v.is_empty()),
        (Shape::Ports, Value::Object(o)) => o.iter().all(|(_, v)| match v {
            Value::Null => true,
            Value::Array(items) => items.iter().all(|item| match item {
                Value::Null => true,
                Value::Object(binding) => binding.iter().all(|(key, v)| {
                    matches!(key, "HostIp" | "HostPort") && (v.as_str().is_some() || *v == Value::Null)
                }),
                _ => false,
            }),
            _ => false,
        }),
        _ => false,
    };
    if fine {
        return Ok(());
    }
    Err(match shape {
        Shape::Text => "a string",
        Shape::Bool => "true or false",
        Shape::Int => "a 64-bit integer",
        Shape::Texts => "a list of strings",
        Shape::Ints => "a list of integers",
        Shape::Words => "a string or a list of strings",
        Shape::TextLists => "a list of lists of strings",
        Shape::TextMap => "an object of strings",
        Shape::Set => "an object of empty objects",
        Shape::Ports => "an object of lists of {HostIp, HostPort}",
    })
}
