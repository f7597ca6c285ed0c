"""The adversary's list: each attack is a sentence and a function that carries it out.

An attack's function gets a `World` and returns evidence of harm, or something false. It must
return evidence against the bare engine (an attack that does not work proves nothing) and none
through a guard. What the guard has to answer is said beside it:

    refused(words)   403 in Docker's error shape, and the message contains each of the words
    absent           what the engine answers for a name that does not exist
    hidden           4xx, the same for a foreign name as for one that does not exist
    rejected         any 4xx in Docker's error shape
    harmless         the answer may be anything but a fault of the guard's own
"""

from typing import Callable, NamedTuple

ATTACKS = []


class Expect(NamedTuple):
    kind: str
    words: tuple = ()


class Attack(NamedTuple):
    name: str
    expect: Expect
    attempt: Callable
    group: str


absent = Expect("absent")
hidden = Expect("hidden")
rejected = Expect("rejected")
harmless = Expect("harmless")


def refused(*words):
    return Expect("refused", words)


def attack(name, expect):
    def add(attempt):
        if any(name == other.name for other in ATTACKS):
            raise ValueError(f"two attacks are called {name!r}")
        ATTACKS.append(Attack(name, expect, attempt, attempt.__module__.rsplit(".", 1)[-1]))
        return attempt
    return add


def load():
    """All attacks, in the order of the files."""
    from . import (  # noqa: F401
        host, mounts, volumes, readers, wire, containers, objects, labels, inherited, tags, leaks, building, networks,
        cluster,
    )
    return ATTACKS
