"""The adversary's list, run twice: against the bare engine, where each attack must work, and through a guard.

SOCKGUARD_TEST_BARE_ONLY=1 leaves the guard out: whether the attacks work at all.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from attacks import load, malformed, world
from harness import OWNER_LABEL

BARE_ONLY = os.environ.get("SOCKGUARD_TEST_BARE_ONLY") == "1"
ATTACKS = load()

pytestmark = pytest.mark.security


@pytest.fixture(scope="module")
def stages():
    """Two engines with the same on them: a bare one, and one behind guards. An attack is tried on both at the same time."""
    both = [world.Stage(guarded=False), *([] if BARE_ONLY else [world.Stage()])]
    yield both
    for stage in both:
        stage.close()


def transcript(w):
    lines = []
    for request, answer in w.transcript[-8:]:
        lines.append(f"  > {request[:500]}\n  < {answer.status} {answer.reason} {answer.text[:300].strip()}")
    return "\n".join(lines)


def shape(answer):
    """What is wrong with a refusal, or None."""
    if answer.status == 0:
        return f"no answer ({answer.reason})"
    if answer.status >= 500 and not (answer.status == 503 and "swarm" in answer.text):
        return f"status {answer.status}: {answer.text[:200]}"
    if answer.status < 400 or not answer.body and answer.headers.get("content-length") in (None, "0"):
        return None if answer.status < 400 else f"status {answer.status} without a body"
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return f"status {answer.status} with content type {answer.headers.get('content-type')!r}"
    try:
        if not answer.json()["message"]:
            return "an empty message"
    except (ValueError, KeyError, TypeError):
        return f"not Docker's error shape: {answer.text[:200]}"
    return None


def neutral(answer, name):
    """The message of an answer, without the name that was asked for. (The engine's attach answers in plain text.)"""
    try:
        text = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        text = answer.text.strip()
    for spelling in (name, name.removesuffix(":ro"), name.removeprefix("docker.io/")):
        text = text.replace(spelling, "NAME")
    return text


def wrong_answers(w, expect):
    """What the guard should have answered and did not."""
    problems = []
    answers = [answer for _, answer in w.transcript]
    heads = [i for i, (request, _) in enumerate(w.transcript) if request.startswith("HEAD ")]
    for i, answer in enumerate(answers):
        problem = None if i in heads and 400 <= answer.status < 500 else shape(answer)
        if problem:
            problems.append(problem)
    # A push fails at the end of a progress that began with success.
    errors = [answer for answer in answers if answer.status >= 400 or '"errorDetail"' in answer.text]
    if expect.kind == "refused":
        if not errors or errors[0].status != 403:
            problems.append(f"expected a refusal with 403, got {[a.status for a in answers]}")
        for word in expect.words:
            if errors and word.lower() not in errors[0].text.lower():
                problems.append(f"the refusal does not name {word!r}: {errors[0].text[:200]}")
    elif expect.kind in ("rejected", "hidden", "absent") and not errors:
        problems.append(f"expected a refusal, got {[a.status for a in answers]}")
    if expect.kind in ("hidden", "absent"):
        for answer, name, direct, here, other in w.pairs:
            told, same = neutral(answer, name), neutral(here, other)
            if (answer.status, told) != (here.status, same):
                problems.append(f"a foreign name answers {answer.status} {told[:200]}, an absent one {here.status} {same[:200]}")
            if expect.kind == "absent":
                text = neutral(direct, other)
                if (answer.status, told) != (direct.status, text):
                    problems.append(f"a foreign name answers {answer.status} {told[:200]}, the engine for an absent one {direct.status} {text[:200]}")
    return problems


def changes(before, now):
    return "; ".join(f"{part} {name}: {before[part].get(name)} -> {now[part].get(name)}"
                     for part in now for name in now[part] if now[part][name] != before[part].get(name))


def leaks(w):
    """Identifiers and secrets of the victim in any answer, unless the attacker said them first."""
    problems = []
    for request, answer in w.transcript:
        if w.victim_secret in answer.text or w.host_secret in answer.text:
            problems.append(f"a secret is in the answer to {request[:100]}")
        for what, identifier in w.stage.ids().items():
            if identifier and identifier[:12] in answer.text and identifier[:10] not in w.said:
                at = answer.text.index(identifier[:12])
                problems.append(f"the ID of {what} is in the answer to {request[:100]}: {answer.text[max(0, at - 300):at + 300]}")
    return problems


def strays(w):
    """What the attacker made that is not the attacker's."""
    made = w.stage.made()
    return [f"{kind} {name[:20]} belongs to {(labels or {}).get(OWNER_LABEL)!r}"
            for kind in ("containers", "networks", "volumes") for name, labels in made[kind].items()
            if (labels or {}).get(OWNER_LABEL) != "attacker" and name not in w.set_up]


def succeeds(attack, stage):
    """What is wrong with the attack itself: nothing if it works against the bare engine, at once or with more patience."""
    for patience in (1, 5, 25):
        w = world.World(stage, stage.engine.socket, stage.engine.socket, bare=True, patience=patience)
        try:
            if attack.attempt(w):
                return []
            problem = f"the attack does not work against the bare engine, so it proves nothing\n{transcript(w)}"
        except world.SetUpFailed as error:
            problem = f"the attack cannot be tried on the bare engine: {error}"
        finally:
            stage.tidy()
    return [problem]


def fails(attack, stage):
    """What is wrong with the guard."""
    w = world.World(stage, stage.guard.socket, stage.victim_guard.socket, bare=False)
    try:
        harm = attack.attempt(w)
        problems = [f"HARM DONE: {harm!r}"[:300]] if harm else []
        now = stage.fingerprint()
        if now != w.before:
            problems.append("HARM DONE: a victim's or a shared object is changed: " + changes(w.before, now))
        problems += leaks(w) + strays(w) + wrong_answers(w, attack.expect) + dead(stage)
        return [*problems, transcript(w)] if problems else []
    finally:
        stage.tidy()


def dead(stage):
    """Guards that ended; they are started again for the next attack."""
    problems = []
    for guard in (stage.guard, stage.victim_guard):
        if guard.process.poll() is not None:
            problems.append(f"the guard ended with {guard.process.poll()}: {guard.stderr()[-500:]}")
            guard.start()
    return problems


@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{attack.group}: {attack.name}" for attack in ATTACKS])
def test_attack(attack, stages):
    with ThreadPoolExecutor(1) as other:
        bare = other.submit(succeeds, attack, stages[0])
        problems = fails(attack, stages[1]) if len(stages) > 1 else []
        problems = bare.result() + problems
    assert not problems, "\n".join(problems)


@pytest.mark.skipif(BARE_ONLY, reason="only the guard answers these")
@pytest.mark.parametrize("name, send, status", malformed.MALFORMED, ids=[name for name, _, _ in malformed.MALFORMED])
def test_bad_request(name, send, status, stages):
    stage = stages[-1]
    w = world.World(stage, stage.guard.socket, stage.victim_guard.socket, bare=False)
    try:
        send(w)
        problems = leaks(w)
        for _, answer in w.transcript:
            if status == malformed.CLOSED and answer.reason == "no answer":
                continue
            if not 400 <= answer.status < 500 or status not in (None, malformed.CLOSED, answer.status):
                problems.append(f"status {answer.status} {answer.reason} {answer.text[:200]}")
            elif shape(answer):
                problems.append(shape(answer))
        if stage.fingerprint() != w.before or any(stage.made().values()):
            problems.append("it left a trace in the engine")
        problems += dead(stage)
        assert not problems, "\n".join(problems) + "\n" + transcript(w)
    finally:
        stage.tidy()


def test_the_list_is_long_enough():
    assert len(ATTACKS) >= 150
