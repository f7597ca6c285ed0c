//! The steps of a build as the classic builder tells them, without those that set the owner's label.
//!
//! What a `RUN` prints comes in the same documents as what the builder tells. So only texts are looked at here, and the
//! worst that a `RUN` can do is to lose lines of its own.

use super::scan::{self, Broken, Show};
use crate::json::Value;
use crate::owner::{OWNER_LABEL, Owner};

/// Renumbers the steps of a build.
pub struct Steps {
    /// The instruction that is not shown.
    label: String,
    /// How many such steps there are.
    hidden: usize,
    /// How many of them were passed.
    passed: usize,
    /// The number of the next step.
    next: usize,
    /// The number of all steps, once it was told.
    total: Option<usize>,
    /// Is what is told now about a step that is not shown?
    hiding: bool,
}

impl Steps {
    /// The steps of a build by this owner, `hidden` of which set its label.
    pub fn new(owner: &Owner, hidden: usize) -> Self {
        let label = format!("LABEL {OWNER_LABEL}={owner}");
        Self { label, hidden, passed: 0, next: 1, total: None, hiding: false }
    }

    /// Writes a document of the progress, if it is shown.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn document(&mut self, document: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
        let mut members = scan::members(document);
        let (Some(only), None) = (members.next().transpose()?, members.next().transpose()?) else {
            return Ok(scan::pass(document, out));
        };
        let text = if only.key == b"stream" { scan::text(only.value) } else { None };
        let Some(text) = text else { return Ok(scan::pass(document, out)) };
        if let Some(instruction) = self.step(&text) {
            self.hiding = instruction == self.label;
            if self.hiding {
                self.passed += 1;
                return Ok(Show::Hidden);
            }
            let number = (self.next - 1).saturating_sub(self.passed);
            let total = self.total.unwrap_or_default().saturating_sub(self.hidden);
            let step = format!("Step {number}/{total} : {instruction}");
            return Ok(scan::pass(Value::from([("stream", Value::from(step))]).to_string().as_bytes(), out));
        }
        self.hiding = self.hiding && about_a_step(&text);
        Ok(if self.hiding { Show::Hidden } else { scan::pass(document, out) })
    }

    /// The instruction, if this announces the next step: `Step 2/3 : RUN true`, and no end of line. A build within a
    /// `RUN` prints such lines too.
    fn step<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let (numbers, instruction) = text.strip_prefix("Step ")?.split_once(" : ")?;
        let (number, total) = numbers.split_once('/')?;
        let (number, total): (usize, usize) = (number.parse().ok()?, total.parse().ok()?);
        if number != self.next || self.total.is_some_and(|known| known != total) || text.ends_with('\n') {
            return None;
        }
        self.total = Some(total);
        self.next += 1;
        Some(instruction)
    }
}

/// Is it what the builder tells of a step that runs nothing?
fn about_a_step(text: &str) -> bool {
    text == "\n" || text.starts_with(" ---> ") || text.starts_with("Removing intermediate container ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn shown(hidden: usize, texts: &[&str]) -> Vec<String> {
        let mut steps = Steps::new(&Owner::new("me<1>").unwrap(), hidden);
        let mut all = Vec::new();
        for text in texts {
            let document = Value::from([("stream", Value::from(*text))]).to_string();
            let mut out = Vec::new();
            if steps.document(document.as_bytes(), &mut out).unwrap() == Show::Shown {
                all.push(scan::text_of(&out, "stream").unwrap().into_owned());
            }
        }
        all
    }

    const LABEL: &str = "LABEL com.buildkite.sockguard.owner=me<1>";

    #[test]
    fn the_owners_label_is_no_step() {
        // As the builders of 20.10 and of 29 tell it.
        for removed in ["Removing intermediate container 1\n", " ---> Removed intermediate container 1\n"] {
            let label = format!("Step 3/4 : {LABEL}");
            let texts = [
                "Step 1/4 : FROM x",
                "\n",
                " ---> 0\n",
                "Step 2/4 : LABEL a=b",
                "\n",
                " ---> Running in 1\n",
                removed,
                " ---> 1\n",
                &label,
                "\n",
                " ---> Running in 2\n",
                removed,
                " ---> 2\n",
                "Step 4/4 : LABEL zz=1",
                "\n",
                " ---> 3\n",
                "[Warning] One or more build-args [x] were not consumed\n",
                "Successfully built 3\n",
            ];
            let mut expected = vec!["Step 1/3 : FROM x", "\n", " ---> 0\n", "Step 2/3 : LABEL a=b"];
            expected.extend_from_slice(&texts[4..8]);
            expected.extend_from_slice(&["Step 3/3 : LABEL zz=1", "\n", " ---> 3\n"]);
            expected.extend_from_slice(&texts[16..]);
            assert_eq!(shown(1, &texts), expected);
        }
    }

    #[test]
    fn a_label_after_from_is_no_step_either() {
        let (first, last) = (format!("Step 2/4 : {LABEL}"), format!("Step 4/4 : {LABEL}"));
        let texts =
            ["Step 1/4 : FROM x", &first, " ---> Using cache\n", "Step 3/4 : RUN y", "out", &last, "\n", "[W]\n"];
        assert_eq!(shown(2, &texts), ["Step 1/2 : FROM x", "Step 2/2 : RUN y", "out", "[W]\n"]);
    }

    #[test]
    fn what_a_step_prints_is_kept() {
        let printed = format!("Step 3/3 : {LABEL}\n");
        let texts = [
            "Step 1/3 : FROM x",
            "Step 2/3 : RUN docker build .",
            "Step 1/9 : FROM y",
            "Step 9/9 : RUN z",
            "Step 3/9 : x",
            &printed,
            "Step x/y : z",
            " ---> 7\n",
        ];
        let mut expected = vec!["Step 1/2 : FROM x", "Step 2/2 : RUN docker build ."];
        expected.extend_from_slice(&texts[2..]);
        assert_eq!(shown(1, &texts), expected);
    }

    #[test]
    fn only_texts_are_hidden() {
        let mut steps = Steps::new(&Owner::new("me<1>").unwrap(), 1);
        let forged = format!("{{\"stream\":\"Step 1/1 : {LABEL}\"}}");
        let mut out = Vec::new();
        assert_eq!(steps.document(forged.as_bytes(), &mut out), Ok(Show::Hidden));
        for document in [
            r#"{"aux":{"ID":"sha256:0"}}"#,
            r#"{"stream":"\n","aux":{"ID":"sha256:0"}}"#,
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#,
            r#"{"status":"Pulling from x"}"#,
            "{}",
        ] {
            let mut out = Vec::new();
            assert_eq!(steps.document(document.as_bytes(), &mut out), Ok(Show::Shown));
            assert_eq!(out, document.as_bytes());
        }
    }
}
