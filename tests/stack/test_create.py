"""Every template makes a stack, in every shape: moto takes it, and what it makes is there.

moto leaves out of a resource what it does not know, so what a template says is tested in the properties; here it is that a
stack comes up from it.
"""

import pytest
from properties import NEEDED
from template import STACKS, Stack, shipped
from vpc_properties import SHAPES


def create(cloud, name, template, parameters):
    """Makes a stack; returns its outputs."""
    client = cloud.client("cloudformation")
    client.create_stack(
        StackName=name, TemplateBody=(STACKS / template / "template.yaml").read_text(), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()])
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


FULL = {"InterfaceEndpoints": "true", "FlowLogsRetention": 14}


@pytest.mark.parametrize("shape", [*SHAPES, SHAPES[0] | FULL, SHAPES[-1] | FULL], ids=lambda shape: "-".join(map(str, shape.values())))
def test_vpc(cloud, shape):
    name = "vpc-" + "-".join(map(str, shape.values()))
    outputs = create(cloud, name, "vpc", shape)
    wanted = Stack(shipped("vpc"), shape)

    ec2 = cloud.client("ec2")
    here = [{"Name": "vpc-id", "Values": [outputs["Vpc"]]}]
    subnets = {one["SubnetId"]: one for one in ec2.describe_subnets(Filters=here)["Subnets"]}
    hosts = outputs["Subnets"].split(",")
    assert len(set(hosts)) == shape["SubnetCount"] and set(hosts) <= set(subnets)
    assert len({subnets[one]["AvailabilityZone"] for one in hosts}) == shape["SubnetCount"]
    made = {
        "AWS::EC2::Subnet": len(subnets),
        "AWS::EC2::NatGateway": len(ec2.describe_nat_gateways(Filters=here)["NatGateways"]),
        "AWS::EC2::VPCEndpoint": len(ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]),
        # Beside the main one, which every VPC has.
        "AWS::EC2::RouteTable": len(ec2.describe_route_tables(Filters=here)["RouteTables"]) - 1,
        "AWS::EC2::FlowLog": len(ec2.describe_flow_logs(Filters=[{"Name": "resource-id", "Values": [outputs["Vpc"]]}])["FlowLogs"]),
    }
    assert made == {kind: len(wanted.of_type(kind)) for kind in made}


@pytest.mark.parametrize("settings", [
    {}, {"Architecture": "arm64", "SessionManager": "false", "OnDemandBase": 1, "OnDemandPercentage": 50, "InstanceSize": "large"},
], ids=["x86-64", "arm64"])
def test_compute(cloud, settings):
    name = f"compute-{len(settings)}"
    network = create(cloud, f"{name}-vpc", "vpc", {})
    outputs = create(cloud, name, "compute", network_of(network) | settings)
    ecs = cloud.client("ecs")
    (cluster,) = ecs.describe_clusters(clusters=[outputs["Cluster"]])["clusters"]
    assert (cluster["status"], cluster["capacityProviders"]) == ("ACTIVE", [outputs["CapacityProvider"]])
    (provider,) = ecs.describe_capacity_providers(capacityProviders=[outputs["CapacityProvider"]])["capacityProviders"]
    assert provider["autoScalingGroupProvider"]["managedScaling"]["status"] == "ENABLED"
    assert provider["autoScalingGroupProvider"]["managedTerminationProtection"] == "ENABLED"
    (group,) = cloud.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[outputs["AutoScalingGroup"]])["AutoScalingGroups"]
    assert group["VPCZoneIdentifier"] == network["Subnets"]
    assert len(group["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]) >= 10


def test_sockguard_and_two_queues(cloud):
    """Two stacks of agents on one cluster: each has a service and roles of its own."""
    network = create(cloud, "queues-vpc", "vpc", {})
    compute = create(cloud, "queues-compute", "compute", network_of(network))
    daemon = create(cloud, "queues-sockguard", "sockguard", {"Cluster": compute["Cluster"], "SockguardImage": NEEDED["sockguard"]["SockguardImage"]})
    shared = {key: compute[key] for key in ("Cluster", "CapacityProvider")}
    shared |= {"SockguardImage": daemon["SockguardImage"], "AgentImage": NEEDED["agent"]["AgentImage"]}
    linux = create(cloud, "queues-linux", "agent", shared | {"Queue": "linux"})
    deploy = create(cloud, "queues-deploy", "agent", shared | {"Queue": "deploy", "Memory": 8192, "TokenParameter": "/deploy/token"})
    assert linux["TaskRole"] != deploy["TaskRole"]

    ecs = cloud.client("ecs")
    services = ecs.list_services(cluster=compute["Cluster"])["serviceArns"]
    described = ecs.describe_services(cluster=compute["Cluster"], services=services)["services"]
    definitions = [ecs.describe_task_definition(taskDefinition=one["taskDefinition"])["taskDefinition"] for one in described]
    assert sorted(one["family"] for one in definitions) == ["buildkite-agent-deploy", "buildkite-agent-linux", "sockguard"]

    stacks = cloud.client("cloudformation")
    roles = {stacks.describe_stack_resource(StackName=f"queues-{queue}", LogicalResourceId=role)["StackResourceDetail"]["PhysicalResourceId"]
             for queue in ("linux", "deploy") for role in ("TaskRole", "ExecutionRole")}
    assert len(roles) == 4 and roles <= {one["RoleName"] for one in cloud.client("iam").list_roles()["Roles"]}


def network_of(outputs):
    """The compute stack's parameters from the VPC stack's outputs."""
    return {key: outputs[key] for key in ("Vpc", "Subnets")}
