"""The scaler's program as Lambda would run it, with the permissions of the shipped template.

Buildkite and the runtime API of Lambda are played by this file. AWS is moto, which checks signatures, session tokens and
actions; in front of it stands a gate that checks what moto does not: resources and conditions of the role's policies.

Nothing waits for a fixed time. An invocation has half a minute, and the poll interval is longer than that: so it is exactly
one poll, and over when that is. Only where it matters there are more.
"""

import datetime
import fnmatch
import io
import json
import os
import queue
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import template
from cloud import Cloud
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from properties import NEEDED
from scaler_properties import listed, role_statements
from template import ACCOUNT, REGION

PROGRAM = Path(os.environ.get("SCALER_BIN", template.STACKS.parent / "target/debug/sockguard-scaler"))
TOKEN = "s3cret-of-the-queue"
CLUSTER, SERVICE, PARAMETER = "hosts", "agents", "/buildkite/agent-token"
GIVEN = NEEDED["agent"] | {"Cluster": CLUSTER, "TokenParameter": PARAMETER, "ScalerBucket": "programs"}
CALLS = [("ssm:GetParameter", "token"), ("ecs:DescribeServices", "describe"), ("ecs:UpdateService", "update")]
PAUSE = [("Buildkite-Agent-Metrics-Poll-Duration", "60")]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.01)
    return value


class Server(ThreadingHTTPServer):
    """A server on a port of its own, whose `answer(request)` is called with the handler of each request."""

    daemon_threads = True

    def __init__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    outer.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_POST = do

            def log_message(self, *_):
                pass

            def reply(self, status, body=b"", headers=()):
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """Programs that are killed break off."""

    def close(self):
        self.shutdown()
        self.server_close()


class Buildkite(Server):
    """The agent API: `jobs` and `busy` are what it says; `instead`, if set, answers in its place."""

    def __init__(self):
        self.token, self.jobs, self.busy, self.headers, self.instead, self.asked = TOKEN, {}, 0, [], None, []
        super().__init__()

    def say(self, scheduled=0, running=0, waiting=0, busy=None):
        self.jobs = {"scheduled": scheduled, "running": running, "waiting": waiting, "total": scheduled + running + waiting}
        self.busy = running if busy is None else busy

    def answer(self, request):
        self.asked.append(request.path)
        if request.headers["Authorization"] != f"Token {self.token}":
            request.reply(401, {"message": f"not {request.headers['Authorization']}"})
        elif self.instead:
            self.instead(request)
        else:
            agents = {"idle": 1, "busy": self.busy, "total": self.busy + 1}
            request.reply(200, {"agents": agents, "jobs": self.jobs, "organization": {"slug": "acme"}}, self.headers)


class Lambda(Server):
    """The runtime API: gives out what `invoke` puts in, and keeps what comes back."""

    def __init__(self):
        self.given, self.came, self.count, self.said = queue.Queue(), queue.Queue(), 0, []
        super().__init__()

    def answer(self, request):
        path = request.path.removeprefix("/2018-06-01/runtime/")
        if path == "invocation/next":
            identity, deadline = self.given.get()
            headers = [("Lambda-Runtime-Aws-Request-Id", identity), ("Lambda-Runtime-Deadline-Ms", str(deadline))]
            request.reply(200, {"detail-type": "Scheduled Event"}, headers)
        else:
            self.said.append(request.body)
            kind = request.headers["Lambda-Runtime-Function-Error-Type"]
            request.reply(202, {"status": "OK"})
            self.came.put((path, kind, json.loads(request.body)))

    def invoke(self, seconds):
        self.count += 1
        identity = f"request-{self.count}"
        self.given.put((identity, int((time.time() + seconds) * 1000)))
        return identity


class Gate(Server):
    """AWS as the role sees it: passes on to moto what the role's policies allow, resources and conditions included."""

    def __init__(self, cloud):
        self.cloud, self.policies, self.instead, self.seen, self.answered = cloud, [], {}, [], []
        super().__init__()

    def answer(self, request):
        service = re.search(r"Credential=[^/]+/\d{8}/[^/]+/(\w+)/aws4_request", request.headers["Authorization"])[1]
        action = f"{service}:{request.headers['X-Amz-Target'].split('.')[1]}"
        body = json.loads(request.body)
        self.seen.append((action, body, time.monotonic()))
        if action in self.instead:
            self.instead[action](request)
        elif not self.allows(action, *self.asked(action, body)):
            request.reply(400, {"__type": "AccessDeniedException", "Message": f"not authorized to perform: {action}"})
        else:
            headers = {name: value for name, value in request.headers.items() if name != "Connection"}
            passed = urllib.request.Request(self.cloud.url + request.path, request.body, headers)
            try:
                answer = DIRECT.open(passed, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            body = answer.read()
            self.answered.append(body.decode())
            request.reply(answer.status, body, [("Content-Type", answer.headers["Content-Type"])])

    def asked(self, action, body):
        """The resource that a request is about, and the keys that conditions may name."""
        if action.startswith("ssm:"):
            return f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{body['Name']}", {}
        services = body.get("services") or [body["service"]]
        cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{body['cluster']}"
        assert len(services) == 1
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service/{body['cluster']}/{services[0]}", {"ecs:cluster": cluster}

    def allows(self, action, resource, keys):
        def holds(statement):
            known = {"Effect", "Action", "Resource", "Condition"}
            assert statement["Effect"] == "Allow" and set(statement) <= known, statement
            conditions = statement.get("Condition", {})
            assert set(conditions) <= {"ArnEquals"}, conditions
            return (
                any(fnmatch.fnmatchcase(action, one) for one in listed(statement["Action"]))
                and any(fnmatch.fnmatchcase(resource, one) for one in listed(statement["Resource"]))
                and all(keys.get(key) == value for key, value in conditions.get("ArnEquals", {}).items()))
        return any(holds(statement) for statement in self.policies)

    def count(self, action):
        return sum(seen == action for seen, _, _ in list(self.seen))


def shipped(service=SERVICE, **parameters):
    """The agent stack with a scaler, its service named like this."""
    return template.Stack(template.shipped("agent"), GIVEN | parameters, attributes={"Service.Name": service})


class World:
    """AWS, Buildkite and Lambda, for one test after the other."""

    def __init__(self, cloud, admin):
        self.cloud, self.admin = cloud, admin
        self.ecs, self.ssm, self.iam, self.sts = (cloud.client(name, *admin) for name in ("ecs", "ssm", "iam", "sts"))
        self.stack = shipped()
        self.ecs.create_cluster(clusterName=CLUSTER)
        self.ecs.register_task_definition(family="agent", containerDefinitions=[{"name": "a", "image": "a", "memory": 64}])
        self.ecs.create_service(cluster=CLUSTER, serviceName=SERVICE, taskDefinition="agent", desiredCount=0)
        # The admin takes the role on, since moto cannot do that for Lambda.
        admin = {"AWS": self.sts.get_caller_identity()["Arn"]}
        trust = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": admin, "Action": "sts:AssumeRole"}]}
        arn = self.iam.create_role(RoleName="scaler", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        self.keys = self.sts.assume_role(RoleArn=arn, RoleSessionName="scaler")["Credentials"]
        self.gate = Gate(cloud)
        self.start()

    def start(self):
        """As it is at the beginning of each test."""
        self.buildkite, self.functions = Buildkite(), []
        self.gate.instead, self.gate.seen = {}, []
        self.buildkite.say()
        self.allow(role_statements(self.stack))
        self.ssm.put_parameter(Name=PARAMETER, Type="SecureString", Value=TOKEN, Overwrite=True)
        self.set_desired(0)

    def allow(self, statements):
        """Gives the role these statements: to the gate as they are, to moto without what it does not know."""
        self.gate.policies = statements
        plain = [{"Effect": s["Effect"], "Action": s["Action"], "Resource": "*"} for s in statements]
        self.iam.put_role_policy(RoleName="scaler", PolicyName="all", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": plain}))

    def desired(self, service=SERVICE):
        return self.ecs.describe_services(cluster=CLUSTER, services=[service])["services"][0]["desiredCount"]

    def set_desired(self, number):
        self.ecs.update_service(cluster=CLUSTER, service=SERVICE, desiredCount=number)

    def function(self, **settings):
        function = Function(self, settings)
        self.functions.append(function)
        return function

    def end(self):
        for function in self.functions:
            function.end()
        self.buildkite.close()


class Function:
    """The program at work."""

    def __init__(self, world, settings):
        self.runtime = Lambda()
        # What the template says, but for times and places.
        variables = world.stack.resources["Scaler"]["Properties"]["Environment"]["Variables"]
        environment = {name: str(value) for name, value in variables.items()} | {
            "BUILDKITE_AGENT_ENDPOINT": f"http://{world.buildkite.address}/v3",
            "POLL_INTERVAL": "60s", "CALL_TIMEOUT": "25s",
            "AWS_LAMBDA_RUNTIME_API": self.runtime.address, "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://{world.gate.address}",
            "AWS_ACCESS_KEY_ID": world.keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": world.keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": world.keys["SessionToken"],
            # Nobody's proxy gets the token.
            "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
        } | settings
        self.secrets = [environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_SESSION_TOKEN"], TOKEN]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", PROGRAM], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while part := self.process.stdout.read1():
            self.output += part

    def invoke(self, seconds=30):
        """Lambda's one event of a minute; gives "response" or "error", and what came with it."""
        identity = self.runtime.invoke(seconds)
        path, kind, body = self.runtime.came.get(timeout=90)
        assert path in (f"invocation/{identity}/response", f"invocation/{identity}/error"), (path, body)
        assert (kind is None) == path.endswith("response")
        return path.rsplit("/", 1)[1], body

    def polls(self):
        """One poll that comes to a decision."""
        assert self.invoke() == ("response", {"failed": 0, "polls": 1})

    def fails(self, step, reason):
        """One poll that fails like this; gives the line about it."""
        before = len(self.lines())
        outcome, body = self.invoke()
        assert (outcome, body["errorType"]) == ("error", "Scaler.Failure"), body
        [line] = until(lambda: self.lines()[before:], "the line")
        assert (line["event"], line["step"], line["reason"]) == ("unchanged", step, reason), line
        assert body["errorMessage"].endswith(line["detail"])
        return line

    def lines(self):
        return [json.loads(line) for line in self.output.decode().splitlines(keepends=True) if line.endswith("\n")]

    def memory(self):
        """The most memory that it had, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) >> 10

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.runtime.close()
        said = self.output + b"".join(self.runtime.said)
        for secret in self.secrets:
            assert secret.encode() not in said, said


@pytest.fixture(scope="module")
def account():
    """An account where nothing goes without a signature and a permission, but for the steps that make its first user."""
    cloud = Cloud(INITIAL_NO_AUTH_ACTION_COUNT="3")
    iam = cloud.client("iam")
    iam.create_user(UserName="admin")
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(everything))
    key = iam.create_access_key(UserName="admin")["AccessKey"]
    world = World(cloud, (key["AccessKeyId"], key["SecretAccessKey"]))
    world.end()
    yield world
    world.gate.close()
    cloud.close()


@pytest.fixture
def world(account):
    account.start()
    yield account
    account.end()


# --- scaling ---------------------------------------------------------------------------------


def test_up_at_once_hold_while_busy_down_after_the_cool_down(world):
    function = world.function(COOL_DOWN="300ms", MAX_AGENTS="8")
    world.buildkite.say(scheduled=3, running=2)
    function.polls()
    assert world.desired() == 5
    assert function.lines() == [{
        "event": "up", "queue": "default", "service": SERVICE, "from": 0, "to": 5,
        "agents": {"busy": 2, "idle": 1, "total": 3}, "jobs": {"scheduled": 3, "running": 2, "waiting": 0}}]
    assert world.buildkite.asked == ["/v3/metrics/queue?name=default"]

    world.buildkite.say(scheduled=20, running=5)
    function.polls()
    assert world.desired() == 8

    # The jobs are gone from the metrics, the agents are still at work.
    world.buildkite.say(busy=8)
    for _ in range(3):
        function.polls()
    assert world.desired() == 8

    world.buildkite.say(busy=3)
    begin = time.monotonic()
    function.polls()
    assert world.desired() == 8
    until(lambda: function.polls() or world.desired() < 8, "fewer agents")
    assert world.desired() == 3
    assert world.gate.seen[-1][2] - begin >= 0.3
    assert [line["event"] for line in function.lines()] == ["up", "up", "down"]
    # It asks for a number only where that is another one, and for the token only once.
    assert [body["desiredCount"] for action, body, _ in world.gate.seen if action == "ecs:UpdateService"] == [5, 8, 3]
    assert world.gate.count("ssm:GetParameter") == 1


def test_minimum_buffer_and_waiting_jobs(world):
    world.buildkite.say(waiting=4)
    world.function(MIN_AGENTS="1").polls()
    assert world.desired() == 1
    world.function(IDLE_BUFFER="2", BUILDKITE_QUEUE="a&name=ü").polls()
    assert world.desired() == 2
    assert world.buildkite.asked[-1] == "/v3/metrics/queue?name=a%26name%3D%C3%BC"
    world.function(WAITING_JOBS="count").polls()
    assert world.desired() == 4


def test_a_cold_start_begins_a_new_cool_down(world):
    world.set_desired(5)
    first = world.function(COOL_DOWN="1ms")
    first.polls()
    first.end()
    second = world.function(COOL_DOWN="1ms")
    second.polls()
    assert world.desired() == 5
    second.polls()
    assert world.desired() == 0


def test_it_looks_again_and_again(world):
    function = world.function(POLL_INTERVAL="50ms")
    identity = function.runtime.invoke(60)
    until(lambda: len(world.buildkite.asked) > 1, "a second poll")
    world.buildkite.say(scheduled=3)
    until(lambda: world.desired() == 3, "more agents within the minute")
    # What ends the minute early, so that nobody has to wait for its end.
    world.buildkite.headers = PAUSE
    path, _, body = function.runtime.came.get(timeout=90)
    assert path == f"invocation/{identity}/response" and body["failed"] == 0 and body["polls"] > 2


def test_it_ends_with_its_time(world):
    function = world.function(POLL_INTERVAL="50ms")
    function.invoke(1)
    # Also where somebody keeps it waiting, far below the time that one request may take.
    world.buildkite.instead = silent
    begin = time.monotonic()
    function.invoke(2)
    assert time.monotonic() - begin < 20


def test_buildkite_may_ask_for_more_time_between_polls(world):
    world.buildkite.headers = PAUSE
    function = world.function(POLL_INTERVAL="20ms")
    assert function.invoke() == ("response", {"failed": 0, "polls": 1})
    # Also where the next minute begins before.
    assert function.invoke() == ("response", {"failed": 0, "polls": 0})


# --- failures: each leaves the count as it is ------------------------------------------------


def endless(request):
    """Far more than anybody wants to read."""
    request.send_response(200)
    request.send_header("Content-Length", str(100 << 20))
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" " * (1 << 20))


def dripping(request):
    """A byte now and then, without an end."""
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.02)


def silent(request):
    """Nothing, until the other side goes."""
    request.connection.recv(1)


def metrics(agents='{"idle":0,"busy":0,"total":0}', scheduled="9", running="0"):
    body = f'{{"agents":{agents},"jobs":{{"scheduled":{scheduled},"running":{running},"waiting":0}}}}'
    return lambda request: request.reply(200, body.encode())


@pytest.mark.parametrize("instead, reason", [
    (lambda request: request.reply(500, b"<html>oh no"), "unavailable"),
    (lambda request: request.reply(429, {"message": "slow down"}), "throttled"),
    (lambda request: request.reply(404), "refused"),
    (lambda request: request.reply(200, b"{"), "answer"),
    (lambda request: request.reply(200, {"jobs": {}}), "answer"),
    (metrics(scheduled="-1"), "answer"),
    (metrics(scheduled="1e400"), "answer"),
    (metrics(scheduled="99999999999999999999999999"), "answer"),
    (metrics(agents="null"), "answer"),
    (lambda request: request.reply(200, b"[" * 60_000), "answer"),
    (endless, "answer"),
    (lambda request: request.wfile.write(b"HTTP/9 what\r\n\r\n"), "answer"),
    (lambda request: request.connection.shutdown(socket.SHUT_RDWR), "unreachable"),
], ids=["500", "429", "404", "no JSON", "no agents", "negative", "infinite", "too large", "null", "deep", "100 MB", "no HTTP",
        "closed"])
def test_metrics_that_fail_change_nothing(world, instead, reason):
    world.set_desired(4)
    world.buildkite.instead = instead
    function = world.function(COOL_DOWN="0s")
    function.fails("metrics", reason)
    assert function.memory() < 64
    assert world.gate.count("ecs:UpdateService") == 0
    # It goes on where they are there again.
    world.buildkite.instead = None
    world.buildkite.say(scheduled=6)
    function.polls()
    assert world.desired() == 6


@pytest.mark.parametrize("instead", [silent, dripping])
def test_metrics_that_take_too_long_change_nothing(world, instead):
    world.set_desired(4)
    world.buildkite.instead = instead
    function = world.function(COOL_DOWN="0s", CALL_TIMEOUT="700ms")
    # The token has to come in that time, too, which on a busy machine it may not.
    [line] = until(lambda: function.invoke() and [one for one in function.lines() if one["step"] == "metrics"], "a time-out")
    assert (line["event"], line["reason"]) == ("unchanged", "timeout")
    assert world.desired() == 4


def test_numbers_that_cannot_be_stay_within_the_bounds(world):
    largest = str(2**64 - 1)
    world.buildkite.instead = metrics(scheduled=largest, running=largest)
    function = world.function(MAX_AGENTS="7", COOL_DOWN="0s")
    function.polls()
    assert world.desired() == 7
    # Nothing to do, but all the world is busy.
    world.buildkite.instead = metrics(agents=f'{{"idle":0,"busy":{largest},"total":0}}', scheduled="0")
    function.polls()
    assert world.desired() == 7


def test_the_token_goes_nowhere_else(world):
    class Elsewhere(Server):
        asked = 0

        def answer(self, request):
            self.asked += 1
            request.reply(200, b"{}")
    elsewhere = Elsewhere()
    world.buildkite.instead = lambda request: request.reply(302, headers=[("Location", f"http://{elsewhere.address}/")])
    world.function().fails("metrics", "refused")
    assert elsewhere.asked == 0
    elsewhere.close()


def test_the_token_goes_to_nobody_without_a_certificate_that_is_known(world, tmp_path):
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256()))
    pem = tmp_path / "both.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    world.buildkite.socket = context.wrap_socket(world.buildkite.socket, server_side=True)
    function = world.function(BUILDKITE_AGENT_ENDPOINT=f"https://localhost:{world.buildkite.server_port}/v3")
    assert "certificate" in function.fails("metrics", "unreachable")["detail"]
    assert not world.buildkite.asked


def test_a_token_that_is_refused_is_read_again(world):
    world.set_desired(4)
    world.buildkite.token = "another"
    world.buildkite.say(scheduled=6)
    function = world.function()
    function.fails("metrics", "denied")
    function.fails("metrics", "denied")
    assert world.gate.count("ssm:GetParameter") == 2 and world.desired() == 4
    world.ssm.put_parameter(Name=PARAMETER, Type="SecureString", Value="another\n", Overwrite=True)
    function.polls()
    assert world.desired() == 6


@pytest.mark.parametrize("action, step", CALLS)
def test_aws_that_fails_changes_nothing(world, action, step):
    world.buildkite.say(scheduled=6)
    function = world.function()
    for status, body, reason in [
        (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}, "throttled"),
        (429, b"", "throttled"),
        (503, b"<html>", "unavailable"),
        (400, {"__type": "com.amazonaws#ExpiredTokenException"}, "denied"),
    ]:
        world.gate.instead[action] = lambda request, status=status, body=body: request.reply(status, body)
        function.fails(step, reason)
        assert world.desired() == 0
    world.gate.instead = {}
    function.polls()
    assert world.desired() == 6


def test_one_throttled_poll_does_not_fail_the_minute(world):
    def throttled(request):
        del world.gate.instead["ecs:UpdateService"]
        request.reply(400, {"__type": "ThrottlingException"})
    world.buildkite.say(scheduled=6)
    world.gate.instead["ecs:UpdateService"] = throttled
    function = world.function(POLL_INTERVAL="50ms")
    function.runtime.invoke(60)
    until(lambda: world.desired() == 6, "more agents at a later poll")
    world.buildkite.headers = PAUSE
    path, kind, body = function.runtime.came.get(timeout=90)
    assert kind is None and body["failed"] == 1 and body["polls"] > 1
    assert [line.get("reason") for line in function.lines()] == ["throttled", None]


@pytest.mark.parametrize("body", [
    {"services": [], "failures": [{"arn": "x", "reason": "MISSING"}]},
    {"services": [{"status": "ACTIVE", "desiredCount": 1}], "failures": [{"arn": "x", "reason": "?"}]},
    {"services": [{"status": "DRAINING", "desiredCount": 1}], "failures": []},
])
def test_a_service_that_is_not_all_there_is_left_alone(world, body):
    world.buildkite.say(scheduled=6)
    world.gate.instead["ecs:DescribeServices"] = lambda request: request.reply(200, body)
    world.function().fails("describe", "service")
    assert world.gate.count("ecs:UpdateService") == 0


# --- signatures and permissions --------------------------------------------------------------


@pytest.mark.parametrize("wrong, code", [
    ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
    ({"AWS_SESSION_TOKEN": "wrong"}, "InvalidClientTokenId"),
    ({"AWS_ACCESS_KEY_ID": "ASIAWRONG"}, "InvalidClientTokenId"),
])
def test_wrong_keys_are_refused(world, wrong, code):
    world.buildkite.say(scheduled=6)
    world.function(**wrong).fails("token", "denied")
    assert code in world.gate.answered[-1]
    assert world.desired() == 0 and not world.buildkite.asked


def test_a_token_that_is_not_there_is_told(world):
    """Such as in another region, for which the signature is as good."""
    line = world.function(AWS_REGION="eu-central-1").fails("token", "refused")
    assert line["detail"] == f"HTTP status 400 ParameterNotFound Parameter {PARAMETER} not found."


@pytest.mark.parametrize("action, step", CALLS)
def test_the_signature_of_each_call_is_checked(world, action, step):
    """Or the others would prove nothing: a request that somebody changed on its way."""
    def changed(request):
        request.headers.replace_header("X-Amz-Date", "20200101T000000Z")
        world.gate.instead = {}
        world.gate.answer(request)
    world.buildkite.say(scheduled=6)
    world.gate.instead[action] = changed
    world.function().fails(step, "denied")
    assert "SignatureDoesNotMatch" in world.gate.answered[-1]
    assert world.desired() == 0


@pytest.mark.parametrize("action, step", CALLS)
def test_no_permission_of_the_role_can_be_missed(world, action, step):
    world.buildkite.say(scheduled=6)
    left = [
        statement | {"Action": [one for one in listed(statement["Action"]) if one != action]}
        for statement in role_statements(world.stack)]
    world.allow([statement for statement in left if statement["Action"]])
    world.function().fails(step, "denied")
    assert world.desired() == 0


@pytest.mark.parametrize("other, step", [
    ({"ECS_SERVICE": "others"}, "describe"), ({"ECS_CLUSTER": "others"}, "describe"),
    ({"BUILDKITE_TOKEN_PARAMETER": "/buildkite/other-token"}, "token")])
def test_the_role_is_for_one_service_and_one_token(world, other, step):
    world.function(**other).fails(step, "denied")


def test_the_stack_that_cloudformation_makes_scales_its_service(cloud):
    """In an account without permissions: moto checks no signatures of Lambda's own API."""
    world = World(cloud, ("test", "test"))
    try:
        make, s3 = cloud.client("cloudformation"), cloud.client("s3")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as program:
            program.writestr("bootstrap", "the program, which moto does not run")
        s3.create_bucket(Bucket=GIVEN["ScalerBucket"])
        s3.put_object(Bucket=GIVEN["ScalerBucket"], Key="sockguard-scaler.zip", Body=archive.getvalue())
        make.create_stack(
            StackName="scaled", TemplateBody=(template.STACKS / "agent/template.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in GIVEN.items()],
            Capabilities=["CAPABILITY_IAM"])
        # What moto does not know has no name.
        made = {one.get("LogicalResourceId"): one.get("PhysicalResourceId")
                for one in make.describe_stack_resources(StackName="scaled")["StackResources"]}
        function = cloud.client("lambda").get_function_configuration(FunctionName=made["Scaler"])
        assert function["Role"].endswith(f":role/{made['ScalerRole']}")
        world.allow(role_statements(shipped(service=made["Service"].split("/")[-1])))

        variables = {name: str(value) for name, value in function["Environment"]["Variables"].items()}
        del variables["BUILDKITE_AGENT_ENDPOINT"], variables["POLL_INTERVAL"]
        world.buildkite.say(scheduled=6)
        world.function(**variables).polls()
        assert (world.desired(made["Service"]), world.desired()) == (6, 0)
    finally:
        world.end()
        world.gate.close()


# --- settings --------------------------------------------------------------------------------


def test_wrong_settings_are_told_before_anything_is_done(world):
    function = world.function(MAX_AGENTS="many", ECS_CLUSTER="", POLL_INTERVAL="0s", AWS_SECRET_ACCESS_KEY="a b")
    path, kind, body = function.runtime.came.get(timeout=90)
    assert (path, kind) == ("init/error", "Scaler.Configuration")
    assert body["errorMessage"].split("; ") == [
        "ECS_CLUSTER is not set: expected the cluster's name or ARN",
        "MAX_AGENTS `many` is wrong: expected a number from 0 to 5000",
        'POLL_INTERVAL `0s` is wrong: expected a duration from 10ms to 60s, such as "500ms", "30s" or "5m"',
        "AWS_SECRET_ACCESS_KEY is wrong: expected visible ASCII characters",
    ]
    assert function.process.wait(timeout=60) == 1
    assert not world.buildkite.asked and not world.gate.seen


def test_what_the_template_says_is_what_the_program_takes():
    """Also at the ends of what its parameters allow."""
    for parameters in [
        {}, {"MinAgents": "5000", "MaxAgents": "5000", "IdleBuffer": "5000", "CoolDown": "86400", "PollInterval": "60"},
        {"MaxAgents": "0", "CoolDown": "0", "PollInterval": "1", "WaitingJobs": "count", "Queue": "a-b_C"},
    ]:
        runtime = Lambda()
        scaler = shipped(**parameters).resources["Scaler"]["Properties"]
        environment = {name: str(value) for name, value in scaler["Environment"]["Variables"].items()} | {
            "AWS_LAMBDA_RUNTIME_API": runtime.address, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "secret"}
        process = subprocess.Popen([PROGRAM], env=environment, stdin=subprocess.DEVNULL)
        try:
            # It has no time, so it does nothing, and is content.
            runtime.invoke(0)
            path, _, body = runtime.came.get(timeout=90)
            assert (path, body) == ("invocation/request-1/response", {"failed": 0, "polls": 0})
        finally:
            process.kill()
            process.wait()
            runtime.close()


def test_outside_of_lambda_it_says_what_it_is():
    done = subprocess.run([PROGRAM], env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "AWS_LAMBDA_RUNTIME_API" in done.stderr
