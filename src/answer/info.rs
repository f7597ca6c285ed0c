//! `GET /info`: known fields, own counts; nothing of the host's other tenants, its proxies, or its registries'
//! credentials.

use super::upstream::OwnContainers;
use crate::json::{Object, Value};

/// What is done with a field.
enum Treat {
    /// It says what the engine is and can do.
    Pass,
    /// The number of something, of the agent's own.
    Count(i64),
    /// It sums up all tenants' activity: `0`.
    Zero,
    /// It may hold addresses or credentials: empty, of the same shape.
    Empty,
    /// Addresses of registries, without the credentials that they may hold.
    Registries,
    /// Not part of a swarm.
    Swarm,
    /// Not shown.
    Hide,
}

/// The answer for the agent.
pub fn shown(info: Object, own: &OwnContainers, images: i64) -> Object {
    let stopped = own.count() - own.running - own.paused;
    info.into_iter()
        .filter_map(|(key, value)| {
            let treat = match key.as_str() {
                "Containers" => Treat::Count(own.count()),
                "ContainersRunning" => Treat::Count(own.running),
                "ContainersPaused" => Treat::Count(own.paused),
                "ContainersStopped" => Treat::Count(stopped),
                "Images" => Treat::Count(images),
                "NFd" | "NGoroutines" | "NEventsListener" => Treat::Zero,
                "HttpProxy" | "HttpsProxy" | "NoProxy" | "Labels" | "GenericResources" | "ClusterStore"
                | "ClusterAdvertise" => Treat::Empty,
                "RegistryConfig" => Treat::Registries,
                "Swarm" => Treat::Swarm,
                "ID"
                | "Driver"
                | "DriverStatus"
                | "SystemStatus"
                | "Plugins"
                | "MemoryLimit"
                | "SwapLimit"
                | "KernelMemory"
                | "KernelMemoryTCP"
                | "CpuCfsPeriod"
                | "CpuCfsQuota"
                | "CPUShares"
                | "CPUSet"
                | "PidsLimit"
                | "IPv4Forwarding"
                | "BridgeNfIptables"
                | "BridgeNfIp6tables"
                | "Debug"
                | "OomKillDisable"
                | "SystemTime"
                | "LoggingDriver"
                | "CgroupDriver"
                | "CgroupVersion"
                | "KernelVersion"
                | "OperatingSystem"
                | "OSVersion"
                | "OSType"
                | "Architecture"
                | "IndexServerAddress"
                | "NCPU"
                | "MemTotal"
                | "DockerRootDir"
                | "Name"
                | "ExperimentalBuild"
                | "ServerVersion"
                | "Runtimes"
                | "DefaultRuntime"
                | "LiveRestoreEnabled"
                | "Isolation"
                | "InitBinary"
                | "ContainerdCommit"
                | "RuncCommit"
                | "InitCommit"
                | "SecurityOptions"
                | "ProductLicense"
                | "DefaultAddressPools"
                | "FirewallBackend"
                | "CDISpecDirs"
                | "Containerd"
                | "Warnings" => Treat::Pass,
                // What is not known may tell anything.
                _ => Treat::Hide,
            };
            let value = match treat {
                Treat::Pass => value,
                Treat::Count(n) => n.into(),
                Treat::Zero => 0.into(),
                Treat::Empty => match value {
                    Value::String(_) => "".into(),
                    Value::Array(_) => Value::Array(Vec::new()),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Value::Null,
                },
                Treat::Registries => without_credentials(value),
                Treat::Swarm => swarm(),
                Treat::Hide => return None,
            };
            Some((key, value))
        })
        .collect()
}

fn swarm() -> Value {
    Value::from([
        ("NodeID", Value::from("")),
        ("NodeAddr", Value::from("")),
        ("LocalNodeState", Value::from("inactive")),
        ("ControlAvailable", Value::from(false)),
        ("Error", Value::from("")),
        ("RemoteManagers", Value::Null),
    ])
}

/// Takes the user and the password out of every address (`https://user:password@mirror/`).
fn without_credentials(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(match text.split_once("://") {
            Some((scheme, rest)) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                // An address's parameters may be credentials as well.
                let path = path.split(['?', '#']).next().unwrap_or_default();
                format!("{scheme}://{host}{path}")
            }
            None => text,
        }),
        Value::Array(items) => Value::Array(items.into_iter().map(without_credentials).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(k, v)| (k, without_credentials(v))).collect())
        }
        other => other,
    }
}
