"""moto's server, with what CloudFormation does and moto leaves out."""

import yaml
from moto.cloudformation import parsing
from moto.server import main

_as_moto_does = parsing.clean_json


def clean_json(value, resources):
    """`AWS::NoValue` takes an item out of a list, and the region has its six zones."""
    if isinstance(value, list):
        return [item for item in _as_moto_does(value, resources) if item is not None]
    if isinstance(value, dict) and "Fn::GetAZs" in value:
        return [f"{value['Fn::GetAZs'] or parsing.DEFAULT_REGION}{zone}" for zone in "abcdef"]
    return _as_moto_does(value, resources)


parsing.clean_json = clean_json
# A condition within another, as the tag; moto takes only the long form.
yaml.add_constructor("!Condition", lambda _, node: {"Condition": node.value}, yaml.Loader)

if __name__ == "__main__":
    main()
