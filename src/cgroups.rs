//! The cgroups of a process, which name its container: `/docker/ID`, `/ecs/TASK/ID`, `docker-ID.scope` below any slice,
//! absolute or as a cgroup name space shows them (`/../../TASK/ID`), version 1 and 2.

use std::io;

/// The lines of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// The hierarchy's controllers; empty for version 2.
    hierarchy: String,
    path: String,
}

impl Cgroups {
    /// Those of the process of this number.
    ///
    /// # Errors
    /// There is no such process, or it cannot be seen.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?))
    }

    /// Those of this process.
    ///
    /// # Errors
    /// They cannot be seen.
    pub fn own() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/cgroup")?))
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some(Line { hierarchy: fields.next()?.to_owned(), path: fields.next()?.to_owned() })
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The container IDs that stand in the paths, innermost first, each once.
    pub fn container_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for line in &self.0 {
            for id in line.path.rsplit('/').filter_map(container_id) {
                if !ids.iter().any(|known| known == id) {
                    ids.push(id.to_owned());
                }
            }
        }
        ids
    }

    /// Those of the container of this ID, whose first process has these: up to the ones that bear its name, since that
    /// process may have put itself below. Nothing where none bears it.
    pub fn of_container(&self, id: &str) -> Option<Self> {
        let up_to = |line: &Line| {
            let mut taken = 0;
            let named = line.path.split('/').find_map(|part| {
                taken += part.len() + 1;
                (container_id(part) == Some(id)).then_some(taken - 1)
            });
            named.and_then(|end| line.path.get(..end)).map(str::to_owned)
        };
        let line = |line: &Line| Line {
            hierarchy: line.hierarchy.clone(),
            path: up_to(line).unwrap_or_else(|| line.path.clone()),
        };
        self.0.iter().any(|line| up_to(line).is_some()).then(|| Self(self.0.iter().map(line).collect()))
    }

    /// Are these the cgroups of that container, or below? (A cgroup that somebody made below its own and named after
    /// another container lies elsewhere.)
    pub fn within(&self, container: &Self) -> bool {
        container.0.iter().all(|there| {
            self.0.iter().any(|here| {
                let below = || here.path.strip_prefix(there.path.trim_end_matches('/'));
                here.hierarchy == there.hierarchy
                    && below().is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
    }

    /// The cgroup that new containers can be put under so that they count where this process does; the engine says its
    /// cgroup driver and version.
    ///
    /// # Errors
    /// One sentence, where there is none.
    pub fn parent(&self, driver: &str, version: &str) -> Result<String, String> {
        let path_of = |wanted: &str| {
            let has = |line: &&Line| line.hierarchy.split(',').any(|controller| controller == wanted);
            self.0.iter().find(has).map(|line| line.path.as_str())
        };
        let path = if version == "2" { path_of("") } else { path_of("memory").or_else(|| path_of("")) };
        let path = path.ok_or("this process is in no cgroup that could be seen")?;
        let parent = match (driver, version) {
            // The innermost slice: a service or a scope cannot be a parent.
            ("systemd", _) => path.split('/').rfind(|part| part.ends_with(".slice")).unwrap_or_default(),
            // A cgroup that has processes of its own cannot have children that are limited.
            (_, "2") => path.rsplit_once('/').map(|(parent, _)| parent).unwrap_or_default(),
            _ => path.trim_end_matches('/'),
        };
        if parent.is_empty() || parent.contains("..") {
            return Err(format!("this process is in cgroup {path}, below which nothing can be put"));
        }
        Ok(parent.to_owned())
    }
}

/// The container ID that a component of a cgroup's path is made of.
pub fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit('-').next().unwrap_or(name);
    (id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn container_ids_are_found_in_every_spelling() {
        for (cgroups, expected) in [
            (format!("4:memory:/docker/{A}\n1:name=systemd:/docker/{A}"), vec![A]),
            (format!("0::/system.slice/docker-{A}.scope"), vec![A]),
            (format!("3:cpu:/ecs/0123456789abcdef0123456789abcdef/{A}"), vec![A]),
            (format!("0::/ecstasks.slice/ecstasks-1.slice/docker-{A}.scope"), vec![A]),
            (format!("0::/docker/{A}/{B}"), vec![B, A]),
            (format!("0::/docker/{A}/x:y/{B}:"), vec![A]),
            (format!("0::/../../task/{A}"), vec![A]),
            (format!("0::/../docker-{A}.scope/init.scope"), vec![A]),
            ("0::/user.slice/user-aaaaaaaaaaaa.slice".to_owned(), vec![]),
            (format!("0::/docker/{}", A.to_uppercase()), vec![]),
            ("0::/".to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            assert_eq!(Cgroups::parse(&cgroups).container_ids(), expected, "{cgroups}");
        }
    }

    #[test]
    fn a_process_is_in_a_container_whose_own_cgroups_hold_it() {
        for (process, first, id, expected) in [
            (format!("0::/docker/{A}"), format!("0::/docker/{A}"), A, true),
            (format!("0::/docker/{A}/sub"), format!("0::/docker/{A}"), A, true),
            (
                format!("2:cpu:/ecs/t/{A}\n1:memory:/ecs/t/{A}/x"),
                format!("1:memory:/ecs/t/{A}\n2:cpu:/ecs/t/{A}"),
                A,
                true,
            ),
            (format!("0::/../{A}"), format!("0::/../{A}"), A, true),
            (format!("3:misc:/\n1:memory:/docker/{A}"), format!("3:misc:/\n1:memory:/docker/{A}"), A, true),
            // One that is named after another container.
            (format!("0::/docker/{A}/{B}"), format!("0::/docker/{B}"), B, false),
            (format!("0::/docker/{A}/docker-{B}.scope"), format!("0::/system.slice/docker-{B}.scope"), B, false),
            // A part of the name.
            (format!("0::/docker/{A}x"), format!("0::/docker/{A}"), A, false),
            // The container's own cgroups say nothing of it.
            ("0::/".to_owned(), "0::/".to_owned(), A, false),
            (format!("0::/docker/{A}"), "0::/".to_owned(), A, false),
            // Its first process has put itself below.
            (format!("0::/docker/{A}"), format!("0::/docker/{A}/init"), A, true),
            (format!("0::/x/docker-{A}.scope/y"), format!("0::/x/docker-{A}.scope/init.scope"), A, true),
            // A hierarchy is missing, or another.
            (format!("1:memory:/docker/{A}"), format!("2:cpu:/docker/{A}\n1:memory:/docker/{A}"), A, false),
            (format!("1:memory:/docker/{A}\n2:cpu:/"), format!("2:cpu:/docker/{A}\n1:memory:/docker/{A}"), A, false),
        ] {
            let (process_in, first_in) = (Cgroups::parse(&process), Cgroups::parse(&first));
            let container = first_in.of_container(id);
            assert_eq!(container.is_some_and(|container| process_in.within(&container)), expected, "{process} {first}");
        }
    }

    #[test]
    fn the_parent_is_one_that_the_engines_driver_takes() {
        for (cgroups, driver, version, expected) in [
            ("4:memory:/ci/one\n0::/", "cgroupfs", "1", Some("/ci/one")),
            ("4:cpu,memory:/ci", "cgroupfs", "1", Some("/ci")),
            ("4:memory:/", "cgroupfs", "1", None),
            ("0::/system.slice/sockguard.service", "systemd", "2", Some("system.slice")),
            ("0::/ci.slice/ci-a.slice/run-1.scope", "systemd", "2", Some("ci-a.slice")),
            ("0::/ci/one", "cgroupfs", "2", Some("/ci")),
            ("0::/ci", "cgroupfs", "2", None),
            ("0::/../x/y", "cgroupfs", "2", None),
            ("0::/", "systemd", "2", None),
            ("", "systemd", "2", None),
        ] {
            assert_eq!(Cgroups::parse(cgroups).parent(driver, version).ok().as_deref(), expected, "{cgroups} {driver}");
        }
    }
}
