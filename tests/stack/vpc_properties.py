"""What the VPC stack promises."""

import ipaddress

from properties import add, drop, holds, put, sole

SHAPES = [{"SubnetCount": n, "Hosts": "public"} for n in range(2, 7)] + [
    {"SubnetCount": n, "Hosts": "private", "NatGateways": nat} for n in range(2, 7) for nat in ("one", "each-zone")]
WITH_ENDPOINTS = [shape | {"InterfaceEndpoints": "true"} for shape in SHAPES]

SERVICES = ["ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "logs", "ssm", "ssmmessages"]


def is_private(stack):
    return stack.parameters["Hosts"] == "private"


def host_subnets(stack):
    """The logical names of the subnets for hosts, as the output has them."""
    return [name[2:-1] for name in stack.outputs["Subnets"]["Value"].split(",")]


def routes(stack, subnet):
    """The properties of the routes of a subnet's only route table."""
    tables = [one["RouteTableId"] for one in stack.of_type("AWS::EC2::SubnetRouteTableAssociation").values()
              if one["SubnetId"] == f"${{{subnet}}}"]
    assert len(tables) == 1, (subnet, tables)
    return [one for one in stack.of_type("AWS::EC2::Route").values() if one["RouteTableId"] == tables[0]]


@holds("vpc", drop("/Outputs/Subnets/Value/Fn::If/1/Fn::If/1/Fn::Join/1/5"),
       put("/Outputs/Subnets/Value/Fn::If/2/Fn::If/1/Fn::Join/1/5", {"Ref": "PublicSubnet5"}), parameters=SHAPES)
def as_many_subnets_for_hosts_as_chosen(stack):
    assert len(set(host_subnets(stack))) == stack.parameters["SubnetCount"]
    assert set(host_subnets(stack)) <= set(stack.of_type("AWS::EC2::Subnet"))


@holds("vpc", put("PublicSubnet4/AvailabilityZone/Fn::Select/0", 0), put("PrivateSubnet2/AvailabilityZone/Fn::Select/0", 0),
       parameters=SHAPES)
def every_subnet_for_hosts_is_in_a_zone_of_its_own(stack):
    subnets = stack.of_type("AWS::EC2::Subnet")
    zones = [subnets[name]["AvailabilityZone"] for name in host_subnets(stack)]
    assert len(set(zones)) == len(zones)


@holds("vpc", put("PrivateSubnet6/CidrBlock/Fn::Sub/0", "${Network}.0.0/20"), put("PublicSubnet2/CidrBlock", "10.1.0.0/20"),
       parameters=[*SHAPES, {"Cidr": "10.9.0.0/16"}])
def subnets_are_parts_of_the_vpc_that_do_not_overlap(stack):
    whole = ipaddress.ip_network(stack.one("AWS::EC2::VPC")["CidrBlock"])
    parts = [ipaddress.ip_network(subnet["CidrBlock"]) for subnet in stack.of_type("AWS::EC2::Subnet").values()]
    assert all(part.subnet_of(whole) for part in parts)
    assert not any(one.overlaps(other) for one in parts for other in parts if one is not other)


@holds("vpc", put("PublicSubnet1/MapPublicIpOnLaunch", False), put("PublicSubnet6/MapPublicIpOnLaunch", True),
       put("PrivateSubnet1/MapPublicIpOnLaunch", True), parameters=SHAPES)
def hosts_have_public_addresses_only_where_there_is_no_nat(stack):
    for name, subnet in stack.of_type("AWS::EC2::Subnet").items():
        assert subnet.get("MapPublicIpOnLaunch", False) is (not is_private(stack)), name


@holds("vpc", drop("PublicRoute/GatewayId"), drop("/Resources/PublicSubnet3Routes"),
       put("PrivateRoute2/NatGatewayId", {"Ref": "InternetGateway"}), put("PrivateRoute1/DestinationCidrBlock", "10.0.0.0/8"),
       put("PrivateRoute3/RouteTableId", {"Ref": "PrivateRouteTable2"}), put("PrivateSubnet1Routes/RouteTableId", {"Ref": "PublicRouteTable"}),
       parameters=SHAPES)
def hosts_reach_the_world(stack):
    for subnet in host_subnets(stack):
        route = sole(routes(stack, subnet))
        assert route["DestinationCidrBlock"] == "0.0.0.0/0"
        if is_private(stack):
            assert route.get("NatGatewayId", "")[2:-1] in stack.of_type("AWS::EC2::NatGateway") and "GatewayId" not in route
        else:
            assert route.get("GatewayId", "")[2:-1] in stack.of_type("AWS::EC2::InternetGateway")


@holds("vpc", put("NatGateway1/SubnetId", {"Ref": "PrivateSubnet1"}), drop("InternetGatewayAttachment/InternetGatewayId"),
       put("PublicRoute/GatewayId", "igw-other"), parameters=SHAPES)
def nat_gateways_are_where_the_internet_gateway_is(stack):
    assert stack.one("AWS::EC2::VPCGatewayAttachment").get("InternetGatewayId") == "${InternetGateway}"
    for gateway in stack.of_type("AWS::EC2::NatGateway").values():
        route = sole(routes(stack, gateway["SubnetId"][2:-1]))
        assert route.get("GatewayId") == "${InternetGateway}"


@holds("vpc", put("/Conditions/NatInEachZone", {"Condition": "Private"}), put("/Conditions/NatInEachZone", {"Fn::Equals": ["a", "b"]}),
       put("PrivateRoute2/NatGatewayId", {"Ref": "NatGateway1"}),
       parameters=SHAPES)
def one_nat_gateway_or_one_in_each_zone(stack):
    subnets = stack.of_type("AWS::EC2::Subnet")
    gateways = stack.of_type("AWS::EC2::NatGateway")
    wanted = stack.parameters["SubnetCount"] if stack.parameters["NatGateways"] == "each-zone" else 1
    assert len(gateways) == (wanted if is_private(stack) else 0)
    for subnet in host_subnets(stack) if wanted > 1 and is_private(stack) else []:
        gateway = gateways[routes(stack, subnet)[0]["NatGatewayId"][2:-1]]
        assert subnets[gateway["SubnetId"][2:-1]]["AvailabilityZone"] == subnets[subnet]["AvailabilityZone"]


@holds("vpc", drop("/Resources/S3Endpoint"), put("S3Endpoint/VpcEndpointType", "Interface"), drop("S3Endpoint/RouteTableIds/0"),
       drop("S3Endpoint/RouteTableIds/6"), parameters=SHAPES)
def every_route_table_has_the_s3_gateway_endpoint(stack):
    endpoints = [one for one in stack.of_type("AWS::EC2::VPCEndpoint").values() if one["VpcEndpointType"] == "Gateway"]
    assert [one["ServiceName"] for one in endpoints] == ["com.amazonaws.us-east-1.s3"]
    tables = {f"${{{name}}}" for name in stack.of_type("AWS::EC2::RouteTable")}
    assert set(endpoints[0]["RouteTableIds"]) == tables


@holds("vpc", *(drop(f"/Resources/{name}Endpoint") for name in ("Ecs", "EcsAgent", "EcsTelemetry", "EcrApi", "EcrDkr", "Logs", "Ssm", "SsmMessages")),
       put("EcsEndpoint/PrivateDnsEnabled", False), drop("EcrApiEndpoint/SubnetIds/5"), put("/Resources/SsmEndpoint/Condition", "WithFlowLogs"),
       put("/Conditions/WithInterfaceEndpoints", {"Condition": "Private"}), put("Vpc/EnableDnsHostnames", False),
       parameters=[*SHAPES, *WITH_ENDPOINTS])
def interface_endpoints_are_an_option(stack):
    endpoints = [one for one in stack.of_type("AWS::EC2::VPCEndpoint").values() if one["VpcEndpointType"] == "Interface"]
    wanted = [f"com.amazonaws.us-east-1.{service}" for service in SERVICES]
    assert [one["ServiceName"] for one in endpoints] == (wanted if stack.parameters["InterfaceEndpoints"] == "true" else [])
    vpc = stack.one("AWS::EC2::VPC")
    assert vpc["EnableDnsSupport"] is True and vpc["EnableDnsHostnames"] is True
    for one in endpoints:
        assert one["PrivateDnsEnabled"] is True
        assert [subnet[2:-1] for subnet in one["SubnetIds"]] == host_subnets(stack)


@holds("vpc", put("EndpointSecurityGroup/SecurityGroupIngress/0/CidrIp", "0.0.0.0/0"), put("EndpointSecurityGroup/SecurityGroupIngress/0/IpProtocol", "-1"),
       drop("EcrDkrEndpoint/SecurityGroupIds"), add("EndpointSecurityGroup/SecurityGroupIngress", {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "10.0.0.0/16"}),
       parameters=WITH_ENDPOINTS)
def interface_endpoints_are_for_https_from_the_vpc(stack):
    rule = sole(stack.one("AWS::EC2::SecurityGroup")["SecurityGroupIngress"])
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], rule["CidrIp"]) == ("tcp", 443, 443, stack.one("AWS::EC2::VPC")["CidrBlock"])
    for one in stack.of_type("AWS::EC2::VPCEndpoint").values():
        assert one["VpcEndpointType"] == "Gateway" or one.get("SecurityGroupIds") == ["${EndpointSecurityGroup}"]


@holds("vpc", put("FlowLog/TrafficType", "REJECT"), put("FlowLogGroup/RetentionInDays", 1), put("/Resources/FlowLog/Condition", "Private"),
       put("FlowLog/ResourceId", "vpc-other"), put("/Conditions/WithFlowLogs", {"Fn::Equals": ["a", "a"]}),
       parameters=[{}, {"FlowLogsRetention": 14}])
def flow_logs_are_an_option_and_are_kept_as_long_as_chosen(stack):
    days = stack.parameters["FlowLogsRetention"]
    assert [one["RetentionInDays"] for one in stack.of_type("AWS::Logs::LogGroup").values()] == ([days] if days else [])
    assert [(one["TrafficType"], one["ResourceId"], one["LogGroupName"], one["DeliverLogsPermissionArn"]) for one in stack.of_type("AWS::EC2::FlowLog").values()] == (
        [("ALL", "${Vpc}", "${FlowLogGroup}", "${FlowLogRole.Arn}")] if days else [])


@holds("vpc", put("FlowLogRole/Policies/0/PolicyDocument/Statement/0/Resource", "*"), put("FlowLogRole/Policies/0/PolicyDocument/Statement/0/Action", "logs:*"),
       put("FlowLogRole/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": "*"}), put("FlowLogRole/ManagedPolicyArns", ["arn:aws:iam::aws:policy/AdministratorAccess"]),
       drop("FlowLogRole/AssumeRolePolicyDocument/Statement/0/Condition"),
       parameters=[{"FlowLogsRetention": 14}])
def the_role_of_flow_logs_writes_only_these(stack):
    role = stack.one("AWS::IAM::Role")
    trust = sole(role["AssumeRolePolicyDocument"]["Statement"])
    assert trust["Principal"] == {"Service": "vpc-flow-logs.amazonaws.com"}
    assert trust.get("Condition") == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    statement = sole(sole(role["Policies"])["PolicyDocument"]["Statement"])
    assert statement["Resource"] == "${FlowLogGroup.Arn}"
    assert set(statement["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"}
    assert "ManagedPolicyArns" not in role


@holds("vpc", drop("/Outputs/Vpc/Export"), put("/Outputs/Subnets/Export/Name", "fixed"), drop("/Outputs/PublicSubnets"), parameters=SHAPES)
def outputs_are_exported_under_the_name_of_the_stack(stack):
    assert {name: output.get("Export") for name, output in stack.outputs.items()} == {
        name: {"Name": f"test-{name}"} for name in ("Vpc", "Subnets", "PublicSubnets")}
