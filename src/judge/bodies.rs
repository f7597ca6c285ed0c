//! Every field of every JSON body that the guards of this folder read, with its treatment.
//! `tests/api.rs` holds them against the Engine API's facts.

use crate::schema::{Field, Shape, Treat, field};
use Shape::{Bool, Int, Ints, Ports, Set, Text, TextLists, TextMap, Texts, Words};
use Treat::{Drop, Each, Judged, Map, Null, Object, Plain, Silent};

/// Host devices are named here by path; that alone tells whether they exist.
const DEVICES: &str = "";

/// `POST /containers/create`. Before API 1.46 the engine also reads the fields of `HostConfig` beside it; they are
/// not known here, so they are refused, and a `HostConfig` is always sent.
pub static CONTAINER_CREATE: &[Field] = &[
    field("Hostname", Plain(Text)),
    field("Domainname", Plain(Text)),
    field("User", Judged(Text)),
    field("AttachStdin", Plain(Bool)),
    field("AttachStdout", Plain(Bool)),
    field("AttachStderr", Plain(Bool)),
    field("ExposedPorts", Plain(Set)),
    field("Tty", Plain(Bool)),
    field("OpenStdin", Plain(Bool)),
    field("StdinOnce", Plain(Bool)),
    field("Env", Plain(Texts)),
    field("Cmd", Plain(Words)),
    field("Healthcheck", Object(HEALTHCHECK)),
    field("ArgsEscaped", Plain(Bool)),
    field("Image", Judged(Text)),
    field("Volumes", Judged(Set)),
    field("WorkingDir", Plain(Text)),
    field("Entrypoint", Plain(Words)),
    field("NetworkDisabled", Plain(Bool)),
    field("MacAddress", Plain(Text)),
    field("OnBuild", Plain(Texts)),
    field("Labels", Judged(TextMap)),
    field("StopSignal", Plain(Text)),
    field("StopTimeout", Plain(Int)),
    field("Shell", Plain(Words)),
    field("HostConfig", Object(HOST_CONFIG)),
    field("NetworkingConfig", Object(&[field("EndpointsConfig", Map(ENDPOINT))])),
];

/// `Healthcheck` of a container or an image: commands that run inside the container.
pub static HEALTHCHECK: &[Field] = &[
    field("Test", Plain(Texts)),
    field("Interval", Plain(Int)),
    field("Timeout", Plain(Int)),
    field("Retries", Plain(Int)),
    field("StartPeriod", Plain(Int)),
    field("StartInterval", Plain(Int)),
];

/// `HostConfig`.
pub static HOST_CONFIG: &[Field] = &[
    field("Binds", Judged(Texts)),
    // A path on the client's side, which the client writes itself.
    field("ContainerIDFile", Plain(Text)),
    field("LogConfig", Object(&[field("Type", Judged(Text)), field("Config", Judged(TextMap))])),
    field("NetworkMode", Judged(Text)),
    field("PortBindings", Judged(Ports)),
    field("RestartPolicy", Object(RESTART_POLICY)),
    field("AutoRemove", Plain(Bool)),
    field("VolumeDriver", Judged(Text)),
    field("VolumesFrom", Judged(Texts)),
    field("Mounts", Each(MOUNT)),
    field("ConsoleSize", Plain(Ints)),
    // Runtimes take orders from annotations, some of which name host paths.
    field("Annotations", Silent("")),
    field("CapAdd", Judged(Words)),
    field("CapDrop", Plain(Words)),
    field("CgroupnsMode", Judged(Text)),
    field("Dns", Plain(Texts)),
    field("DnsOptions", Plain(Texts)),
    field("DnsSearch", Plain(Texts)),
    field("ExtraHosts", Plain(Texts)),
    field("GroupAdd", Plain(Texts)),
    field("IpcMode", Judged(Text)),
    field("Cgroup", Silent("")),
    field("Links", Judged(Texts)),
    // A negative one makes the kernel kill the host's own processes first.
    field("OomScoreAdj", Judged(Int)),
    field("PidMode", Judged(Text)),
    field("Privileged", Judged(Bool)),
    field("PublishAllPorts", Judged(Bool)),
    field("ReadonlyRootfs", Plain(Bool)),
    field("SecurityOpt", Judged(Texts)),
    field("StorageOpt", Judged(TextMap)),
    // The engine checks the options; the target is in the container.
    field("Tmpfs", Plain(TextMap)),
    field("UTSMode", Judged(Text)),
    field("UsernsMode", Judged(Text)),
    field("ShmSize", Plain(Int)),
    field("Sysctls", Judged(TextMap)),
    field("Runtime", Judged(Text)),
    field("Isolation", Judged(Text)),
    field("MaskedPaths", Null("")),
    field("ReadonlyPaths", Null("")),
    // What follows are the resources, which an update takes too.
    field("CpuShares", Plain(Int)),
    field("Memory", Judged(Int)),
    field("NanoCpus", Judged(Int)),
    field("CgroupParent", Judged(Text)),
    field("BlkioWeight", Plain(Int)),
    field("BlkioWeightDevice", Silent(DEVICES)),
    field("BlkioDeviceReadBps", Silent(DEVICES)),
    field("BlkioDeviceWriteBps", Silent(DEVICES)),
    field("BlkioDeviceReadIOps", Silent(DEVICES)),
    field("BlkioDeviceWriteIOps", Silent(DEVICES)),
    field("CpuPeriod", Judged(Int)),
    field("CpuQuota", Judged(Int)),
    // Real-time tasks can starve the host.
    field("CpuRealtimePeriod", Silent("")),
    field("CpuRealtimeRuntime", Silent("")),
    field("CpusetCpus", Plain(Text)),
    field("CpusetMems", Plain(Text)),
    field("Devices", Each(DEVICE)),
    field("DeviceCgroupRules", Silent("")),
    field("DeviceRequests", Each(DEVICE_REQUEST)),
    field("KernelMemory", Plain(Int)),
    field("KernelMemoryTCP", Plain(Int)),
    field("MemoryReservation", Plain(Int)),
    field("MemorySwap", Plain(Int)),
    field("MemorySwappiness", Plain(Int)),
    // A container that the kernel may not kill takes the host down in its place.
    field("OomKillDisable", Silent("")),
    field("Init", Plain(Bool)),
    field("PidsLimit", Judged(Int)),
    field("Ulimits", Each(ULIMIT)),
    // For Windows hosts.
    field("CpuCount", Silent("")),
    field("CpuPercent", Silent("")),
    field("IOMaximumIOps", Silent("")),
    field("IOMaximumBandwidth", Silent("")),
];

/// `POST /containers/{id}/update`.
pub static CONTAINER_UPDATE: &[Field] = &[
    field("RestartPolicy", Object(RESTART_POLICY)),
    field("CpuShares", Plain(Int)),
    field("Memory", Judged(Int)),
    field("NanoCpus", Judged(Int)),
    field("CgroupParent", Silent("")),
    field("BlkioWeight", Plain(Int)),
    field("BlkioWeightDevice", Silent(DEVICES)),
    field("BlkioDeviceReadBps", Silent(DEVICES)),
    field("BlkioDeviceWriteBps", Silent(DEVICES)),
    field("BlkioDeviceReadIOps", Silent(DEVICES)),
    field("BlkioDeviceWriteIOps", Silent(DEVICES)),
    field("CpuPeriod", Judged(Int)),
    field("CpuQuota", Judged(Int)),
    field("CpuRealtimePeriod", Silent("")),
    field("CpuRealtimeRuntime", Silent("")),
    field("CpusetCpus", Plain(Text)),
    field("CpusetMems", Plain(Text)),
    field("Devices", Silent("")),
    field("DeviceCgroupRules", Silent("")),
    field("DeviceRequests", Silent("")),
    field("KernelMemory", Plain(Int)),
    field("KernelMemoryTCP", Plain(Int)),
    field("MemoryReservation", Plain(Int)),
    field("MemorySwap", Plain(Int)),
    field("MemorySwappiness", Plain(Int)),
    field("OomKillDisable", Silent("")),
    field("Init", Plain(Bool)),
    field("PidsLimit", Judged(Int)),
    field("Ulimits", Each(ULIMIT)),
    field("CpuCount", Silent("")),
    field("CpuPercent", Silent("")),
    field("IOMaximumIOps", Silent("")),
    field("IOMaximumBandwidth", Silent("")),
];

static RESTART_POLICY: &[Field] = &[field("Name", Judged(Text)), field("MaximumRetryCount", Plain(Int))];

static DEVICE: &[Field] = &[
    field("PathOnHost", Judged(Text)),
    field("PathInContainer", Plain(Text)),
    field("CgroupPermissions", Plain(Text)),
];

static DEVICE_REQUEST: &[Field] = &[
    field("Driver", Plain(Text)),
    field("Count", Plain(Int)),
    field("DeviceIDs", Plain(Texts)),
    field("Capabilities", Plain(TextLists)),
    field("Options", Plain(TextMap)),
];

static ULIMIT: &[Field] = &[field("Name", Judged(Text)), field("Soft", Plain(Int)), field("Hard", Plain(Int))];

static MOUNT: &[Field] = &[
    field("Type", Judged(Text)),
    field("Source", Judged(Text)),
    field("Target", Judged(Text)),
    field("ReadOnly", Plain(Bool)),
    field("Consistency", Plain(Text)),
    field(
        "BindOptions",
        Object(&[
            field("Propagation", Judged(Text)),
            field("NonRecursive", Plain(Bool)),
            field("CreateMountpoint", Plain(Bool)),
            field("ReadOnlyNonRecursive", Plain(Bool)),
            field("ReadOnlyForceRecursive", Plain(Bool)),
        ]),
    ),
    field(
        "VolumeOptions",
        Object(&[
            field("NoCopy", Plain(Bool)),
            field("Labels", Judged(TextMap)),
            field("DriverConfig", Object(&[field("Name", Judged(Text)), field("Options", Judged(TextMap))])),
            field("Subpath", Plain(Text)),
        ]),
    ),
    field("ImageOptions", Object(&[field("Subpath", Plain(Text))])),
    field(
        "TmpfsOptions",
        Object(&[field("SizeBytes", Plain(Int)), field("Mode", Plain(Int)), field("Options", Plain(TextLists))]),
    ),
    field("ClusterOptions", Silent("")),
];

/// An endpoint of a container in a network.
pub static ENDPOINT: &[Field] = &[
    field(
        "IPAMConfig",
        Object(&[
            field("IPv4Address", Plain(Text)),
            field("IPv6Address", Plain(Text)),
            // Addresses such as the instance metadata service's.
            field("LinkLocalIPs", Silent("")),
        ]),
    ),
    field("Links", Judged(Texts)),
    field("Aliases", Plain(Texts)),
    field("MacAddress", Plain(Text)),
    field("DriverOpts", Judged(TextMap)),
    field("GwPriority", Plain(Int)),
    // The ID of the network that was checked is put here: the engine prefers it to the name, at every start.
    field("NetworkID", Drop),
    // The engine fills these in.
    field("EndpointID", Drop),
    field("Gateway", Drop),
    field("IPAddress", Drop),
    field("IPPrefixLen", Drop),
    field("IPv6Gateway", Drop),
    field("GlobalIPv6Address", Drop),
    field("GlobalIPv6PrefixLen", Drop),
    field("DNSNames", Drop),
];

/// `POST /containers/{id}/exec`.
pub static EXEC_CREATE: &[Field] = &[
    field("AttachStdin", Plain(Bool)),
    field("AttachStdout", Plain(Bool)),
    field("AttachStderr", Plain(Bool)),
    field("ConsoleSize", Plain(Ints)),
    field("Detach", Plain(Bool)),
    field("DetachKeys", Plain(Text)),
    field("Tty", Plain(Bool)),
    field("Env", Plain(Texts)),
    field("Cmd", Plain(Words)),
    field("Privileged", Judged(Bool)),
    field("User", Judged(Text)),
    field("WorkingDir", Plain(Text)),
    // docker-py repeats what the path says.
    field("Container", Drop),
];

/// `POST /exec/{id}/start`.
pub static EXEC_START: &[Field] = &[
    field("Detach", Judged(Bool)),
    field("Tty", Plain(Bool)),
    field("ConsoleSize", Plain(Ints)),
    // The engine of API 1.45 reads them by mistake, and dockerode sends `stdin`.
    field("Stdin", Drop),
    field("Stdout", Drop),
    field("Stderr", Drop),
    // dockerode sends it.
    field("hijack", Drop),
];

/// `POST /networks/create`.
pub static NETWORK_CREATE: &[Field] = &[
    field("Name", Judged(Text)),
    field("CheckDuplicate", Plain(Bool)),
    field("Driver", Judged(Text)),
    field("Scope", Judged(Text)),
    field("Internal", Plain(Bool)),
    field("Attachable", Plain(Bool)),
    field("Ingress", Silent("")),
    field("ConfigOnly", Silent("")),
    field("ConfigFrom", Object(&[field("Network", Silent(""))])),
    field(
        "IPAM",
        Object(&[
            field("Driver", Judged(Text)),
            field(
                "Config",
                Each(&[
                    field("Subnet", Judged(Text)),
                    field("IPRange", Judged(Text)),
                    field("Gateway", Judged(Text)),
                    field("AuxiliaryAddresses", Plain(TextMap)),
                ]),
            ),
            field("Options", Silent("")),
        ]),
    ),
    field("EnableIPv4", Plain(Bool)),
    field("EnableIPv6", Plain(Bool)),
    field("Options", Judged(TextMap)),
    field("Labels", Judged(TextMap)),
];

/// `POST /networks/{id}/connect`.
pub static NETWORK_CONNECT: &[Field] = &[field("Container", Judged(Text)), field("EndpointConfig", Object(ENDPOINT))];

/// `POST /networks/{id}/disconnect`.
pub static NETWORK_DISCONNECT: &[Field] = &[field("Container", Judged(Text)), field("Force", Plain(Bool))];

/// `POST /volumes/create`.
pub static VOLUME_CREATE: &[Field] = &[
    field("Name", Judged(Text)),
    field("Driver", Judged(Text)),
    field("DriverOpts", Judged(TextMap)),
    field("Labels", Judged(TextMap)),
    field("ClusterVolumeSpec", Silent("")),
];

/// `PUT /volumes/{name}`: only cluster volumes can be changed.
pub static VOLUME_UPDATE: &[Field] = &[field("Spec", Silent(""))];

/// `POST /auth`.
pub static AUTH: &[Field] = &[
    field("username", Plain(Text)),
    field("password", Plain(Text)),
    field("email", Plain(Text)),
    field("serveraddress", Judged(Text)),
    field("identitytoken", Plain(Text)),
    field("registrytoken", Plain(Text)),
    field("auth", Plain(Text)),
];
