"""CloudFormation templates as plain data, and what a stack made of one would hold.

`load` reads a template: `!Sub x` becomes `{"Fn::Sub": "x"}`, as in JSON. `Stack` resolves it for given parameters, as
strictly as CloudFormation or stricter: an unknown function, parameter, resource or mapping is an error, and so is a value
that a parameter does not allow. What only exists in an account is named by what it was asked for, as `Fn::Sub` would
write it: `Ref` of a resource is "${Cluster}", `GetAtt` is "${Role.Arn}", a parameter from SSM is "${ssm:/its/name}".
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import yaml

STACKS = Path(__file__).resolve().parents[2] / "stack"
REGION, ACCOUNT = "us-east-1", "123456789012"


class TemplateError(Exception):
    """What CloudFormation would refuse, with the place in the template."""


class _Loader(yaml.SafeLoader):
    """YAML as CloudFormation takes it: with its tags, dates as text, without aliases and without a key twice."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise TemplateError(f"an alias, which CloudFormation refuses: {self.peek_event().start_mark}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise TemplateError(f"twice in one mapping: {twice}{node.start_mark}")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _tag(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _tag)


def load(path):
    """The template in a file, as plain data."""
    return yaml.load(Path(path).read_text(), _Loader)


def shipped(name):
    """The template of one of the stacks of this repository: "vpc", "compute", "sockguard" or "agent"."""
    return load(STACKS / name / "template.yaml")


_NO_VALUE = object()
_ATTRIBUTE = re.compile(r"\$\{(!?)([^${}]*)\}")


class Stack:
    """What a template makes of parameters: `parameters`, `conditions`, `resources` (those whose condition holds, with
    everything in them resolved) and `outputs`.

    `attributes` are values for what only an account knows, by the name that stands for it: {"Role.Arn": "arn:..."}.
    """

    def __init__(self, template, parameters=None, name="test", attributes=None):
        self.template = template
        self.name = name
        self._attributes = attributes or {}
        self._pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": _NO_VALUE,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/00000000-0000-0000-0000-000000000000",
            "AWS::StackName": name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        self.parameters = self._parameters(parameters or {})
        self.conditions = {}
        for condition in template.get("Conditions", {}):
            self._condition(condition)
        self.resources = {}
        for logical, resource in template["Resources"].items():
            if self._holds(resource):
                where = f"Resources.{logical}"
                kept = {key: value for key, value in resource.items() if key != "Condition"}
                self.resources[logical] = self._value(kept, where)
        self.outputs = {
            output: self._value({key: value for key, value in body.items() if key != "Condition"}, f"Outputs.{output}")
            for output, body in template.get("Outputs", {}).items()
            if self._holds(body)
        }

    def of_type(self, kind):
        """The properties of all resources of a type, by their logical names."""
        return {
            logical: resource.get("Properties", {})
            for logical, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def one(self, kind):
        """The properties of the only resource of a type."""
        found = self.of_type(kind)
        assert len(found) == 1, f"{len(found)} resources of type {kind}: {list(found)}"
        return next(iter(found.values()))

    # Parameters.

    def _parameters(self, given):
        declared = self.template.get("Parameters", {})
        unknown = set(given) - set(declared)
        if unknown:
            raise TemplateError(f"no such parameters: {sorted(unknown)}")
        return {name: self._parameter(name, body, given.get(name, body.get("Default"))) for name, body in declared.items()}

    def _parameter(self, name, body, value):
        where = f"Parameters.{name}"
        if value is None:
            raise TemplateError(f"{where}: a value is needed")
        text, kind = str(value), body["Type"]
        if "AllowedValues" in body and text not in map(str, body["AllowedValues"]):
            raise TemplateError(f"{where}: {text!r} is none of {body['AllowedValues']}")
        if "AllowedPattern" in body and not re.fullmatch(body["AllowedPattern"], text):
            raise TemplateError(f"{where}: {text!r} does not match {body['AllowedPattern']}")
        if not int(body.get("MinLength", 0)) <= len(text) <= int(body.get("MaxLength", 4096)):
            raise TemplateError(f"{where}: {text!r} is too short or too long")
        if kind == "Number":
            number = float(text) if "." in text else int(text)
            if not float(body.get("MinValue", "-inf")) <= number <= float(body.get("MaxValue", "inf")):
                raise TemplateError(f"{where}: {text} is out of range")
            return number
        if kind.startswith("AWS::SSM::Parameter::Value<"):
            return self._attributes.get(f"ssm:{text}", f"${{ssm:{text}}}")
        if kind == "CommaDelimitedList" or kind.startswith("List<"):
            return [item.strip() for item in text.split(",")]
        return text

    # Conditions.

    def _holds(self, body):
        return "Condition" not in body or self._condition(body["Condition"])

    def _condition(self, name):
        if name not in self.conditions:
            declared = self.template.get("Conditions", {})
            if name not in declared:
                raise TemplateError(f"no such condition: {name}")
            self.conditions[name] = self._truth(declared[name], f"Conditions.{name}")
        return self.conditions[name]

    def _truth(self, node, where):
        function, argument = self._function(node, where)
        match function:
            case "Condition":
                return self._condition(argument)
            case "Fn::And" if 2 <= len(argument) <= 10:
                return all([self._truth(item, where) for item in argument])
            case "Fn::Or" if 2 <= len(argument) <= 10:
                return any([self._truth(item, where) for item in argument])
            case "Fn::Not" if len(argument) == 1:
                return not self._truth(argument[0], where)
            case "Fn::Equals" if len(argument) == 2:
                first, second = (self._value(item, where) for item in argument)
                return str(first) == str(second)
        raise TemplateError(f"{where}: no condition: {node!r}")

    # Values.

    def _function(self, node, where):
        if isinstance(node, dict) and len(node) == 1:
            name = next(iter(node))
            if name in ("Ref", "Condition") or str(name).startswith("Fn::"):
                return name, node[name]
        raise TemplateError(f"{where}: a function is wanted: {node!r}")

    def _value(self, node, where):
        if isinstance(node, list):
            items = [self._value(item, f"{where}[{i}]") for i, item in enumerate(node)]
            return [item for item in items if item is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if any(str(key).startswith("Fn::") for key in node) or set(node) == {"Ref"}:
            function, argument = self._function(node, where)
            return self._call(function, argument, f"{where}.{function}")
        values = {key: self._value(value, f"{where}.{key}") for key, value in node.items()}
        return {key: value for key, value in values.items() if value is not _NO_VALUE}

    def _call(self, function, argument, where):
        match function:
            case "Ref":
                return self._ref(argument, where)
            case "Fn::GetAtt":
                name, attribute = argument
                return self._resource(f"{name}.{self._text(attribute, where)}", where)
            case "Fn::Sub":
                return self._sub(argument, where)
            case "Fn::If":
                name, yes, no = argument
                return self._value(yes if self._condition(name) else no, where)
            case "Fn::Join":
                separator, items = argument
                return separator.join(self._plain(item, where) for item in self._list(items, where))
            case "Fn::Split":
                separator, text = argument
                return self._text(text, where).split(separator)
            case "Fn::Select":
                index, items = argument
                items, index = self._list(items, where), int(self._value(index, where))
                if not 0 <= index < len(items):
                    raise TemplateError(f"{where}: no item {index} in {items}")
                return items[index]
            case "Fn::FindInMap":
                names = [self._plain(self._value(item, where), where) for item in argument]
                found = self.template.get("Mappings", {})
                for name in names:
                    if name not in found:
                        raise TemplateError(f"{where}: no {name} in the mapping {names}")
                    found = found[name]
                return found
            case "Fn::Base64":
                return base64.b64encode(self._text(argument, where).encode()).decode()
            case "Fn::GetAZs":
                region = self._text(argument, where) or REGION
                return [region + letter for letter in "abcdef"]
        raise TemplateError(f"{where}: an unknown function")

    def _ref(self, name, where):
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return self._resource(name, where)

    def _resource(self, name, where):
        resource = self.template["Resources"].get(name.split(".")[0])
        if resource is None:
            raise TemplateError(f"{where}: nothing is named {name}")
        if not self._holds(resource):
            raise TemplateError(f"{where}: {name} is not made, since {resource['Condition']} does not hold")
        return self._attributes.get(name, f"${{{name}}}")

    def _sub(self, argument, where):
        text, values = argument if isinstance(argument, list) else (argument, {})
        values = {key: self._value(value, f"{where}.{key}") for key, value in values.items()}

        def one(match):
            literal, name = match.groups()
            if literal:
                return f"${{{name}}}"
            value = values[name] if name in values else self._ref(name, where)
            return self._plain(value, f"{where}: {name}")
        return _ATTRIBUTE.sub(one, text)

    def _list(self, node, where):
        value = self._value(node, where)
        if not isinstance(value, list):
            raise TemplateError(f"{where}: a list is wanted: {value!r}")
        return value

    def _text(self, node, where):
        return self._plain(self._value(node, where), where)

    def _plain(self, value, where):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (str, int, float)):
            return str(value)
        raise TemplateError(f"{where}: text is wanted: {value!r}")
