"""The READMEs' commands, as they are written, in an account that only exists for them; and what the READMEs say is there."""

import re
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import agent_properties  # noqa: F401
import compute_properties  # noqa: F401
import pytest
import sockguard_properties  # noqa: F401
import vpc_properties  # noqa: F401
from cloud import Cloud
from properties import DIGEST, PROPERTIES
from template import STACKS, shipped

REPO = STACKS.parent
IMAGE = f"image@{DIGEST}"
IMAGES = f"--sockguard-image {IMAGE} --agent-image {IMAGE}"

# What builds and pushes images takes long, and a registry: here it is done in name only. What is pushed is in the account.
DOCKER = """#!/bin/bash
echo "docker $*" >>"$DONE"
case "$1" in
login) cat >/dev/null ;;
image) echo "buildkite/agent@sha256:$(printf 'b%.0s' {1..64})" ;;
push)
    name=${2##*/}
    aws ecr put-image --repository-name "${name%:*}" --image-tag "${name#*:}" --image-manifest "$(cat "$MANIFEST")" >/dev/null ;;
esac
"""
MANIFEST = """{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
"config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": "sha256:%s"}, "layers": []}""" % ("0" * 64)
ZIP = """#!/bin/bash
echo "zip $*" >>"$DONE"
mkdir -p "$(dirname "$2")" && cp "$ARCHIVE" "$2"
"""


def commands(readme):
    """The shell commands of a README."""
    return "".join(re.findall(r"^```sh\n(.*?)^```$", (REPO / readme).read_text(), re.M | re.S))


class Operator:
    """Somebody with a shell, in an account of their own."""

    def __init__(self, cloud, directory):
        self.cloud, self.directory = cloud, directory
        (directory / "stack").symlink_to(STACKS)
        (directory / "programs").mkdir()
        for name, text in (("docker", DOCKER), ("zip", ZIP)):
            (directory / "programs" / name).write_text(text)
            (directory / "programs" / name).chmod(0o755)
        (directory / "manifest").write_text(MANIFEST)
        with zipfile.ZipFile(directory / "archive", "w") as archive:
            archive.writestr("bootstrap", "#!/bin/sh\n")
        environment = cloud.environment
        self.environment = environment | {
            "PATH": f"{directory}/programs:{environment['PATH']}", "DONE": str(directory / "done"),
            "MANIFEST": str(directory / "manifest"), "ARCHIVE": str(directory / "archive")}

    def run(self, script, **variables):
        """Runs commands as a shell does that stops at what fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.directory, env=self.environment | variables, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)

    def done(self):
        """What was asked of Docker and of zip."""
        return (self.directory / "done").read_text().splitlines()

    def stacks(self):
        """The parameters of all stacks that came up, by their names."""
        stacks = self.cloud.client("cloudformation").describe_stacks()["Stacks"]
        assert {stack["StackStatus"] for stack in stacks} <= {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
        return {stack["StackName"]: {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]} for stack in stacks}


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """Two, who are at work at the same time: one follows the README of the stacks, and one the README of each stack."""
    clouds = [Cloud(), Cloud()]
    both = [Operator(cloud, tmp_path_factory.mktemp("operator")) for cloud in clouds]
    with ThreadPoolExecutor() as pool:
        script = pool.submit(both[0].run, commands("stack/README.md"), BUILDKITE_AGENT_TOKEN="secret")
        each = pool.submit(
            both[1].run, "aws s3 mb s3://programs\n" + "".join(
                commands(f"{readme}/README.md") for readme in ("stack/vpc", "stack/compute", "stack/sockguard", "stack/agent", "scaler")),
            BUILDKITE_AGENT_TOKEN="secret", SOCKGUARD_IMAGE=IMAGE, SCALER_BUCKET="programs")
        yield (both[0], script.result()), (both[1], each.result())
    for cloud in clouds:
        cloud.close()


def test_the_four_stacks_by_the_script(operators):
    operator, first = operators[0]
    assert first.returncode == 0, first.stdout
    repository = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sockguard"
    assert operator.done() == [
        f"docker login --username AWS --password-stdin {repository.split('/')[0]}",
        f"docker build --tag {repository}:1 .",
        f"docker push {repository}:1",
        "docker pull --quiet buildkite/agent:3",
        "docker image inspect --format {{index .RepoDigests 0}} buildkite/agent:3",
        "docker build --target scaler --output target/lambda .",
        "zip -j target/sockguard-scaler.zip target/lambda/bootstrap",
    ]
    stacks = operator.stacks()
    assert sorted(stacks) == ["buildkite-agent-default", "buildkite-compute", "buildkite-sockguard", "buildkite-vpc"]
    agent = stacks["buildkite-agent-default"]
    assert re.fullmatch(re.escape(repository) + "@sha256:[0-9a-f]{64}", agent["SockguardImage"])
    assert agent["SockguardImage"] == stacks["buildkite-sockguard"]["SockguardImage"]
    assert agent["AgentImage"] == "buildkite/agent@sha256:" + 64 * "b"
    assert agent["ScalerBucket"].startswith("buildkite-scaler-")
    assert agent["CapacityProvider"] and agent["Cluster"] == stacks["buildkite-sockguard"]["Cluster"]
    parameter = operator.cloud.client("ssm").get_parameter(Name="/buildkite/agent-token")["Parameter"]
    assert parameter["Type"] == "SecureString"


def test_the_readmes_commands(operators):
    operator, done = operators[1]
    assert done.returncode == 0, done.stdout
    stacks = operator.stacks()
    assert sorted(stacks) == ["buildkite-agent-default", "buildkite-compute", "buildkite-private-vpc", "buildkite-sockguard", "buildkite-vpc"]
    assert (stacks["buildkite-private-vpc"]["Hosts"], stacks["buildkite-private-vpc"]["SubnetCount"]) == ("private", "3")
    assert stacks["buildkite-agent-default"]["ScalerBucket"] == "programs"
    assert stacks["buildkite-agent-default"]["SockguardImage"] == IMAGE


# The AWS CLI of somebody who has an agent token; what is asked of it is written down.
AWS = """#!/bin/bash
printf '%s\\n' "$*" >>"$DONE"
case "$*" in
"ssm get-parameter --name ${TOKEN:-/buildkite/agent-token} "*) echo SecureString ;;
*NAME-broken*) exit 255 ;;
*OutputKey==*) [ "${OUTPUT-of}" = "" ] || echo "${OUTPUT-of}-$(sed "s/.*OutputKey=='\\([A-Za-z]*\\)'.*/\\1/" <<<"$*")" ;;
esac
"""


def create(directory, arguments, **variables):
    """Runs stack/create with this CLI: what became of it, and what was deployed."""
    (directory / "aws").write_text(AWS)
    (directory / "aws").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"{STACKS}/create {arguments}"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        env={"PATH": f"{directory}:/usr/bin:/bin", "DONE": str(directory / "done")} | variables)
    asked = (directory / "done").read_text().splitlines() if (directory / "done").exists() else []
    return done, [line for line in asked if "deploy" in line.split()[1]]


def test_the_script_gives_each_stack_what_it_needs(tmp_path):
    done, deployed = create(
        tmp_path, f"--name ci {IMAGES} --set vpc:SubnetCount=3 --set agent:Memory=8192 --set 'agent:Policies=a b' linux deploy_2")
    assert done.returncode == 0, done.stdout
    options = "--capabilities CAPABILITY_IAM --no-fail-on-empty-changeset --parameter-overrides"
    agents = f"Cluster=of-Cluster CapacityProvider=of-CapacityProvider SockguardImage={IMAGE} AgentImage={IMAGE} Memory=8192 Policies=a b"
    assert deployed == [f"cloudformation deploy --stack-name ci-{stack} --template-file {STACKS}/{template}/template.yaml {options} {parameters}" for stack, template, parameters in (
        ("vpc", "vpc", "SubnetCount=3"),
        ("compute", "compute", "Vpc=of-Vpc Subnets=of-Subnets"),
        ("sockguard", "sockguard", f"Cluster=of-Cluster SockguardImage={IMAGE}"),
        ("agent-linux", "agent", f"Queue=linux {agents}"),
        ("agent-deploy-2", "agent", f"Queue=deploy_2 {agents}"),
    )]


@pytest.mark.parametrize("arguments, code, said", [
    ("--help", 0, "usage: stack/create"),
    ("", 2, "--sockguard-image is needed"),
    ("--sockguard-image", 2, "--sockguard-image needs a value"),
    ("--image x", 2, "--image is no option"),
    (f"--sockguard-image {IMAGE}", 2, "--agent-image is needed"),
    ("--sockguard-image image:1 --agent-image image:1", 2, "image:1 has no digest"),
    (f"{IMAGES} --name ecs-builds", 2, "are Amazon's"),
    (f"{IMAGES} a_b a-b", 2, "a_b and a-b would be one stack"),
    (f"{IMAGES} --set SubnetCount=3", 2, "is not like vpc:SubnetCount=3"),
    (f"{IMAGES} 'a b'", 2, "a b is no name for a queue"),
    (f"{IMAGES} --set agent:TokenParameter=/a/b", 1, "there is no agent token: aws ssm put-parameter --type SecureString --name /a/b"),
])
def test_what_the_script_needs_it_says_before_it_makes_anything(tmp_path, arguments, code, said):
    done, deployed = create(tmp_path, arguments)
    assert done.returncode == code and said in done.stdout and deployed == [], done.stdout


@pytest.mark.parametrize("arguments, variables, said, stacks", [
    ("--name NAME-broken", {}, "NAME-broken-vpc did not come up", 1),
    ("", {"OUTPUT": ""}, "the stack buildkite-vpc has no output Vpc", 1),
])
def test_the_script_stops_where_a_stack_does_not_come_up(tmp_path, arguments, variables, said, stacks):
    done, deployed = create(tmp_path, f"{IMAGES} {arguments}", **variables)
    assert done.returncode == 1 and said in done.stdout and len(deployed) == stacks, done.stdout


def test_every_parameter_and_output_is_in_the_readme():
    for name in ("vpc", "compute", "sockguard", "agent"):
        named = re.findall(r"`(\w+)`", (STACKS / name / "README.md").read_text())
        template = shipped(name)
        for one in [*template["Parameters"], *template["Outputs"]]:
            assert one in named, f"{name}: {one}"


def test_what_shows_a_goal_is_there():
    """Each test and each property that the table of the stacks' README names."""
    table = [line for line in (STACKS / "README.md").read_text().splitlines() if line.startswith("|")]
    named = {name for line in table for name in re.findall(r"`([^`]+)`", line) if name.startswith("test_") or ": " in name}
    tests = {name for path in REPO.glob("tests/**/test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    properties = {one.name.replace("_", " ") for one in PROPERTIES}
    assert len(named) > 30 and named - tests - properties == set()
