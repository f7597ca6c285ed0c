//! What the fake engine holds: ready answers, made once.

use serde_json::{Value, json};

pub const OWNER_LABEL: &str = "com.buildkite.sockguard.owner";
pub const OWNER: &str = "bench";
/// What sockguard puts on the containers of `bench`, where no key is configured.
const SEAL_LABEL: &str = "com.buildkite.sockguard.seal";
const SEAL: &str = "08d974ede65af7d5386b578b0889817a";
/// And the image that they were judged by.
const IMAGE_LABEL: &str = "com.buildkite.sockguard.image";
/// The container that every case about one container uses.
pub const CONTAINER: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
pub const CONTAINERS: usize = 1000;
/// Size of one list entry: 1,000 of them are 1 MiB.
const ENTRY: usize = 1048;
const INSPECT: usize = 4096;

pub struct World {
    pub version: Vec<u8>,
    pub info: Vec<u8>,
    container: String,
    pub image: Vec<u8>,
    pub network: Vec<u8>,
    pub networks: Vec<u8>,
    pub volume: Vec<u8>,
    pub volumes: Vec<u8>,
    entries: Vec<Value>,
    all: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
        let entries: Vec<_> = (0..CONTAINERS).map(entry).collect();
        let network = json!({
            "Name": "bench", "Id": "ab".repeat(32), "Created": "2025-01-01T00:00:00Z", "Scope": "local",
            "Driver": "bridge", "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": {}, "Config": []},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": {OWNER_LABEL: OWNER}
        });
        let volume = json!({
            "CreatedAt": "2025-01-01T00:00:00Z", "Driver": "local", "Labels": {OWNER_LABEL: OWNER},
            "Mountpoint": "/var/lib/docker/volumes/bench/_data", "Name": "bench", "Options": null, "Scope": "local"
        });
        Self {
            version: text(&json!({
                "Platform": {"Name": "Docker Engine - Community"}, "Version": "27.5.1", "ApiVersion": "1.47",
                "MinAPIVersion": "1.24", "GitCommit": "4c9b3b0", "GoVersion": "go1.22.11", "Os": "linux",
                "Arch": "amd64", "KernelVersion": "6.1.0", "BuildTime": "2025-01-22T13:41:24.000000000+00:00"
            })),
            info: text(&json!({
                "ID": "bench", "Containers": CONTAINERS, "Images": 1, "Driver": "overlay2", "CgroupDriver": "systemd",
                "CgroupVersion": "2", "OSType": "linux", "Architecture": "x86_64", "ServerVersion": "27.5.1",
                "DockerRootDir": "/var/lib/docker", "Swarm": {"LocalNodeState": "inactive"}
            })),
            container: container().to_string(),
            image: text(&image()),
            networks: text(&json!([network])),
            network: text(&network),
            volumes: text(&json!({"Volumes": [volume], "Warnings": null})),
            volume: text(&volume),
            all: text(&Value::Array(entries.clone())),
            entries,
        }
    }

    /// A container's inspection, whichever it is.
    pub fn container(&self, id: &str) -> Vec<u8> {
        match id.len() {
            64 => self.container.replacen(CONTAINER, id, 1).into_bytes(),
            _ => self.container.clone().into_bytes(),
        }
    }

    /// The container list, cut short where the client asked for it.
    pub fn containers(&self, limit: Option<usize>) -> Vec<u8> {
        match limit {
            Some(limit) => text(&Value::Array(self.entries.iter().take(limit).cloned().collect())),
            None => self.all.clone(),
        }
    }
}

pub fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Fills a label of `value` until it is `size` bytes long as text.
fn pad(mut value: Value, pointer: &str, size: usize) -> Value {
    let short = size.saturating_sub(value.to_string().len());
    if let Some(label) = value.pointer_mut(pointer) {
        *label = Value::from("x".repeat(short));
    }
    value
}

fn image_id() -> String {
    format!("sha256:{}", "5e".repeat(32))
}

fn entry(number: usize) -> Value {
    let value = json!({
        "Id": format!("{number:064x}"), "Names": [format!("/build-{number:04}")], "Image": "alpine:3.20",
        "ImageID": image_id(), "Command": "/bin/sh -c 'make test'", "Created": 1735689600,
        "Ports": [{"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 32768, "Type": "tcp"}],
        "Labels": labels(),
        "State": "running", "Status": "Up 5 minutes", "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": endpoint()}}, "Mounts": []
    });
    pad(value, "/Labels/padding", ENTRY)
}

/// As docker-compose sets them.
fn labels() -> Value {
    json!({
        "com.docker.compose.config-hash": "0123456789abcdef", "com.docker.compose.container-number": "1",
        "com.docker.compose.depends_on": "", "com.docker.compose.oneoff": "False",
        "com.docker.compose.project": "build", "com.docker.compose.service": "tests", OWNER_LABEL: OWNER, SEAL_LABEL: SEAL,
        IMAGE_LABEL: image_id(),
        "padding": ""
    })
}

fn endpoint() -> Value {
    json!({
        "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "02:42:ac:11:00:02", "NetworkID": "7e57",
        "EndpointID": "e7d0", "Gateway": "172.17.0.1", "IPAddress": "172.17.0.2", "IPPrefixLen": 16,
        "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
    })
}

fn container() -> Value {
    let value = json!({
        "Id": CONTAINER, "Created": "2025-01-01T00:00:00Z", "Path": "/bin/sh", "Args": ["-c", "make test"],
        "State": {
            "Status": "running", "Running": true, "Paused": false, "Restarting": false, "OOMKilled": false,
            "Dead": false, "Pid": 4242, "ExitCode": 0, "Error": "", "StartedAt": "2025-01-01T00:00:01Z",
            "FinishedAt": "0001-01-01T00:00:00Z"
        },
        "Image": image_id(), "Name": "/build", "RestartCount": 0, "Driver": "overlay2",
        "HostConfig": {
            "Binds": null, "LogConfig": {"Type": "json-file", "Config": {}}, "NetworkMode": "bridge",
            "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
            "Privileged": false, "Memory": 0, "NanoCpus": 0, "PidMode": "", "IpcMode": "private"
        },
        "Mounts": [],
        "Config": {
            "Hostname": "c0ffee00c0ff", "User": "", "Tty": false, "OpenStdin": true, "Env": ["PATH=/usr/bin:/bin"],
            "Cmd": ["-c", "make test"], "Image": "alpine:3.20", "WorkingDir": "/w", "Entrypoint": ["/bin/sh"],
            "Labels": labels()
        },
        "NetworkSettings": {"Bridge": "", "Ports": {}, "Networks": {"bridge": endpoint()}}
    });
    pad(value, "/Config/Labels/padding", INSPECT)
}

fn image() -> Value {
    json!({
        "Id": image_id(), "RepoTags": ["alpine:3.20"],
        "RepoDigests": [format!("alpine@sha256:{}", "d1".repeat(32))], "Created": "2025-01-01T00:00:00Z",
        "Architecture": "amd64", "Os": "linux", "Size": 8000000,
        "Config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"], "Labels": null},
        "RootFS": {"Type": "layers", "Layers": [format!("sha256:{}", "1a".repeat(32))]}
    })
}
