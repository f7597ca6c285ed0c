"""What tasks ask of the ECS agent: protection from scale-in, and the credentials of their role.

Answers at 169.254.170.2, as the agent does on a host. In the directory that it is given, `tasks.json` says who is who, and
`protection.log` gets a line for each change. It is a program of its own, since it runs in the host's network.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ADDRESS = "169.254.170.2"


class Agent(BaseHTTPRequestHandler):
    directory: Path

    def do_GET(self):
        tasks = json.loads((self.directory / "tasks.json").read_text())
        for arn, task in tasks.items():
            if task["role"] and self.path == task["credentials"]:
                return self.answer(200, {"RoleArn": task["role"], "AccessKeyId": f"key-of-{arn}", "SecretAccessKey": "secret"})
        self.answer(404, {"code": "InvalidIdInRequest"})

    def do_PUT(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tasks = json.loads((self.directory / "tasks.json").read_text())
        assert self.headers["Content-Type"] == "application/json"
        for arn, task in tasks.items():
            if self.path == f"{task['agent']}/task-protection/v1/state":
                with open(self.directory / "protection.log", "a") as log:
                    log.write(json.dumps({"task": arn, **wanted}) + "\n")
                return self.answer(200, {"protection": {"ProtectionEnabled": wanted["ProtectionEnabled"], "TaskArn": arn}})
        # What it cannot do it also says with a good status.
        self.answer(200, {"failure": {"Reason": "TASK_NOT_VALID"}})

    def answer(self, status, body):
        body = json.dumps(body, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Agent.directory = Path(sys.argv[1])
    ThreadingHTTPServer((ADDRESS, 80), Agent).serve_forever()
