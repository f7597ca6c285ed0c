"""moto's server, with what CloudFormation does and moto leaves out."""

import yaml
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.ecs.models import ecs_backends
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
