#!/usr/bin/env python3
"""Write facts.txt: what a request to the Engine API can carry, from its definition files.

    python3 tests/api/facts.py v1.41.yaml v1.44.yaml v1.55.yaml

Arguments are the published definitions (Swagger 2), oldest first. Needs PyYAML.
Only requests are looked at; nothing but names, types and versions is kept.
"""

import pathlib
import sys

import yaml

METHODS = ("get", "head", "post", "put", "delete", "patch", "options")
KINDS = ("endpoint", "query", "header", "body")
HEAD = """\
# Made by: python3 tests/api/facts.py {files}
# Do not edit; facts that the definitions lack are in unlisted.txt, in the same form.
#
# endpoint METHOD PATH since=VERSION
# query    METHOD PATH NAME TYPE since=VERSION
# header   METHOD PATH NAME TYPE since=VERSION
# body     METHOD PATH FIELD TYPE since=VERSION
#
# since: the first of the files that has it. until: the last one, for what the newest lacks.
# FIELD: "-" is the body itself, "." leads into an object, "[]" into an array, "{{}}" into a map.
# TYPE: boolean, string, integer, number, array, map, object; any; stream for a body that is not JSON;
# recursion where a type contains itself.
"""


def resolve(spec, node, seen):
    """Follow `$ref`s; `seen` are the definitions on the way here."""
    while "$ref" in node:
        ref = node["$ref"]
        if ref in seen:
            return None, seen
        seen = seen | {ref}
        target = spec
        for part in ref.removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node, seen


def flatten(spec, node, seen):
    """One schema with its `allOf` parts merged into it, and the definitions passed."""
    node, seen = resolve(spec, node, seen)
    if node is None or "allOf" not in node:
        return node, seen
    merged = {"properties": {}}
    for part in [*node["allOf"], {k: v for k, v in node.items() if k != "allOf"}]:
        part, seen = flatten(spec, part, seen)
        if part is None:
            return None, seen
        for key, value in part.items():
            if key == "properties":
                merged["properties"].update(value)
            else:
                merged[key] = value
    if not merged["properties"]:
        del merged["properties"]
    return merged, seen


def fields(spec, node, path, seen=frozenset()):
    """Yield (field, type) for a schema and all that it contains, in the order of the definition."""
    node, seen = flatten(spec, node, seen)
    name = path or "-"
    if node is None:
        yield name, "recursion"
        return
    kind = node.get("type")
    properties = node.get("properties")
    extra = node.get("additionalProperties")
    if kind == "array" or (kind is None and "items" in node):
        yield name, "array"
        yield from fields(spec, node.get("items", {}), path + "[]", seen)
        return
    if properties:
        yield name, "object"
        for key, value in properties.items():
            yield from fields(spec, value, f"{path}.{key}" if path else key, seen)
    elif isinstance(extra, dict):
        yield name, "map"
    else:
        yield name, kind or "any"
    if isinstance(extra, dict):
        yield from fields(spec, extra, path + "{}", seen)


def facts(spec):
    """Yield ((kind, method, path, name), type) for everything in one definition file."""
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation, where = item[method], (method.upper(), path)
            yield ("endpoint", *where, ""), ""
            for parameter in item.get("parameters", []) + operation.get("parameters", []):
                parameter, _ = resolve(spec, parameter, frozenset())
                place = parameter["in"]
                if place in ("query", "header"):
                    yield (place, *where, parameter["name"]), parameter["type"]
                elif place == "body":
                    found = list(fields(spec, parameter["schema"], ""))
                    if found[0][1] in ("string", "any"):
                        found = [("-", "stream")]
                    for field, kind in found:
                        yield ("body", *where, field), kind


def main(files):
    table, versions = {}, []
    for file in files:
        spec = yaml.load(pathlib.Path(file).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        version = spec["info"]["version"]
        versions.append(version)
        for key, kind in facts(spec):
            since = table[key][1] if key in table else version
            table[key] = (kind, since, version)
    # What a field contains comes right after it, before longer names.
    inside = str.maketrans({".": "\1", "[": "\2", "{": "\3"})

    def order(key):
        kind, method, path, name = key
        return path, METHODS.index(method.lower()), KINDS.index(kind), name.translate(inside)

    lines = []
    for key in sorted(table, key=order):
        kind, since, last = table[key]
        words = [*key, kind, f"since={since}"]
        if last != versions[-1]:
            words.append(f"until={last}")
        lines.append(" ".join(word for word in words if word))
    head = HEAD.format(files=" ".join(f"v{version}.yaml" for version in versions))
    out = pathlib.Path(__file__).with_name("facts.txt")
    out.write_text(head + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
