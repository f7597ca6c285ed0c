"""The same commands on a bare engine and through a guard, and what may differ in their output.

A scenario is a list of steps. A step is a bash command line in which `docker` and `compose` are
the chosen clients, or a `Pty` dialogue. Both sides have an engine of their own and run at the same
time, so a scenario may use fixed names and see the whole list of containers, images and so on.
"""

from __future__ import annotations

import difflib
import functools
import os
import pty
import re
import select
import subprocess
import termios
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import harness


RAW = None


@dataclass(frozen=True)
class Pty:
    """A command at a terminal: what to wait for, and what to type then. RAW waits until the client has the terminal."""
    command: str
    dialogue: tuple = ()


class Side:
    """An engine, the socket that the clients are given, and a working directory."""

    def __init__(self, engine, socket, work):
        self.engine = engine
        self.socket = socket
        self.work = Path(work)
        _client_links()

    def env(self):
        environment = harness.client_env(self.socket)
        return {
            **environment,
            "PATH": f"{_client_links()}:{environment['PATH']}",
            "WORK": str(self.work),
            "REGISTRY": f"127.0.0.1:{self.engine.registry_port}",
        }

    def run(self, step, timeout=180):
        """One step: (what was run, status, stdout, stderr), normalised."""
        if isinstance(step, Pty):
            status, out = self._dialogue(step, timeout)
            return step.command, status, self.normalise(out), ""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", step], cwd=self.work, env=self.env(), timeout=timeout,
            stdin=subprocess.DEVNULL, capture_output=True,
        )
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return step, done.returncode, self.normalise(out), self.normalise(err)

    def _dialogue(self, step, timeout):
        process_id, terminal = pty.fork()
        if process_id == 0:
            os.chdir(self.work)
            os.execvpe("bash", ["bash", "-c", "stty cols 80 rows 24; exec " + step.command], self.env())
        seen, waiting, end = b"", list(step.dialogue), time.monotonic() + timeout
        mark = 0
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    data = os.read(terminal, 65536)
                except OSError:
                    data = b""
                if not data:
                    break
                seen += data
            if waiting and (_is_raw(terminal) if waiting[0][0] is RAW else waiting[0][0].encode() in seen[mark:]):
                mark = len(seen)
                os.write(terminal, waiting.pop(0)[1].encode())
        else:
            os.kill(process_id, 9)
        os.close(terminal)
        _, status = os.waitpid(process_id, 0)
        text = seen.decode(errors="replace")
        # The terminal settings' echo and the shell's cursor queries depend on timing.
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n").replace("\r", "")
        return os.waitstatus_to_exitcode(status), text

    def normalise(self, text):
        for path, name in ((self.work, "WORK"), (self.engine.root, "ENGINE"), (self.socket, "SOCKET")):
            text = text.replace(str(path), name)
        for pattern, name in _VARIABLE:
            text = pattern.sub(name, text)
        return text


def _is_raw(terminal):
    return not termios.tcgetattr(terminal)[3] & termios.ICANON


# What differs from run to run, whoever asks.
_VARIABLE = [(re.compile(pattern), name) for pattern, name in (
    (r"\b[0-9a-f]{64}\b", "ID64"),
    (r"\b[0-9a-f]{12}\b", "ID12"),
    (r"[A-Z0-9]{4}(:[A-Z0-9]{4}){11}", "ENGINE-ID"),
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4} [A-Z]+|Z|[+-]\d\d:\d\d)?", "TIME"),
    (r"(About )?(an?|\d+|Less than a) (second|minute|hour)s?( ago)?", "AGO"),
    (r"\b(0\.0\.0\.0|\[?::\]?):\d{5}\b", r"\1:PORT"),
    (r'("HostPort": )"\d{5}"', r'\1"PORT"'),
    (r"\b172\.3[01]\.\d+\.\d+", "ADDR"),
    (r'("Pid": )[1-9]\d*', r"\1PID"),
    # What a registry has already depends on the tests before.
    (r"ID12: (Mounted from \S+|Pushed|Layer already exists)", "ID12: there"),
    # The owner's label is a line and a step more in a build.
    (r"parse error line \d+", "parse error line N"),
    (r'("FinishedAt"|"StartedAt"): "TIME"', r'\1: "TIME"'),
    # Column widths follow from the texts above.
    (r"  +", "  "),
    (r"--{2,}", "---"),
)]

@functools.cache
def _client_links():
    """A directory with `docker` and `compose` for the steps."""
    links = harness.own_directory("clients-")
    os.symlink(harness.docker_program(), links / "docker")
    compose = links / "compose"
    compose.write_text(f'#!/bin/sh\nexec "{harness.compose_program()}" "$@"\n')
    compose.chmod(0o755)
    return links


def both(sides, function):
    """function(side) for both sides at once: [direct, guarded]. The first error is raised."""
    results, errors = [None, None], [None, None]

    def work(index):
        try:
            results[index] = function(sides[index])
        except BaseException as error:  # noqa: BLE001 - handed on below
            errors[index] = error
    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if error:
            raise error
    return results


def compare(sides, steps, ordered=True):
    """Runs the steps on both sides; fails with the first differences, side by side."""
    def whole(side):
        return [side.run(step) for step in steps]
    problems = []
    for direct, guarded in zip(*both(sides, whole)):
        print("\n".join([f"$ {direct[0]}", *_transcript(direct)]))
        if not ordered:
            direct, guarded = (
                (step, status, *("\n".join(sorted(text.splitlines())) for text in texts))
                for step, status, *texts in (direct, guarded)
            )
        if direct != guarded:
            lines = difflib.unified_diff(_transcript(direct), _transcript(guarded), "direct", "guarded", "", "", 3, "")
            problems.append("\n".join([f"$ {direct[0]}", *lines]))
    assert not problems, "\n" + "\n\n".join(problems)


def _transcript(done):
    _, status, out, err = done
    return [*(f"1> {line}" for line in out.splitlines()), *(f"2> {line}" for line in err.splitlines()), f"exit {status}"]
