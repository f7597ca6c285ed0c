"""What the sockguard stack promises."""

from pathlib import PurePosixPath

from properties import NEEDED, add, drop, holds, put, sole
from tasks import CONFIG, DOCKER_SOCKETS, PULLS_AND_LOGS, allowed, host_paths, images_are_named_by_digest, is_for_tasks_of_this_account, logs_are_kept, mounts, role, task
from template import Stack, shipped

SERVICE, TASK, CONTAINER = "Service", "TaskDefinition", "TaskDefinition/ContainerDefinitions/Name=sockguard"
LISTENER = PurePosixPath(sole(CONFIG["listener"])["socket"])
STATE = PurePosixPath(CONFIG["seal-key"]).parent
ROLE = "ExecutionRole"


def service(stack):
    return stack.one("AWS::ECS::Service")


def sockguard(stack):
    return sole(task(stack)["ContainerDefinitions"])


@holds("sockguard", drop(f"{SERVICE}/SchedulingStrategy"), put(f"{SERVICE}/SchedulingStrategy", "REPLICA"), put(f"{SERVICE}/LaunchType", "FARGATE"), put(f"{SERVICE}/DesiredCount", 1),
       put(f"{SERVICE}/CapacityProviderStrategy", [{"CapacityProvider": "spot", "Weight": 1}]), put(f"{SERVICE}/PlacementConstraints", [{"Type": "distinctInstance"}]),
       put(f"{SERVICE}/Cluster", "other"), put(f"{SERVICE}/TaskDefinition", "other"))
def one_task_on_every_host(stack):
    it = service(stack)
    assert (it.get("SchedulingStrategy"), it.get("LaunchType"), it["Cluster"], it["TaskDefinition"]) == ("DAEMON", "EC2", stack.parameters["Cluster"], "${TaskDefinition}")
    assert not {"DesiredCount", "CapacityProviderStrategy", "PlacementConstraints"} & set(it)


@holds("sockguard", put(f"{SERVICE}/DeploymentConfiguration/MaximumPercent", 200), put(f"{SERVICE}/DeploymentConfiguration/MinimumHealthyPercent", 100), drop(f"{SERVICE}/DeploymentConfiguration"))
def an_update_ends_the_old_one_before_the_new_one_starts(stack):
    configuration = service(stack).get("DeploymentConfiguration", {})
    assert (configuration.get("MaximumPercent"), configuration.get("MinimumHealthyPercent")) == (100, 0)


@holds("sockguard", put(f"{TASK}/Family", "buildkite-agent-sockguard"), put(f"{CONTAINER}/Name", "proxy"))
def the_family_is_no_agents(stack):
    """Agents are told by their family."""
    assert (task(stack)["Family"], sockguard(stack)["Name"]) == ("sockguard", "sockguard")


@holds("sockguard", drop(f"{TASK}/PidMode"), put(f"{TASK}/PidMode", "task"))
def it_sees_the_processes_of_the_host(stack):
    assert task(stack).get("PidMode") == "host"


@holds("sockguard", put(f"{TASK}/NetworkMode", "bridge"), put(f"{TASK}/NetworkMode", "host"), drop(f"{TASK}/NetworkMode"), put(f"{CONTAINER}/PortMappings", [{"ContainerPort": 80}]),
       put(f"{TASK}/IpcMode", "host"))
def it_has_no_network(stack):
    assert task(stack).get("NetworkMode") == "none" and "IpcMode" not in task(stack)
    assert not sockguard(stack).get("PortMappings")


@holds("sockguard", put(f"{CONTAINER}/Privileged", True), drop(f"{CONTAINER}/DockerSecurityOptions"), put(f"{CONTAINER}/DockerSecurityOptions", ["apparmor:unconfined"]),
       put(f"{CONTAINER}/LinuxParameters/Devices", [{"HostPath": "/dev/kmsg"}]))
def it_is_not_privileged(stack):
    it = sockguard(stack)
    assert it.get("Privileged", False) is False
    assert it.get("DockerSecurityOptions") == ["no-new-privileges"]
    assert set(it["LinuxParameters"]) == {"Capabilities"}


@holds("sockguard", drop(f"{CONTAINER}/LinuxParameters/Capabilities/Drop"), put(f"{CONTAINER}/LinuxParameters/Capabilities/Drop", ["NET_RAW"]), add(f"{CONTAINER}/LinuxParameters/Capabilities/Add", "SYS_PTRACE"),
       drop(f"{CONTAINER}/LinuxParameters"))
def it_has_one_capability(stack):
    """DAC_READ_SEARCH: directories that builds bind may be closed to others."""
    assert sockguard(stack).get("LinuxParameters", {}).get("Capabilities") == {"Drop": ["ALL"], "Add": ["DAC_READ_SEARCH"]}


@holds("sockguard", drop(f"{CONTAINER}/ReadonlyRootFilesystem"), put(f"{CONTAINER}/ReadonlyRootFilesystem", False))
def its_root_is_read_only(stack):
    assert sockguard(stack).get("ReadonlyRootFilesystem") is True


@holds("sockguard", add(f"{TASK}/Volumes", {"Name": "all", "Host": {"SourcePath": "/"}}), put(f"{CONTAINER}/MountPoints/SourceVolume=volumes/ReadOnly", False),
       put(f"{TASK}/Volumes/Name=volumes/Host/SourcePath", "/var/lib/docker"), put(f"{TASK}/Volumes/Name=state/Host/SourcePath", "/run/sockguard"),
       put(f"{CONTAINER}/MountPoints/SourceVolume=guarded/ReadOnly", True), drop(f"{CONTAINER}/MountPoints/SourceVolume=state"), drop(f"{CONTAINER}/MountPoints/SourceVolume=docker-socket"),
       put(f"{CONTAINER}/MountPoints/SourceVolume=volumes/ContainerPath", "/volumes"))
def it_has_of_the_host_what_it_needs(stack):
    """The socket, where it makes the guarded one, its key, and the volumes, of which it reads where links lead. Paths are the host's own."""
    found = {path: (volume.get("Host", {}).get("SourcePath"), read_only) for path, (volume, read_only) in mounts(stack, sockguard(stack)).items()}
    assert found == {
        CONFIG["upstream"]: (CONFIG["upstream"], False),
        str(LISTENER.parent): (str(LISTENER.parent), False),
        str(STATE): (str(STATE), False),
        "/var/lib/docker/volumes": ("/var/lib/docker/volumes", True),
    }
    assert host_paths(stack) == set(found)


@holds("sockguard", put(f"{TASK}/Volumes/Name=docker-socket/Host/SourcePath", "/tmp/docker.sock"))
def it_alone_has_the_docker_socket(stack):
    assert DOCKER_SOCKETS & host_paths(stack)
    agent = Stack(shipped("agent"), NEEDED["agent"])
    for path in host_paths(agent):
        assert not any(PurePosixPath(socket).is_relative_to(path) for socket in DOCKER_SOCKETS), path


@holds("sockguard", drop(f"{CONTAINER}/Command"), put(f"{CONTAINER}/Command", ["--config", "/etc/other.toml"]), put(f"{CONTAINER}/EntryPoint", ["sh"]), drop(f"{CONTAINER}/User"),
       put(f"{CONTAINER}/Image", "sockguard:latest"), put(f"{CONTAINER}/Essential", False), put(f"{CONTAINER}/Environment", [{"Name": "SOCKGUARD_ALLOW_BIND", "Value": "/"}]))
def it_runs_the_daemons_configuration(stack):
    it = sockguard(stack)
    assert (it.get("Command"), it.get("User"), it["Image"]) == (["--config", "/etc/sockguard/ecs-daemon.toml"], "0", stack.parameters["SockguardImage"])
    assert "EntryPoint" not in it and not it.get("Environment") and it.get("Essential", True) is True


@holds("sockguard", put("/Parameters/SockguardImage/AllowedPattern", "[a-zA-Z0-9._:/@-]+"), put("/Parameters/SockguardImage/Default", "sockguard:1"), put(f"{CONTAINER}/Image", "sockguard:1"))
def its_image_is_what_no_build_can_replace(stack):
    images_are_named_by_digest(stack)


@holds("sockguard", drop(f"{CONTAINER}/HealthCheck"), put(f"{CONTAINER}/HealthCheck/Command", ["CMD-SHELL", "exit 0"]), put(f"{CONTAINER}/HealthCheck/Command/4", "/etc/other.toml"))
def a_health_check(stack):
    """Of guard and engine; the image has no shell."""
    assert sockguard(stack).get("HealthCheck", {}).get("Command") == ["CMD", "/sockguard", "health", "--config", "/etc/sockguard/ecs-daemon.toml"]


@holds("sockguard", drop(f"{CONTAINER}/RestartPolicy"), put(f"{CONTAINER}/RestartPolicy/Enabled", False))
def it_is_restarted_in_place(stack):
    assert sockguard(stack).get("RestartPolicy", {}).get("Enabled") is True


@holds("sockguard", drop("LogGroup/RetentionInDays"), drop(f"{CONTAINER}/LogConfiguration"), put(f"{CONTAINER}/LogConfiguration/Options/mode", "blocking"), put("LogGroup/RetentionInDays", 7),
       put(f"{CONTAINER}/LogConfiguration/Options/awslogs-group", "other"), parameters=[{}, {"LogRetention": 365}])
def its_log_is_kept_as_long_as_chosen(stack):
    logs_are_kept(stack, [sockguard(stack)])


@holds("sockguard", put(f"{CONTAINER}/Memory", 0), drop(f"{CONTAINER}/Memory"), put(f"{TASK}/Cpu", 128), put(f"{CONTAINER}/Cpu", 4096), parameters=[{}, {"Memory": 512, "Cpu": 256}])
def it_has_memory_and_a_share_of_the_processors(stack):
    """A limit of the task's would slow down everything that goes through the socket."""
    it = sockguard(stack)
    assert (it.get("Memory"), it["Cpu"]) == (stack.parameters["Memory"], stack.parameters["Cpu"]) and "Cpu" not in task(stack)


@holds("sockguard", put(f"{TASK}/TaskRoleArn", {"Fn::GetAtt": ["ExecutionRole", "Arn"]}), put(f"{ROLE}/Policies/1/PolicyDocument/Statement/0/Resource", "*"), add(f"{ROLE}/Policies/0/PolicyDocument/Statement", {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "*"}),
       put(f"{ROLE}/ManagedPolicyArns", ["arn:aws:iam::aws:policy/AdministratorAccess"]), drop(f"{ROLE}/AssumeRolePolicyDocument/Statement/0/Condition"), put(f"{ROLE}/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": "*"}),
       put(f"{TASK}/ExecutionRoleArn", "arn:aws:iam::123456789012:role/ecsTaskExecutionRole"))
def it_has_no_role_and_ecs_may_pull_and_log(stack):
    assert "TaskRoleArn" not in task(stack)
    execution = role(stack, task(stack)["ExecutionRoleArn"])
    is_for_tasks_of_this_account(execution)
    assert {(action, resource) for action, resource, _ in allowed(execution)} == PULLS_AND_LOGS and "ManagedPolicyArns" not in execution


@holds("sockguard", drop("/Outputs/SockguardImage"), drop("/Outputs/Service/Export"), put("/Outputs/SockguardImage/Value", "sockguard:latest"))
def outputs_are_what_the_agent_stack_needs(stack):
    assert stack.outputs.get("SockguardImage", {}).get("Value") == stack.parameters["SockguardImage"]
    assert all(output.get("Export") == {"Name": f"test-{name}"} for name, output in stack.outputs.items())
