//! Containers of an engine that hears late of what became of them, and the check of a bind that they could swap.

use super::fake::{Message, Peer, Setup, guard_alone, json, run, world};
use sockguard::hold;
use sockguard::owner::{OWNER_LABEL, Owner, SEAL_LABEL};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

const RUNS: &str = "runs";
/// It was let go on a moment ago.
const LATE: &str = "late";
/// Its user has paused it.
const RESTS: &str = "rests";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
}

/// A container, and what the engine takes it for.
struct Container {
    is: State,
    listed: State,
}

type Swap = Box<dyn Fn()>;

/// What the engine has.
struct Machine {
    containers: BTreeMap<&'static str, Container>,
    /// What the volumes that were made say is paused.
    marked: Vec<String>,
    volumes: BTreeMap<String, String>,
    /// What a container does with its last breath before it is paused.
    swap: Option<(&'static str, Swap)>,
}

impl Machine {
    fn new() -> Rc<RefCell<Self>> {
        use State::{Paused, Running};
        let containers = [(RUNS, Running, Running), (LATE, Running, Paused), (RESTS, Paused, Paused)];
        let containers = containers.map(|(id, is, listed)| (id, Container { is, listed })).into();
        Rc::new(RefCell::new(Self { containers, marked: Vec::new(), volumes: BTreeMap::new(), swap: None }))
    }

    fn states(&self) -> Vec<(&'static str, State)> {
        self.containers.iter().map(|(id, container)| (*id, container.is)).collect()
    }

    fn answer(&mut self, request: &Message) -> String {
        let mut words = request.first_line().split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let path: Vec<&str> = target.split('?').next().unwrap().split('/').skip(1).collect();
        match (method, path.as_slice()) {
            ("GET", ["containers", "json"]) => json("200 OK", &self.list()),
            ("GET", ["containers", id, "json"]) => match self.containers.get(id) {
                Some(Container { listed, .. }) => json(
                    "200 OK",
                    &format!(
                        r#"{{"Id":"{id}","State":{{"Running":true,"Paused":{}}},"ExecIDs":null}}"#,
                        *listed == State::Paused
                    ),
                ),
                // Where the test runs is asked for, too.
                None => json("404 Not Found", r#"{"message":"No such container"}"#),
            },
            ("POST", ["containers", id, "pause"]) => self.pause(id),
            ("POST", ["containers", id, "unpause"]) => self.unpause(id),
            ("POST", ["volumes", "create"]) => {
                let volume = sockguard::json::parse(request.body.as_bytes()).unwrap();
                let text = |path: &[&str]| volume.at(path).unwrap().as_str().unwrap().to_owned();
                let paused = text(&["Labels", sockguard::owner::PAUSED_LABEL]);
                if !text(&["Name"]).starts_with(hold::RESTED_PREFIX) {
                    self.marked.extend(paused.split(',').map(str::to_owned));
                }
                self.volumes.insert(text(&["Name"]), paused);
                json("201 Created", &request.body)
            }
            ("DELETE", ["volumes", name]) => {
                self.volumes.remove(*name).unwrap();
                json("204 No Content", "")
            }
            _ => unreachable!("{target}"),
        }
    }

    fn list(&self) -> String {
        let seal = Owner::new("me").unwrap().seal().to_owned();
        let labels = format!(r#"{{"{OWNER_LABEL}":"me","{SEAL_LABEL}":"{seal}"}}"#);
        let one = |(id, container): (&&str, &Container)| {
            let state = match container.listed {
                State::Running => "running",
                State::Paused => "paused",
            };
            format!(r#"{{"Id":"{id}","State":"{state}","Mounts":[],"Labels":{labels}}}"#)
        };
        format!("[{}]", self.containers.iter().map(one).collect::<Vec<_>>().join(","))
    }

    fn pause(&mut self, id: &str) -> String {
        let container = self.containers.get_mut(id).unwrap();
        if container.listed == State::Paused {
            return json("409 Conflict", &format!(r#"{{"message":"Container {id} is already paused"}}"#));
        }
        if let Some((who, swap)) = &self.swap
            && *who == id
        {
            swap();
        }
        *container = Container { is: State::Paused, listed: State::Paused };
        json("204 No Content", "")
    }

    fn unpause(&mut self, id: &str) -> String {
        let container = self.containers.get_mut(id).unwrap();
        let (is, listed) = (container.is, container.listed);
        *container = Container { is: State::Running, listed: State::Running };
        match (listed, is) {
            (State::Running, _) => {
                json("500 Internal Server Error", &format!(r#"{{"message":"Container {id} is not paused"}}"#))
            }
            (State::Paused, State::Paused) => json("204 No Content", ""),
            // By now the engine hears of it.
            (State::Paused, State::Running) => {
                json("500 Internal Server Error", r#"{"message":"Cannot unpause container: container not paused"}"#)
            }
        }
    }
}

/// An engine that has this, and the directory `root/bind`.
async fn engine(machine: &Rc<RefCell<Machine>>) -> (Setup, PathBuf) {
    let mut setup = guard_alone(std::time::Duration::from_secs(10)).await;
    let root = setup.socket.with_file_name("root");
    std::fs::create_dir_all(root.join("bind")).unwrap();
    let machine = Rc::clone(machine);
    setup.start(move |request, mut peer: Peer| {
        let answer = machine.borrow_mut().answer(&request);
        async move {
            peer.send(answer).await;
            Some(peer)
        }
    });
    (setup, root)
}

#[test]
fn while_a_bind_is_checked_all_that_could_swap_it_is_paused_and_then_what_ran_goes_on() {
    run(async || {
        let machine = Machine::new();
        let (setup, root) = engine(&machine).await;
        let before = machine.borrow().states();
        let alone = hold::hold(&Rc::new(world(&setup.socket, &setup.upstream)), &[(root, "bind".into())]).await;
        let alone = alone.unwrap();
        let all = [LATE, RESTS, RUNS].map(|id| (id, State::Paused));
        assert_eq!(machine.borrow().states(), all);
        let mut marked = machine.borrow().marked.clone();
        marked.sort();
        assert_eq!(marked, [LATE, RUNS], "what its user has paused would go on at the next start");
        let noted: Vec<String> = machine.borrow().volumes.values().filter(|ids| *ids == RESTS).cloned().collect();
        assert_eq!(noted, [RESTS], "what its user has paused would not be paused again at the next start");
        alone.end().await;
        assert_eq!(machine.borrow().states(), before);
        assert_eq!(machine.borrow().volumes, BTreeMap::new());
    });
}

#[test]
fn what_a_container_does_until_it_is_paused_is_seen_by_the_check_whatever_it_is_listed_as() {
    for id in [RUNS, LATE] {
        run(async || {
            let machine = Machine::new();
            let (setup, root) = engine(&machine).await;
            let before = machine.borrow().states();
            let bind = root.join("bind");
            let swap = move || {
                std::fs::remove_dir(&bind).unwrap();
                std::os::unix::fs::symlink("/", &bind).unwrap();
            };
            machine.borrow_mut().swap = Some((id, Box::new(swap)));
            let alone = hold::hold(&Rc::new(world(&setup.socket, &setup.upstream)), &[(root, "bind".into())]).await;
            let why = alone.err().map(|refusal| refusal.message("test")).unwrap_or_default();
            assert!(why.contains("symbolic link"), "{id}: {why}");
            assert_eq!(machine.borrow().states(), before);
        });
    }
}
