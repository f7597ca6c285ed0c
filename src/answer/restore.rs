//! Binds as the client asked for them.
//!
//! A bind that was changed on the way (into a sub-path of a volume, or into the guarded socket) is told in answers as it
//! was asked for: clients such as compose compare mounts, and carry them over to the next container.

use super::scan::{self, Broken, Show};
use crate::json::{self, Object, Value};

/// What was asked for: the document of the binds label.
pub struct Asked {
    binds: Option<Value>,
    mounts: Option<Value>,
    restart: Option<Value>,
    points: Vec<Point>,
}

/// A bind as the engine's list of mounts would show it.
struct Point {
    source: String,
    destination: String,
    mode: String,
    writable: bool,
    propagation: String,
}

impl Asked {
    /// Reads the label. One that cannot be read restores nothing.
    pub fn read(label: &[u8]) -> Option<Self> {
        let text = scan::text(label)?;
        let Ok(Value::Object(mut document)) = json::parse(text.as_bytes()) else { return None };
        let [binds, mounts, restart] = ["Binds", "Mounts", "Restart"].map(|key| document.remove(key));
        let of_binds =
            binds.iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str).filter_map(Point::of_bind);
        let of_mounts = mounts
            .iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(Value::as_object)
            .filter_map(Point::of_mount);
        let points = of_binds.chain(of_mounts).collect();
        Some(Self { binds, mounts, restart, points })
    }

    /// Writes a `HostConfig` with what was asked for.
    pub fn host_config(&self, host_config: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
        scan::each_member(host_config, out, |member, out| {
            let asked = match member.key {
                b"Binds" => &self.binds,
                // The engine leaves an empty list of mounts out.
                b"Mounts" if self.mounts.as_ref().is_some_and(Value::is_empty) => return Ok(Show::Hidden),
                b"Mounts" => &self.mounts,
                b"RestartPolicy" => &self.restart,
                _ => &None,
            };
            match asked {
                Some(value) => out.extend_from_slice(value.to_string().as_bytes()),
                None => out.extend_from_slice(member.value),
            }
            Ok(Show::Shown)
        })?;
        // Mounts that all became something else are not there to be replaced.
        if let Some(mounts) = self.mounts.as_ref().filter(|m| !m.is_empty())
            && scan::find(host_config, "Mounts")?.is_none()
        {
            out.pop();
            out.extend_from_slice(format!(",\"Mounts\":{mounts}}}").as_bytes());
        }
        Ok(Show::Shown)
    }

    /// Writes a list of mounts with the binds that were asked for.
    pub fn mount_points(&self, mounts: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
        if scan::is_null(mounts) {
            return Ok(scan::pass(mounts, out));
        }
        scan::each_item(mounts, out, |mount, out| {
            let destination = scan::text_of(mount, "Destination")?;
            match self.points.iter().find(|p| p.destination == destination) {
                Some(point) => out.extend_from_slice(point.to_json().to_string().as_bytes()),
                None => out.extend_from_slice(mount),
            }
            Ok(Show::Shown)
        })?;
        Ok(Show::Shown)
    }
}

impl Point {
    /// `SOURCE:DESTINATION[:OPTIONS]` with a path as its source; anything else is a volume, which is not changed.
    fn of_bind(bind: &str) -> Option<Self> {
        let mut parts = bind.splitn(3, ':');
        let (source, destination) = (parts.next()?, parts.next()?);
        let mode = parts.next().unwrap_or_default();
        if !source.starts_with('/') {
            return None;
        }
        let options: Vec<&str> = mode.split(',').collect();
        let propagations = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];
        let propagation = options.iter().find(|o| propagations.contains(o)).unwrap_or(&"rprivate");
        Some(Self {
            source: clean(source),
            destination: clean(destination),
            mode: mode.to_owned(),
            writable: !options.contains(&"ro"),
            propagation: (*propagation).to_owned(),
        })
    }

    /// An entry of `HostConfig.Mounts` of type `bind`.
    fn of_mount(mount: &Object) -> Option<Self> {
        let get = |key: &str| mount.iter().find(|(k, _)| json::fold(k) == key).map(|(_, v)| v);
        if get("type")?.as_str()? != "bind" {
            return None;
        }
        let propagation = get("bindoptions").and_then(Value::as_object).and_then(|options| {
            options.iter().find(|(k, _)| json::fold(k) == "propagation").and_then(|(_, v)| v.as_str())
        });
        Some(Self {
            source: clean(get("source")?.as_str()?),
            destination: clean(get("target")?.as_str()?),
            mode: String::new(),
            writable: !get("readonly").and_then(Value::as_bool).unwrap_or_default(),
            propagation: propagation.filter(|p| !p.is_empty()).unwrap_or("rprivate").to_owned(),
        })
    }

    fn to_json(&self) -> Value {
        Value::from([
            ("Type", Value::from("bind")),
            ("Source", Value::from(self.source.as_str())),
            ("Destination", Value::from(self.destination.as_str())),
            ("Mode", Value::from(self.mode.as_str())),
            ("RW", Value::from(self.writable)),
            ("Propagation", Value::from(self.propagation.as_str())),
        ])
    }
}

/// A path as the engine shows it: without empty and `.` segments, `..` applied.
fn clean(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    fn asked(document: &str) -> Asked {
        Asked::read(Value::from(document).to_string().as_bytes()).expect("the label")
    }

    #[test]
    fn binds_are_shown_as_they_were_asked_for() {
        let asked = asked(
            r#"{"Binds":["/builds/x/:/w/:ro,z","/a:/b","vol:/v"],"Mounts":[{"Type":"bind","source":"/s","Target":"/t","ReadOnly":true}]}"#,
        );
        let mut out = Vec::new();
        let mounts = br#"[{"Type":"volume","Name":"root","Destination":"/w","RW":false},{"Type":"volume","Name":"vol","Destination":"/v"},{"Type":"volume","Destination":"/t"},{"Destination":"/b"}]"#;
        asked.mount_points(mounts, &mut out).expect("mounts");
        assert_eq!(
            String::from_utf8_lossy(&out),
            concat!(
                r#"[{"Type":"bind","Source":"/builds/x","Destination":"/w","Mode":"ro,z","RW":false,"Propagation":"rprivate"},"#,
                r#"{"Type":"volume","Name":"vol","Destination":"/v"},"#,
                r#"{"Type":"bind","Source":"/s","Destination":"/t","Mode":"","RW":false,"Propagation":"rprivate"},"#,
                r#"{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true,"Propagation":"rprivate"}]"#
            )
        );
    }

    #[test]
    fn the_host_config_is_as_it_was_asked_for() {
        for (label, before, after) in [
            (
                r#"{"Binds":["/a:/b"],"Mounts":null,"Restart":{"Name":"always"}}"#,
                r#"{"Binds":null,"RestartPolicy":{"Name":"no"},"Mounts":[{}]}"#,
                r#"{"Binds":["/a:/b"],"RestartPolicy":{"Name":"always"}}"#,
            ),
            (
                r#"{"Mounts":[{"Type":"bind"}]}"#,
                r#"{"Binds":["/x:/y"],"RestartPolicy":{"Name":"no"}}"#,
                r#"{"Binds":["/x:/y"],"RestartPolicy":{"Name":"no"},"Mounts":[{"Type":"bind"}]}"#,
            ),
            (
                r#"{"Mounts":[{"Type":"bind"}]}"#,
                r#"{"Binds":null,"Mounts":[{},{}]}"#,
                r#"{"Binds":null,"Mounts":[{"Type":"bind"}]}"#,
            ),
            ("{}", r#"{"Binds":null,"Mounts":[]}"#, r#"{"Binds":null,"Mounts":[]}"#),
        ] {
            let mut out = Vec::new();
            asked(label).host_config(before.as_bytes(), &mut out).expect(label);
            assert_eq!(String::from_utf8_lossy(&out), after);
        }
    }

    #[test]
    fn a_label_that_cannot_be_read_restores_nothing() {
        for label in ["1", r#""""#, r#""[]""#, r#""{""#] {
            assert!(Asked::read(label.as_bytes()).is_none(), "{label}");
        }
    }
}
