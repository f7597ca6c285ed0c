//! What sockguard itself asks of the engine's objects: a few fields of each, read while the answer arrives. Nothing else is
//! held, so that whoever makes his objects large takes no memory, and an object of any size is seen and counts.

use super::LARGEST_ERROR;
use super::scan::Broken;
use super::split::{Fields, Objects, Parts, Splitter, Token};
use super::upstream::{self, Upstream};
use crate::json::{self, Object, Value};
use crate::refusal::Refusal;
use crate::world::Id;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use hyper::{Method, StatusCode};
use std::time::Duration;
use tokio::time::timeout;

/// One object is answered within this time.
const TIME: Duration = Duration::from_secs(60);

/// An object of the engine's, as far as it was asked for: its fields stand where they stand in the object.
#[derive(Debug, Clone, PartialEq)]
pub enum Picked {
    /// With all of its fields that were asked for.
    Whole(Value),
    /// One of them is too large to be read.
    Partial(Value),
}

impl Picked {
    /// Its ID, where that was asked for.
    ///
    /// # Errors
    /// It has none.
    pub fn id(&self) -> Result<Id, Broken> {
        let (Self::Whole(fields) | Self::Partial(fields)) = self;
        let id = fields.at(&["Id"]).and_then(Value::as_str).filter(|id| !id.is_empty());
        id.map(Id::new).ok_or(Broken("an object has no ID"))
    }

    /// The fields, whatever is left out.
    pub fn fields(self) -> Value {
        match self {
            Self::Whole(fields) | Self::Partial(fields) => fields,
        }
    }
}

/// Reads fields of each object in an answer. The first error of `read` ends it.
///
/// # Errors
/// The engine cannot be asked, the answer breaks off, or `read` cannot understand an object.
pub async fn each(
    upstream: &impl Upstream,
    path: &str,
    objects: Objects,
    fields: Fields,
    mut read: impl FnMut(Picked) -> Result<(), Broken>,
) -> Result<(), Refusal> {
    let response = upstream.ask(Method::GET, path).await?;
    if response.status() != StatusCode::OK {
        return Err(Refusal::Engine { message: format!("the engine answered {} to {path}", response.status()) });
    }
    picked(response.into_body(), objects, fields, &mut read).await
}

/// The status of an answer about one object, and the fields of it; of an error, all that it says.
///
/// # Errors
/// The engine cannot be asked, or a field is too large.
pub async fn one(upstream: &impl Upstream, path: &str, fields: Fields) -> Result<(StatusCode, Value), Refusal> {
    let failed = |what: &str| Refusal::Engine { message: format!("the engine's answer to {path} {what}") };
    let found = async {
        let response = upstream.ask(Method::GET, path).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = upstream::collect(response.into_body(), LARGEST_ERROR).await?;
            return Ok((status, json::parse(&error).unwrap_or(Value::Null)));
        }
        let mut found = None;
        picked(response.into_body(), Objects::Documents, fields, &mut |object| {
            found = Some(object);
            Ok(())
        })
        .await?;
        match found {
            Some(Picked::Whole(fields)) => Ok((status, fields)),
            Some(Picked::Partial(_)) => Err(failed("is too large")),
            None => Err(failed("is empty")),
        }
    };
    timeout(TIME, found).await.unwrap_or_else(|_| Err(failed("does not come")))
}

async fn picked<B>(
    mut body: B,
    objects: Objects,
    fields: Fields,
    read: &mut impl FnMut(Picked) -> Result<(), Broken>,
) -> Result<(), Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<crate::body::BodyError>> + Unpin,
{
    let mut picker = Picker::new(objects, fields);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| Refusal::Engine { message: format!("the engine's answer was cut off: {}", e.into()) })?;
        if let Some(piece) = frame.data_ref() {
            picker.piece(piece, read)?;
        }
    }
    Ok(picker.splitter.finish()?)
}

/// Puts the fields of each object together.
struct Picker {
    objects: Objects,
    splitter: Splitter,
    /// What was gone into: by which bracket, under which key, and what it holds.
    open: Vec<(u8, String, Object)>,
    key: String,
    complete: bool,
}

impl Picker {
    fn new(objects: Objects, fields: Fields) -> Self {
        let splitter = Splitter::new(Parts::Fields(objects, fields));
        Self { objects, splitter, open: Vec::new(), key: String::new(), complete: true }
    }

    fn piece(&mut self, piece: &[u8], read: &mut impl FnMut(Picked) -> Result<(), Broken>) -> Result<(), Broken> {
        let mut input = piece;
        while let Some(token) = self.splitter.next(&mut input)? {
            match token {
                Token::Open(bracket) => self.open.push((bracket, std::mem::take(&mut self.key), Object::new())),
                Token::Key(key) => self.key = String::from_utf8_lossy(key).into_owned(),
                Token::Value(value) => match (json::parse(value), self.open.last_mut()) {
                    (Ok(value), Some((_, _, object))) => object.set(&self.key, value),
                    _ => self.complete = false,
                },
                Token::TooLarge(_) => self.complete = false,
                Token::Close(_) => {
                    let Some((bracket, key, object)) = self.open.pop() else { continue };
                    match (bracket, self.open.last_mut(), self.objects) {
                        (b'{', Some((b'{', _, outer)), _) => outer.set(&key, Value::Object(object)),
                        (b'{', Some(_), Objects::Listed) | (b'{', None, Objects::Documents) => {
                            let fields = Value::Object(object);
                            let complete = std::mem::replace(&mut self.complete, true);
                            read(if complete { Picked::Whole(fields) } else { Picked::Partial(fields) })?;
                        }
                        // A list, or what a list stands in.
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    const FIELDS: Fields = &[&["Id"], &["Names"], &["Labels", "a.b"], &["Config", "Labels", "a.b"]];
    const VOLUMES: Fields = &[&["Volumes", "Name"], &["Volumes", "Labels", "a.b"]];

    fn all(objects: Objects, fields: Fields, text: &str, size: usize) -> Result<Vec<Picked>, Broken> {
        let mut picker = Picker::new(objects, fields);
        let mut seen = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            picker.piece(piece, &mut |object| {
                seen.push(object);
                Ok(())
            })?;
        }
        picker.splitter.finish()?;
        Ok(seen)
    }

    fn whole(text: &str) -> Picked {
        Picked::Whole(json::parse(text.as_bytes()).expect(text))
    }

    #[test]
    fn of_each_object_there_is_what_was_asked_for() {
        let of_lists = r#"[{"Id":"1","Ports":[{"a.b":1}],"Labels":{"x":"]","a.b":"c","Id":"2"}},{},{"Names":["/x"],
            "Labels":null,"Config":{"Labels":{"a.b":"d"},"Id":"3","Config":{"Labels":{"a.b":"e"}}}}, {"Labels.a.b":1}]"#;
        let listed = [
            whole(r#"{"Id":"1","Labels":{"a.b":"c"}}"#),
            whole("{}"),
            whole(r#"{"Names":["/x"],"Config":{"Labels":{"a.b":"d"}}}"#),
            whole("{}"),
        ];
        let of_volumes = r#"{"Volumes":[{"Labels":{"a.b":"c"},"Name":"v","Options":{"o":"x"}},{"Name":"w"}],"Warnings":["Volumes"]}"#;
        let volumes = [whole(r#"{"Labels":{"a.b":"c"},"Name":"v"}"#), whole(r#"{"Name":"w"}"#)];
        let documents = "{\"Id\":\"1\",\"Config\":{\"Labels\":[]}}\n{\"Id\":\"2\",\"State\":{\"Id\":\"3\"}}\n";
        for size in 1..200 {
            assert_eq!(all(Objects::Listed, FIELDS, of_lists, size).expect("a list"), listed, "{size}");
            assert_eq!(all(Objects::Listed, VOLUMES, of_volumes, size).expect("volumes"), volumes, "{size}");
            let found = all(Objects::Documents, FIELDS, documents, size).expect("documents");
            assert_eq!(found, [whole(r#"{"Id":"1","Config":{}}"#), whole(r#"{"Id":"2"}"#)], "{size}");
        }
        for none in [r#"{"Volumes":null,"Warnings":null}"#, r#"{"Volumes":[]}"#, "[]", "[ ]\n"] {
            assert_eq!(all(Objects::Listed, VOLUMES, none, 3).expect(none), []);
        }
    }

    #[test]
    fn what_is_no_list_of_objects_is_an_error() {
        for text in
            ["", "null", "3", "[1]", "[null]", "[{}", "[{}]]", "[{}][", "[{\"Id\":1}{}]", "{\"Volumes\":[\"x\"]}"]
        {
            assert!(all(Objects::Listed, VOLUMES, text, 2).is_err(), "{text}");
        }
        for text in ["[]", "null", "{\"Id\":", "{}}"] {
            assert!(all(Objects::Documents, FIELDS, text, 2).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_that_is_too_large_is_missing_and_the_object_still_there() {
        let long = "x".repeat(2 << 20);
        let text = format!(
            r#"[{{"Id":"1","Names":["{long}"]}},{{"Id":"2","Labels":{{"{long}":"","y":"{long}","a.b":"c"}}}},{{"Id":"3"}}]"#
        );
        let partial = json::parse(br#"{"Id":"1"}"#).map(Picked::Partial).expect("a document");
        let others = [whole(r#"{"Id":"2","Labels":{"a.b":"c"}}"#), whole(r#"{"Id":"3"}"#)];
        for size in [1021, 65_537, usize::MAX] {
            let found = all(Objects::Listed, FIELDS, &text, size).expect("a list");
            assert_eq!(found, [std::slice::from_ref(&partial), &others[..]].concat(), "{size}");
        }
    }

    #[test]
    fn a_list_of_any_length_takes_the_memory_of_one_objects_fields() {
        let ports: String = (0..65_535).map(|port| format!(r#"{{"PrivatePort":{port},"Type":"tcp"}},"#)).collect();
        let long = r"\u003c".repeat(1 << 16);
        let container = |number: usize| {
            format!(
                r#"{{"Id":"{number:064}","Names":["/c{number}"],"Command":"{long}","Ports":[{ports}{{}}],"Labels":{{"x":"{long}","a.b":"me"}}}},"#
            )
        };
        let mut picker = Picker::new(Objects::Listed, FIELDS);
        let (mut fed, mut held, mut seen) = (1, 0, 0);
        let mut feed = |text: &str| {
            for piece in text.as_bytes().chunks(16 << 10) {
                let read = &mut |object: Picked| {
                    let fields = object.fields();
                    let has = |path: &[&str], text: &str| fields.at(path).and_then(Value::as_str) == Some(text);
                    assert!(has(&["Id"], &format!("{seen:064}")) && has(&["Labels", "a.b"], "me"), "{fields}");
                    seen += 1;
                    Ok(())
                };
                picker.piece(piece, read).expect("a list");
                fed += piece.len();
                let open: usize =
                    picker.open.iter().map(|(_, _, object)| Value::from(object.clone()).encoded().len()).sum();
                held = held.max(picker.splitter.held() + open + picker.key.capacity());
            }
        };
        feed("[");
        (0..30).for_each(|number| feed(&container(number)));
        feed(&format!(r#"{{"Id":"{:064}","Labels":{{"a.b":"me"}}}}]"#, 30));
        picker.splitter.finish().expect("the end of the list");
        assert!(fed > 80 << 20 && seen == 31, "{seen} in {fed} bytes");
        // The keys and values at the borders of pieces, and a container's few fields.
        assert!(held < 2 << 10, "{held} of {fed} bytes are held");
    }
}
