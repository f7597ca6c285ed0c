"""moto's server, with what CloudFormation does and moto leaves out."""

import traceback

import flask
import yaml
from moto.autoscaling.responses import AutoScalingResponse
from moto.cloudformation import models, parsing
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult
from moto.ecs.models import ecs_backends
from moto.server import main

# An error of moto's own is in its log.
flask.Flask.log_exception = lambda _, error: traceback.print_exception(*error)

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

_update_as_moto_does = parsing.parse_and_update_resource


def parse_and_update_resource(logical_id, resource_json, resources_map, **where):
    """What was not made, because of its condition, is not changed either."""
    if resources_map[logical_id] is None:
        return None
    return _update_as_moto_does(logical_id, resource_json, resources_map, **where)


parsing.parse_and_update_resource = parse_and_update_resource


def apply(change_set):
    """A stack that a change set makes, as `aws cloudformation deploy` does, has outputs, too, and a parameter that stays as it
    is was not changed: not by its default, nor to what Systems Manager has under that name."""
    stack = change_set.stack
    given = getattr(stack, "given", None)
    if given is None:
        declared = change_set.template_dict.get("Parameters", {})
        given = {name: str(body["Default"]) for name, body in declared.items() if "Default" in body}
        parameters = change_set.parameters
    else:
        resolved = stack.stack_parameters
        parameters = {name: given.get(name) if value == resolved.get(name) else value for name, value in change_set.parameters.items()}
    stack.template = change_set.template
    stack._parse_template()
    stack.resource_map.input_parameters = given
    stack.resource_map.update(change_set.template_dict, parameters)
    stack.given = stack.resource_map.input_parameters = given | parameters
    stack.output_map = stack._create_output_map()


models.ChangeSet.apply = apply
# A change set without a change is one that changes nothing.
CloudFormationResponse._validate_different_update = lambda *_: None

# To replace hosts is asked for, and nothing more.
AutoScalingResponse.start_instance_refresh = lambda _: ActionResult({"InstanceRefreshId": "08b91cf7-8fa6-48af-b6a6-d227f40f1b9b"})


class CapacityProvider(CloudFormationModel):
    """A capacity provider, as ECS's own API makes it."""

    __module__ = "moto.ecs.models"

    def __init__(self, name):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type():
        return "Name"

    @staticmethod
    def cloudformation_type():
        return "AWS::ECS::CapacityProvider"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        group = cloudformation_json["Properties"]["AutoScalingGroupProvider"]
        ecs_backends[account_id][region_name].create_capacity_provider(resource_name, _in_api_case(group), None)
        return cls(resource_name)


class CapacityProviderAssociation(CloudFormationModel):
    """What ties capacity providers to a cluster."""

    __module__ = "moto.ecs.models"

    def __init__(self, name):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type():
        return None

    @staticmethod
    def cloudformation_type():
        return "AWS::ECS::ClusterCapacityProviderAssociations"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        given = cloudformation_json["Properties"]
        ecs_backends[account_id][region_name].put_cluster_capacity_providers(
            given["Cluster"], given["CapacityProviders"], _in_api_case(given["DefaultCapacityProviderStrategy"]))
        return cls(given["Cluster"])


def _in_api_case(value):
    """Keys as ECS's API has them: `managedScaling` for `ManagedScaling`."""
    if isinstance(value, list):
        return [_in_api_case(item) for item in value]
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _in_api_case(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    main()
