"""What the agent stack promises; of its scaler, see scaler_properties.py."""

import fnmatch
from pathlib import PurePosixPath

from properties import add, drop, holds, put, sole, swap
from tasks import (CONFIG, DOCKER_SOCKETS, POLICY, PULLS_AND_LOGS, allowed, container, environment, host_paths,
                   images_are_named_by_digest, is_for_tasks_of_this_account, logs_are_kept, mounts, role, task)
from template import shipped

SERVICE, TASK = "Service", "TaskDefinition"
WAIT, INSTALL, AGENT = (f"{TASK}/ContainerDefinitions/Name={name}" for name in ("wait-for-sockguard", "install-agent", "buildkite-agent"))
SOCKET = PurePosixPath(sole(CONFIG["listener"])["socket"])
RULE = sole(CONFIG["agent"])
PREFIX = "arn:aws:ssm:us-east-1:123456789012:parameter"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234"


def service(stack):
    return stack.one("AWS::ECS::Service")


def agent(stack):
    return container(stack, "buildkite-agent")


# One stack for each queue.

@holds("agent", put(f"{TASK}/Family", "buildkite-agent"), put(f"{TASK}/Family", {"Fn::Sub": "agent-${Queue}"}), put(f"{AGENT}/Environment/Name=BUILDKITE_AGENT_TAGS/Value", "queue=default"),
       parameters=[{"Queue": "linux"}, {"Queue": "deploy_2"}])
def agents_serve_the_queue_of_their_stack(stack):
    queue = stack.parameters["Queue"]
    assert task(stack)["Family"] == f"buildkite-agent-{queue}"
    assert environment(agent(stack))["BUILDKITE_AGENT_TAGS"].split(",")[0] == f"queue={queue}"


@holds("agent", put(f"{TASK}/Family", {"Fn::Sub": "agent-${Queue}"}), put(f"{AGENT}/DockerLabels", {"com.amazonaws.ecs.container-name": "other"}))
def sockguard_tells_agents_by_family_and_container(stack):
    """The daemon's configuration has a rule for these labels, which ECS sets, and for no other container of the task."""
    rule = {label.removeprefix("com.amazonaws.ecs."): pattern for label, pattern in RULE["labels"].items()}
    assert set(rule) == {"task-definition-family", "container-name"}
    assert fnmatch.fnmatch(task(stack)["Family"], rule["task-definition-family"])
    assert sole(one["Name"] for one in task(stack)["ContainerDefinitions"] if fnmatch.fnmatch(one["Name"], rule["container-name"])) == "buildkite-agent"
    assert not any(one.get("DockerLabels") for one in task(stack)["ContainerDefinitions"])


# Roles.

TASK_ROLE, EXECUTION_ROLE = "TaskRole", "ExecutionRole"
PROTECTION = f"{TASK_ROLE}/Policies/0/PolicyDocument/Statement"
TOKEN = f"{EXECUTION_ROLE}/Policies/PolicyName=token/PolicyDocument/Statement"
POLICIES = "arn:aws:iam::aws:policy/ReadOnlyAccess"


@holds("agent", drop(f"{TASK}/TaskRoleArn"), put(f"{TASK}/TaskRoleArn", {"Fn::GetAtt": ["ExecutionRole", "Arn"]}), put(f"{TASK}/TaskRoleArn", "arn:aws:iam::123456789012:role/agents"),
       drop(f"{TASK_ROLE}/AssumeRolePolicyDocument/Statement/0/Condition"), put(f"{TASK_ROLE}/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": "*"}), put(f"{TASK_ROLE}/RoleName", "agents"),
       drop(f"{TASK_ROLE}/AssumeRolePolicyDocument/Statement/0/Condition/ArnLike"))
def a_task_role_of_its_own(stack):
    own = role(stack, task(stack).get("TaskRoleArn", ""))
    is_for_tasks_of_this_account(own)
    assert task(stack)["TaskRoleArn"] != task(stack)["ExecutionRoleArn"] and "RoleName" not in own


@holds("agent", put(f"{PROTECTION}/0/Resource", "*"), put(f"{PROTECTION}/0/Action", "ecs:*"), drop(f"{PROTECTION}/0/Condition"), add(PROTECTION, {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "*"}),
       put(f"{TASK_ROLE}/ManagedPolicyArns", [POLICIES]), swap(f"{PROTECTION}/0/Resource/Fn::Sub", "/${Cluster}/", "/"), put("Service/Tags/0/Value", "other"), drop("Service/PropagateTags"),
       drop(f"{TASK_ROLE}/ManagedPolicyArns"), parameters=[{}, {"ManagedPolicies": f"{POLICIES},{POLICIES}2"}, {"Queue": "linux"}])
def builds_may_do_what_the_queue_was_given(stack):
    """Of its own a task may be protected while it has a job: those of its queue, known by their tag."""
    own, queue = role(stack, task(stack)["TaskRoleArn"]), stack.parameters["Queue"]
    given = stack.parameters["ManagedPolicies"]
    assert own.get("ManagedPolicyArns", [""]) == given
    assert {action for action, _, _ in allowed(own)} == {"ecs:GetTaskProtection", "ecs:UpdateTaskProtection"}
    for _, resource, condition in allowed(own):
        assert resource == "arn:aws:ecs:us-east-1:123456789012:task/builds/*"
        assert condition == {"StringEquals": {"aws:ResourceTag/buildkite-queue": queue}}
    assert {"Key": "buildkite-queue", "Value": queue} in service(stack)["Tags"] and service(stack).get("PropagateTags") == "SERVICE"


@holds("agent", put(f"{TOKEN}/0/Resource", "*"), put(f"{TOKEN}/0/Action", "ssm:*"), put(f"{TOKEN}/1/Fn::If/1/Resource", "*"), add(TOKEN, {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}),
       put(f"{EXECUTION_ROLE}/ManagedPolicyArns", ["arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"]), drop(f"{EXECUTION_ROLE}/AssumeRolePolicyDocument/Statement/0/Condition"),
       put(f"{TASK}/ExecutionRoleArn", "arn:aws:iam::123456789012:role/ecsTaskExecutionRole"), put(f"{EXECUTION_ROLE}/Policies/PolicyName=log/PolicyDocument/Statement/0/Resource", "*"),
       parameters=[{}, {"TokenParameter": "/teams/a/token", "TokenKey": KEY}])
def an_execution_role_of_its_own_that_reads_the_one_token(stack):
    execution = role(stack, task(stack)["ExecutionRoleArn"])
    is_for_tasks_of_this_account(execution)
    wanted = PULLS_AND_LOGS | {("ssm:GetParameters", PREFIX + stack.parameters["TokenParameter"])}
    if stack.parameters["TokenKey"]:
        wanted |= {("kms:Decrypt", KEY)}
    assert {(action, resource) for action, resource, _ in allowed(execution)} == wanted and "ManagedPolicyArns" not in execution


@holds("agent", put(f"{AGENT}/Secrets", []), add(f"{AGENT}/Environment", {"Name": "BUILDKITE_AGENT_TOKEN", "Value": "secret"}), put(f"{AGENT}/Secrets/0/ValueFrom", {"Ref": "TokenParameter"}),
       put(f"{INSTALL}/Secrets", [{"Name": "BUILDKITE_AGENT_TOKEN", "ValueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/buildkite/agent-token"}]),
       put("/Parameters/TokenParameter/Type", "AWS::SSM::Parameter::Value<String>"), parameters=[{}, {"TokenParameter": "/teams/a/token"}])
def the_token_is_a_secret_that_only_the_agent_gets(stack):
    """ECS reads it when the task starts: it is in no template, parameter or task definition."""
    assert agent(stack)["Secrets"] == [{"Name": "BUILDKITE_AGENT_TOKEN", "ValueFrom": PREFIX + str(stack.parameters["TokenParameter"])}]
    for one in task(stack)["ContainerDefinitions"]:
        assert one["Name"] == "buildkite-agent" or not one.get("Secrets"), one["Name"]
        assert not any("TOKEN" in name for name in environment(one)), one["Name"]
    assert not stack.template["Parameters"]["TokenParameter"]["Type"].startswith("AWS::SSM")


@holds("agent", swap(f"{AGENT}/Command/0", "unset BUILDKITE_AGENT_TOKEN\n", ""), swap(f"{AGENT}/Command/0", "--token fd://3", ""), drop(f"{AGENT}/Command"), drop(f"{AGENT}/EntryPoint"))
def the_token_is_not_in_the_environment_that_jobs_can_read(stack):
    """It is tried in tests/e2e/stack."""
    assert agent(stack).get("EntryPoint") == ["sh", "-ec"]
    lines = sole(agent(stack).get("Command", [])).splitlines()
    assert lines[:2] == ["token=$BUILDKITE_AGENT_TOKEN", "unset BUILDKITE_AGENT_TOKEN"] and lines[3:] == ["$token", "END"]
    assert lines[2].startswith("exec ") and lines[2].endswith(" start --token fd://3 3<<END")


@holds("agent", drop(f"{AGENT}/Secrets"))
def builds_do_not_get_the_agents_token(stack):
    """The policy keeps it out of what builds start."""
    names = [secret["Name"] for secret in agent(stack).get("Secrets", [])]
    assert "BUILDKITE_AGENT_TOKEN" in names
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in POLICY["container"]["deny-env"]) for name in names)


# The host.

@holds("agent", put("/Parameters/AgentImage/AllowedPattern", "[a-zA-Z0-9._:/@-]+"), put("/Parameters/SockguardImage/AllowedPattern", ".*"), put("/Parameters/AgentImage/Default", "buildkite/agent:3"),
       put(f"{AGENT}/Image", "buildkite/agent:3"))
def its_images_are_what_no_build_can_replace(stack):
    images_are_named_by_digest(stack)


@holds("agent", add(f"{TASK}/Volumes", {"Name": "socket", "Host": {"SourcePath": "/var/run/docker.sock"}}), put(f"{TASK}/Volumes/Name=guarded/Host/SourcePath", "/run"),
       put(f"{TASK}/Volumes/Name=builds", {"Name": "builds", "Host": {"SourcePath": "/buildkite/builds"}}))
def the_guarded_sockets_directory_is_all_it_has_of_the_host(stack):
    assert host_paths(stack) == {str(SOCKET.parent)}
    assert not DOCKER_SOCKETS & host_paths(stack)


@holds("agent", put(f"{AGENT}/MountPoints/SourceVolume=guarded/ReadOnly", False), drop(f"{WAIT}/MountPoints/SourceVolume=guarded/ReadOnly"), put(f"{AGENT}/Environment/Name=DOCKER_HOST/Value", "unix:///var/run/docker.sock"),
       drop(f"{AGENT}/Environment/Name=DOCKER_HOST"), put(f"{AGENT}/MountPoints/SourceVolume=guarded/ContainerPath", "/var/run"))
def docker_is_the_guarded_socket_in_a_read_only_directory(stack):
    assert environment(agent(stack)).get("DOCKER_HOST") == f"unix://{SOCKET}"
    for one in task(stack)["ContainerDefinitions"]:
        for path, (volume, read_only) in mounts(stack, one).items():
            if "SourcePath" in volume.get("Host", {}):
                assert (path, read_only) == (str(SOCKET.parent), True), one["Name"]
    assert str(SOCKET.parent) in mounts(stack, agent(stack))


@holds("agent", put(f"{TASK}/Volumes/Name=builds/DockerVolumeConfiguration/Scope", "shared"), put(f"{TASK}/Volumes/Name=bin/DockerVolumeConfiguration/Scope", "shared"), drop(f"{AGENT}/MountPoints/SourceVolume=builds"),
       put(f"{TASK}/Volumes/Name=builds/DockerVolumeConfiguration/DriverOpts", {"type": "none", "o": "bind", "device": "/builds"}), put(f"{AGENT}/Environment/Name=BUILDKITE_BUILD_PATH/Value", "/builds"),
       put(f"{TASK}/Volumes/Name=builds/DockerVolumeConfiguration/Driver", "efs"), put(f"{AGENT}/MountPoints/SourceVolume=builds/ReadOnly", True))
def checkouts_are_in_a_volume_of_the_task(stack):
    """No other task has it, and what an agent mounts is what builds may bind."""
    found = mounts(stack, agent(stack))
    volume, read_only = found.get(environment(agent(stack))["BUILDKITE_BUILD_PATH"], ({}, True))
    assert volume.get("DockerVolumeConfiguration") == {"Scope": "task", "Driver": "local"} and read_only is False
    assert POLICY["bind"]["own-mounts"] is True
    for volume, _ in found.values():
        assert volume.get("DockerVolumeConfiguration", {}).get("Scope", "task") == "task"


ALIAS = sole(POLICY["bind"]["aliases"])


@holds("agent", drop(f"{AGENT}/MountPoints/SourceVolume=bin"), put(f"{AGENT}/MountPoints/SourceVolume=bin/ReadOnly", False), put(f"{INSTALL}/MountPoints/SourceVolume=bin/ReadOnly", True),
       put(f"{INSTALL}/Image", "other"), swap(f"{INSTALL}/Command/0", "/buildkite/bin/buildkite-agent", "/buildkite/bin/agent"), put(f"{AGENT}/MountPoints/SourceVolume=bin/ContainerPath", "/opt"))
def the_agents_program_is_where_binds_can_alias_it(stack):
    """It is copied by the image that is run, so that both are the same version, and the agent may only read the copy."""
    install = container(stack, "install-agent")
    assert ALIAS["path"] == "/usr/local/bin/buildkite-agent" and ALIAS["access"] == "ro"
    where = str(PurePosixPath(ALIAS["to"]).parent)
    volume, read_only = mounts(stack, agent(stack)).get(where, ({}, False))
    assert volume.get("Name") == "bin" and read_only is True
    assert mounts(stack, install) == {where: (volume, False)}
    assert install["Image"] == agent(stack)["Image"] == stack.parameters["AgentImage"]
    assert f'cp "$(command -v buildkite-agent)" {ALIAS["to"]}' in install["Command"][0].splitlines()


@holds("agent", put(f"{AGENT}/Privileged", True), put(f"{TASK}/NetworkMode", "host"), put(f"{TASK}/PidMode", "host"), put(f"{TASK}/IpcMode", "host"), put(f"{AGENT}/LinuxParameters/Capabilities/Add", ["SYS_ADMIN"]),
       put(f"{AGENT}/LinuxParameters/Devices", [{"HostPath": "/dev/kmsg"}]), put(f"{AGENT}/DockerSecurityOptions", ["apparmor:unconfined"]), put(f"{AGENT}/PortMappings", [{"ContainerPort": 80, "HostPort": 80}]),
       put(f"{INSTALL}/Privileged", True), put(f"{WAIT}/Privileged", True), drop(f"{AGENT}/LinuxParameters/Capabilities/Drop"))
def no_container_of_the_task_is_privileged(stack):
    assert task(stack).get("NetworkMode") == "bridge" and not {"PidMode", "IpcMode"} & set(task(stack))
    for one in task(stack)["ContainerDefinitions"]:
        assert one.get("Privileged", False) is False, one["Name"]
        assert set(one.get("LinuxParameters", {})) <= {"Capabilities", "InitProcessEnabled"}, one["Name"]
        capabilities = one.get("LinuxParameters", {}).get("Capabilities", {})
        assert not capabilities.get("Add") and {"ALL", "NET_RAW"} & set(capabilities.get("Drop", [])), one["Name"]
        assert set(one.get("DockerSecurityOptions", [])) <= {"no-new-privileges"}, one["Name"]
        assert not one.get("PortMappings"), one["Name"]


# The life of a task.

@holds("agent", drop(f"{AGENT}/DependsOn/ContainerName=wait-for-sockguard"), put(f"{AGENT}/DependsOn/ContainerName=wait-for-sockguard/Condition", "START"), put(f"{WAIT}/Command", ["version"]), put(f"{WAIT}/Essential", True),
       put(f"{WAIT}/Image", "busybox"), put(f"{WAIT}/Command/2", "/var/run/docker.sock"), drop(f"{INSTALL}/DependsOn"), put(f"{AGENT}/DependsOn/ContainerName=install-agent/Condition", "COMPLETE"),
       put(f"{AGENT}/Essential", False), drop(f"{WAIT}/Command/3"))
def no_agent_starts_before_the_socket_answers(stack):
    wait, install = container(stack, "wait-for-sockguard"), container(stack, "install-agent")
    assert wait["Command"][:3] == ["health", "-filename", str(SOCKET)] and "-wait" in wait["Command"]
    assert wait["Image"] == stack.parameters["SockguardImage"] and "DependsOn" not in wait
    after = {one["Name"]: {it["ContainerName"]: it["Condition"] for it in one.get("DependsOn", [])} for one in (install, agent(stack))}
    assert after == {
        "install-agent": {"wait-for-sockguard": "SUCCESS"},
        "buildkite-agent": {"wait-for-sockguard": "SUCCESS", "install-agent": "SUCCESS"},
    }
    assert [one["Name"] for one in task(stack)["ContainerDefinitions"] if one["Essential"]] == ["buildkite-agent"]


@holds("agent", drop(f"{TASK}/Memory"), put(f"{TASK}/Memory", 256), drop(f"{TASK}/Cpu"), put("/Parameters/Memory/Default", 512), put(f"{AGENT}/Memory", 512), put("/Parameters/Cpu/Default", 128),
       parameters=[{}, {"Cpu": 4096, "Memory": 16384}])
def the_task_has_processors_and_memory_for_builds(stack):
    """Builds count as parts of the task, which is where their containers are put."""
    assert (task(stack).get("Cpu"), task(stack).get("Memory")) == (stack.parameters["Cpu"], stack.parameters["Memory"])
    assert stack.parameters["Cpu"] >= 1024 and stack.parameters["Memory"] >= 2048
    assert "Memory" not in agent(stack)


@holds("agent", put("/Parameters/Cpu/Default", 2048), put("/Parameters/Memory/Default", 8192))
def agents_fill_hosts_of_every_size(stack):
    """Beside sockguard, and with what the system takes of the memory. One that fits nowhere waits for ever."""
    sizes = shipped("compute")["Parameters"]["InstanceSize"]["AllowedValues"]
    daemon = {name: one["Default"] for name, one in shipped("sockguard")["Parameters"].items() if name in ("Cpu", "Memory")}
    for processors in (2 << i for i in range(len(sizes))):
        agents = (processors * 1024 - daemon["Cpu"]) // stack.parameters["Cpu"]
        assert agents == processors // 2, processors
        assert agents * stack.parameters["Memory"] + daemon["Memory"] <= processors * 4096 * 0.9, processors


@holds("agent", drop(f"{AGENT}/StopTimeout"), put(f"{AGENT}/StopTimeout", 30), put("/Parameters/StopTimeout/Default", 30), parameters=[{}, {"StopTimeout": 7200}])
def a_job_has_time_to_end(stack):
    assert agent(stack).get("StopTimeout") == stack.parameters["StopTimeout"] >= 600


@holds("agent", drop(f"{AGENT}/Environment/Name=BUILDKITE_AGENT_DISCONNECT_AFTER_JOB"), put(f"{AGENT}/Environment/Name=BUILDKITE_AGENT_DISCONNECT_AFTER_JOB/Value", "false"))
def an_agent_is_there_for_one_job(stack):
    assert environment(agent(stack)).get("BUILDKITE_AGENT_DISCONNECT_AFTER_JOB") == "true"


HOOKS = f"{INSTALL}/Command/0"


@holds("agent", swap(HOOKS, '"ProtectionEnabled":true', '"ProtectionEnabled":false'), swap(HOOKS, "> environment", "> checkout"), swap(HOOKS, "> pre-exit", "> other"),
       drop(f"{AGENT}/Environment/Name=BUILDKITE_ADDITIONAL_HOOKS_PATHS"), swap(HOOKS, "$ECS_AGENT_URI/task-protection/v1/state", "$ECS_AGENT_URI/state"), swap(HOOKS, "chmod 755", "ls"),
       put(f"{AGENT}/Environment/Name=BUILDKITE_ADDITIONAL_HOOKS_PATHS/Value", "/buildkite/hooks"), swap(HOOKS, "hooks/protection off", "hooks/protection on"))
def a_task_with_a_job_is_protected(stack):
    """What the hooks do is tried with a real shell in tests/e2e/stack."""
    script = container(stack, "install-agent")["Command"][0]
    where = environment(agent(stack)).get("BUILDKITE_ADDITIONAL_HOOKS_PATHS")
    assert where == "/buildkite/bin/hooks" and f"cd {where}\n" in script
    assert "$ECS_AGENT_URI/task-protection/v1/state" in script and "-X PUT" in script
    assert '{"ProtectionEnabled":true,"ExpiresInMinutes":2880}' in script and '{"ProtectionEnabled":false}' in script
    assert "hooks/protection on\\n' > environment\n" in script and "hooks/protection off\\n' > pre-exit\n" in script
    assert "chmod 755 /buildkite/bin/buildkite-agent protection environment pre-exit\n" in script


@holds("agent", drop("LogGroup/RetentionInDays"), drop(f"{AGENT}/LogConfiguration"), put(f"{AGENT}/LogConfiguration/Options/mode", "blocking"), put(f"{INSTALL}/LogConfiguration/Options/awslogs-group", "other"),
       parameters=[{}, {"LogRetention": 7}])
def logs_are_kept_as_long_as_chosen(stack):
    logs_are_kept(stack, task(stack)["ContainerDefinitions"])


# The service.

@holds("agent", put(f"{SERVICE}/LaunchType", "EC2"), drop(f"{SERVICE}/CapacityProviderStrategy"), put(f"{SERVICE}/CapacityProviderStrategy/0/CapacityProvider", "FARGATE_SPOT"), put(f"{SERVICE}/Cluster", "other"),
       put(f"{SERVICE}/SchedulingStrategy", "DAEMON"), put(f"{SERVICE}/TaskDefinition", "other"))
def tasks_that_find_no_room_make_the_cluster_grow(stack):
    """Those with a launch type do not."""
    it = service(stack)
    assert "LaunchType" not in it and it.get("SchedulingStrategy", "REPLICA") == "REPLICA"
    assert [one["CapacityProvider"] for one in it.get("CapacityProviderStrategy", [])] == [stack.parameters["CapacityProvider"]]
    assert (it["Cluster"], it["TaskDefinition"]) == (stack.parameters["Cluster"], "${TaskDefinition}")


@holds("agent", put(f"{SERVICE}/PlacementStrategies/0/Type", "spread"), drop(f"{SERVICE}/PlacementStrategies"), put(f"{SERVICE}/AvailabilityZoneRebalancing", "ENABLED"))
def full_hosts_so_that_others_can_go(stack):
    it = service(stack)
    assert [(one["Type"], one["Field"]) for one in it.get("PlacementStrategies", [])] == [("binpack", "memory")]
    assert it.get("AvailabilityZoneRebalancing") == "DISABLED"


@holds("agent", put(f"{SERVICE}/DesiredCount", 3), put("Scaler/Environment/Variables/MAX_AGENTS", 100), put("Scaler/Environment/Variables/MIN_AGENTS", 1), drop("Scaler/Environment/Variables/MAX_AGENTS"),
       parameters=[{"ScalerBucket": "code"}, {"ScalerBucket": "code", "MinAgents": 2, "MaxAgents": 50}])
def the_count_of_agents_is_the_scalers_within_bounds(stack):
    assert "DesiredCount" not in service(stack)
    variables = stack.one("AWS::Lambda::Function")["Environment"]["Variables"]
    assert (variables.get("MIN_AGENTS"), variables.get("MAX_AGENTS")) == (stack.parameters["MinAgents"], stack.parameters["MaxAgents"])


@holds("agent", drop("/Outputs/Service"), drop("/Outputs/TaskRole/Export"), put("/Outputs/TaskRole/Value", {"Fn::GetAtt": ["ExecutionRole", "Arn"]}))
def outputs_name_what_others_ask_for(stack):
    assert stack.outputs.get("Service", {}).get("Value") == "${Service.Name}" and stack.outputs["TaskRole"]["Value"] == "${TaskRole.Arn}"
    assert all(output.get("Export") == {"Name": f"test-{name}"} for name, output in stack.outputs.items())
