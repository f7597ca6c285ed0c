"""What the properties of the sockguard stack and of the agent stack have in common: tasks, their mounts and their roles."""

import re
import tomllib

from properties import DIGEST, sole
from template import STACKS

CONFIG = tomllib.loads((STACKS.parent / "config" / "ecs-daemon.toml").read_text())
POLICY = tomllib.loads((STACKS.parent / "policies" / "ecs-agent.toml").read_text())
DOCKER_SOCKETS = {"/var/run/docker.sock", "/run/docker.sock"}


def task(stack):
    """The stack's only task definition."""
    return stack.one("AWS::ECS::TaskDefinition")


def images_are_named_by_digest(stack):
    """Of every container. A tag is a name that a build could give to an image of its own; the host would start that."""
    images = {name: one for name, one in stack.template["Parameters"].items() if name.endswith("Image")}
    assert {one["Image"] for one in task(stack)["ContainerDefinitions"]} == {stack.parameters[name] for name in images}
    for one in images.values():
        assert "Default" not in one
        for image in ("sockguard", "sockguard:1", "team/sockguard:latest", f"sockguard@{DIGEST[:-1]}", f"sockguard@{DIGEST}:1"):
            assert not re.fullmatch(one["AllowedPattern"], image), image
        for image in (f"sockguard@{DIGEST}", f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/sockguard:1@{DIGEST}"):
            assert re.fullmatch(one["AllowedPattern"], image), image


def container(stack, name):
    """The container of a name in it."""
    return sole(one for one in task(stack)["ContainerDefinitions"] if one["Name"] == name)


def mounts(stack, container):
    """What a container mounts: where, the volume, and whether it may only read."""
    volumes = {volume["Name"]: volume for volume in task(stack)["Volumes"]}
    return {
        mount["ContainerPath"]: (volumes[mount["SourceVolume"]], mount.get("ReadOnly", False))
        for mount in container.get("MountPoints", [])
    }


def host_paths(stack):
    """What a task has of the host's files."""
    return {volume["Host"]["SourcePath"] for volume in task(stack)["Volumes"] if "SourcePath" in volume.get("Host", {})}


def environment(container):
    return {one["Name"]: one["Value"] for one in container.get("Environment", [])}


def role(stack, reference):
    """A role of the stack itself, by what refers to it."""
    name = reference.removeprefix("${").removesuffix(".Arn}")
    assert name in stack.of_type("AWS::IAM::Role"), f"{reference} is no role of this stack"
    return stack.of_type("AWS::IAM::Role")[name]


def allowed(role):
    """What a role may do: (action, resource, condition) of every one of its own policies."""
    found = []
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            for action in listed(statement["Action"]):
                for resource in listed(statement["Resource"]):
                    found.append((action, resource, statement.get("Condition")))
    return found


def listed(value):
    return value if isinstance(value, list) else [value]


def is_for_tasks_of_this_account(role):
    """ECS tasks may have the role, those of this account only."""
    trust = sole(role["AssumeRolePolicyDocument"]["Statement"])
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"} and trust["Action"] == "sts:AssumeRole"
    condition = trust.get("Condition", {})
    assert condition.get("StringEquals") == {"aws:SourceAccount": "123456789012"}
    assert condition.get("ArnLike") == {"aws:SourceArn": "arn:aws:ecs:us-east-1:123456789012:*"}


def logs_are_kept(stack, containers):
    """All of these write to the stack's log group, for as long as chosen, and none waits for the log."""
    groups = stack.of_type("AWS::Logs::LogGroup")
    assert {group.get("RetentionInDays") for group in groups.values()} == {stack.parameters["LogRetention"]}
    for one in containers:
        log = one.get("LogConfiguration", {})
        assert log.get("LogDriver") == "awslogs", one["Name"]
        assert log["Options"]["awslogs-group"][2:-1] in groups, one["Name"]
        assert log["Options"].get("mode") == "non-blocking", one["Name"]


# What an execution role may do at all: pull from this account's registry and write to the stack's log.
PULLS_AND_LOGS = {
    ("ecr:GetAuthorizationToken", "*"),
    ("ecr:BatchCheckLayerAvailability", "arn:aws:ecr:us-east-1:123456789012:repository/*"),
    ("ecr:BatchGetImage", "arn:aws:ecr:us-east-1:123456789012:repository/*"),
    ("ecr:GetDownloadUrlForLayer", "arn:aws:ecr:us-east-1:123456789012:repository/*"),
    ("logs:CreateLogStream", "${LogGroup.Arn}"),
    ("logs:PutLogEvents", "${LogGroup.Arn}"),
}
