"""Properties that the templates promise, each proven by what breaks it.

A property is a function that asserts something about a `Stack` made from a shipped template. It comes with mutations of the
template: `test_properties.py` sees to it that the property holds for the template as it is, for every set of parameters
that is named, and that each mutation makes its assertions fail. So no property is without effect, and none is without a
mutation.

    @holds("compute", put("LaunchTemplate/LaunchTemplateData/MetadataOptions/HttpTokens", "optional"))
    def metadata_needs_a_token(stack):
        assert ...

A place in a template is written as a path. It begins with the logical name or the type of a resource, and goes on in its
properties, or with nothing, for the template itself. A word of it is a key, an index, or `Key=value`, which is the one item
of a list that has this. A `*` before the first word takes all resources of the type.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Callable

# Of no image in particular.
DIGEST = f"sha256:{'0' * 64}"

# What else a template needs to be resolved: parameters without a default.
NEEDED = {
    "vpc": {},
    "compute": {"Vpc": "vpc-1", "Subnets": "subnet-1,subnet-2"},
    "sockguard": {"Cluster": "builds", "SockguardImage": f"sockguard@{DIGEST}"},
    "agent": {
        "Cluster": "builds", "CapacityProvider": "spot",
        "SockguardImage": f"sockguard@{DIGEST}", "AgentImage": f"buildkite/agent@{DIGEST}"},
}


@dataclass
class Property:
    """A function that asserts, the template it is about, the parameters it is tried with, and what has to break it."""

    assertion: Callable
    template: str
    parameters: list
    mutations: list

    @property
    def name(self):
        return f"{self.template}: {self.assertion.__name__}"


@dataclass
class Mutation:
    """A change of a template that has to be noticed."""

    name: str
    apply: Callable

    def of(self, template):
        """A changed copy. That it is no change, or that there is no such place, is an error."""
        changed = copy.deepcopy(template)
        self.apply(changed)
        if changed == template:
            raise LookupError(f"{self.name}: changes nothing")
        return changed


PROPERTIES: list[Property] = []


def holds(template, *mutations, parameters=({},)):
    """Registers a property of a template, for each of some sets of parameters."""
    def register(assertion):
        PROPERTIES.append(Property(assertion, template, [NEEDED[template] | one for one in parameters], list(mutations)))
        return assertion
    return register


def sole(items):
    """The only item; that there are none, or more, is noticed like any other difference."""
    items = list(items)
    assert len(items) == 1, items
    return items[0]


def put(path, value):
    """Something else in a place, or something where nothing was."""
    def apply(template):
        for parent, key in _places(template, path):
            parent[key] = copy.deepcopy(value)
    return Mutation(f"put {path} = {value!r}", apply)


def drop(path):
    """Nothing in a place."""
    def apply(template):
        for parent, key in _places(template, path):
            del parent[key]
    return Mutation(f"drop {path}", apply)


def swap(path, old, new):
    """Other text within the text of a place."""
    def apply(template):
        for parent, key in _places(template, path):
            if old not in parent[key]:
                raise LookupError(f"{path} has no {old!r}")
            parent[key] = parent[key].replace(old, new)
    return Mutation(f"swap {path}: {old!r} for {new!r}", apply)


def add(path, value):
    """One more item in a list."""
    def apply(template):
        for parent, key in _places(template, path):
            parent[key].append(copy.deepcopy(value))
    return Mutation(f"add to {path}: {value!r}", apply)


def resource(kind, **properties):
    """One more resource."""
    def apply(template):
        template["Resources"]["OneMore"] = {"Type": kind, "Properties": properties}
    return Mutation(f"one more {kind}", apply)


def _places(template, path):
    """Where a path leads: (what it is in, its key or index there)."""
    first, *words = path.split("/")
    if not first:
        tops = [template]
    elif first in template["Resources"]:
        tops = [template["Resources"][first]["Properties"]]
    else:
        kind = first.removeprefix("*")
        tops = [one["Properties"] for one in template["Resources"].values() if one["Type"] == kind]
        if not tops or (len(tops) > 1 and kind == first):
            raise LookupError(f"{path}: {len(tops)} resources of this type")
    places = []
    for top in tops:
        for word in words[:-1]:
            top = top[_key(top, word)]
        places.append((top, _key(top, words[-1], missing=True)))
    return places


def _key(parent, word, missing=False):
    if isinstance(parent, dict):
        if word not in parent and not missing:
            raise LookupError(f"no {word} among {list(parent)}")
        return word
    if "=" in word:
        key, value = word.split("=", 1)
        found = [i for i, item in enumerate(parent) if isinstance(item, dict) and str(item.get(key)) == value]
        if len(found) != 1:
            raise LookupError(f"{len(found)} items have {word}")
        return found[0]
    return int(word)
