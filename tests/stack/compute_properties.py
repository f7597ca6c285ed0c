"""What the compute stack promises."""

import base64
import fnmatch
import re

from properties import add, drop, holds, put, resource, sole, swap

BOTH = [{"Architecture": "x86_64"}, {"Architecture": "arm64"}]
USER_DATA = "LaunchTemplate/LaunchTemplateData/UserData/Fn::Base64/Fn::Sub"
GROUP, SPOT = "AutoScalingGroup", "AutoScalingGroup/MixedInstancesPolicy/InstancesDistribution"
PROVIDER = "CapacityProvider/AutoScalingGroupProvider"
METADATA = "LaunchTemplate/LaunchTemplateData/MetadataOptions"
DISK = "LaunchTemplate/LaunchTemplateData/BlockDeviceMappings/0"
ROLE = "InstanceRole/Policies/0/PolicyDocument/Statement"


def host(stack):
    """What a host is launched from."""
    return stack.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]


def user_data(stack):
    """The script that makes a host ready."""
    return base64.b64decode(host(stack)["UserData"]).decode()


def written(stack):
    """The files that the user data writes, by their paths."""
    return dict(re.findall(r"^cat >(\S+) <<'END'\n(.*?)^END$", user_data(stack), re.M | re.S))


def settings(stack):
    """The settings of the ECS agent."""
    lines = written(stack).get("/etc/ecs/ecs.config", "").splitlines()
    return dict(line.split("=", 1) for line in lines)


def provider(stack):
    return stack.one("AWS::ECS::CapacityProvider")["AutoScalingGroupProvider"]


def group(stack):
    return stack.one("AWS::AutoScaling::AutoScalingGroup")


# The cluster and how it grows.

@holds("compute", put(f"{PROVIDER}/AutoScalingGroupArn", "other"), put("CapacityProviderAssociation/Cluster", "other"),
       put("CapacityProviderAssociation/CapacityProviders", ["FARGATE"]), put("CapacityProviderAssociation/DefaultCapacityProviderStrategy", []),
       drop("/Resources/CapacityProviderAssociation"))
def the_cluster_has_a_capacity_provider_on_the_group(stack):
    assert provider(stack)["AutoScalingGroupArn"] == "${AutoScalingGroup}"
    assert list(stack.of_type("AWS::ECS::ClusterCapacityProviderAssociations").values()) == [{
        "Cluster": "${Cluster}", "CapacityProviders": ["${CapacityProvider}"],
        "DefaultCapacityProviderStrategy": [{"CapacityProvider": "${CapacityProvider}", "Weight": 1}]}]


@holds("compute", put(f"{PROVIDER}/ManagedScaling/Status", "DISABLED"), drop(f"{PROVIDER}/ManagedScaling"))
def managed_scaling(stack):
    assert provider(stack).get("ManagedScaling", {}).get("Status") == "ENABLED"


@holds("compute", put(f"{PROVIDER}/ManagedScaling/MaximumScalingStepSize", 1), drop(f"{PROVIDER}/ManagedScaling/InstanceWarmupPeriod"),
       put(f"{PROVIDER}/ManagedScaling/TargetCapacity", 100), parameters=[{}, {"TargetCapacity": 80}])
def managed_scaling_is_quick(stack):
    """By default ECS waits 300 seconds until it looks again."""
    scaling = provider(stack)["ManagedScaling"]
    assert scaling["MinimumScalingStepSize"] == 1 and 10 <= scaling["MaximumScalingStepSize"]
    assert scaling.get("InstanceWarmupPeriod", 300) <= 60
    assert scaling["TargetCapacity"] == stack.parameters["TargetCapacity"]


@holds("compute", put(f"{PROVIDER}/ManagedDraining", "DISABLED"), drop(f"{PROVIDER}/ManagedDraining"))
def managed_draining(stack):
    assert provider(stack).get("ManagedDraining") == "ENABLED"


@holds("compute", put(f"{PROVIDER}/ManagedTerminationProtection", "DISABLED"), drop(f"{GROUP}/NewInstancesProtectedFromScaleIn"),
       put(f"{GROUP}/NewInstancesProtectedFromScaleIn", False))
def termination_protection(stack):
    assert provider(stack)["ManagedTerminationProtection"] == "ENABLED"
    assert group(stack).get("NewInstancesProtectedFromScaleIn") is True


@holds("compute", put(f"{GROUP}/DesiredCapacity", "2"), put(f"{GROUP}/MaxSize", 1000), put(f"{GROUP}/MinSize", 1), parameters=[{}, {"MinSize": 2, "MaxSize": 30}])
def the_count_of_hosts_is_left_to_ecs_within_bounds(stack):
    assert "DesiredCapacity" not in group(stack)
    assert (group(stack)["MinSize"], group(stack)["MaxSize"]) == (stack.parameters["MinSize"], stack.parameters["MaxSize"])


@holds("compute", drop(f"{GROUP}/Tags/Key=AmazonECSManaged"), put(f"{GROUP}/Tags/Key=AmazonECSManaged/PropagateAtLaunch", False))
def the_group_has_the_tag_that_ecs_would_give_it(stack):
    assert {"Key": "AmazonECSManaged", "Value": "true", "PropagateAtLaunch": True} in group(stack)["Tags"]


@holds("compute", put(f"{GROUP}/VPCZoneIdentifier", ["subnet-1"]), put("SecurityGroup/VpcId", "vpc-other"))
def hosts_are_in_the_chosen_subnets(stack):
    assert group(stack)["VPCZoneIdentifier"] == stack.parameters["Subnets"]
    assert stack.one("AWS::EC2::SecurityGroup")["VpcId"] == stack.parameters["Vpc"]


# Spot.

@holds("compute", put(f"{SPOT}/SpotAllocationStrategy", "lowest-price"), drop(f"{SPOT}/SpotAllocationStrategy"))
def spot_capacity_is_taken_where_there_is_most(stack):
    assert group(stack)["MixedInstancesPolicy"]["InstancesDistribution"].get("SpotAllocationStrategy") == "price-capacity-optimized"


@holds("compute", put(f"{GROUP}/CapacityRebalance", False), drop(f"{GROUP}/CapacityRebalance"))
def capacity_rebalancing(stack):
    assert group(stack).get("CapacityRebalance") is True


@holds("compute", put(f"{SPOT}/OnDemandPercentageAboveBaseCapacity", 100), put(f"{SPOT}/OnDemandBaseCapacity", 0),
       parameters=[{}, {"OnDemandBase": 2, "OnDemandPercentage": 25}])
def the_share_of_on_demand_hosts_is_chosen(stack):
    distribution = group(stack)["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution["OnDemandBaseCapacity"] == stack.parameters["OnDemandBase"]
    assert distribution["OnDemandPercentageAboveBaseCapacity"] == stack.parameters["OnDemandPercentage"]


OVERRIDES = f"{GROUP}/MixedInstancesPolicy/LaunchTemplate/Overrides/Fn::If"


@holds("compute", put(f"{OVERRIDES}/1", [{"InstanceType": "m6g.large"}]), put(f"{OVERRIDES}/2/3/InstanceType", "m5.xlarge"),
       put(f"{OVERRIDES}/2/3/InstanceType", "m6g.xlarge"), put(f"{OVERRIDES}/1/0/InstanceType", "m5.xlarge"), put(f"{OVERRIDES}/1/3/InstanceType", "t4g.nano"),
       put(f"{OVERRIDES}/2/0/InstanceType", "m5.large"), parameters=[one | {"InstanceSize": size} for one in BOTH for size in ("large", "xlarge", "2xlarge", "4xlarge")])
def ten_types_of_instances_or_more_of_the_right_kind(stack):
    types = [one["InstanceType"] for one in group(stack)["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]]
    assert len(set(types)) == len(types) >= 10
    for one in types:
        family, size = one.split(".")
        assert size == stack.parameters["InstanceSize"]
        assert ("g" in family) is (stack.parameters["Architecture"] == "arm64"), one
        assert family[0] in "mr", one


# What a host is.

@holds("compute", put("LaunchTemplate/LaunchTemplateData/ImageId", {"Ref": "ImageForX86"}), put("/Parameters/ImageForX86/Default", "/aws/service/ecs/optimized-ami/amazon-linux-2/recommended/image_id"),
       put("/Parameters/ImageForArm64/Default", "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"),
       put("/Parameters/ImageForX86/Type", "String"), parameters=BOTH)
def the_image_is_the_newest_one_that_ecs_offers_for_the_architecture(stack):
    for_arm = "arm64/" if stack.parameters["Architecture"] == "arm64" else ""
    assert host(stack)["ImageId"] == f"${{ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/{for_arm}recommended/image_id}}"


@holds("compute", put(f"{GROUP}/MixedInstancesPolicy/LaunchTemplate/LaunchTemplateSpecification/Version", "1"),
       put(f"{GROUP}/MixedInstancesPolicy/LaunchTemplate/LaunchTemplateSpecification/LaunchTemplateId", "lt-other"))
def the_group_launches_the_newest_version_of_the_template(stack):
    assert group(stack)["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"] == {
        "LaunchTemplateId": "${LaunchTemplate}", "Version": "${LaunchTemplate.LatestVersionNumber}"}


@holds("compute", put(f"{METADATA}/HttpTokens", "optional"), drop(f"{METADATA}/HttpTokens"), put(f"{METADATA}/HttpPutResponseHopLimit", 2),
       drop(f"{METADATA}/HttpPutResponseHopLimit"), put(f"{METADATA}/HttpProtocolIpv6", "enabled"))
def instance_metadata_needs_a_token_and_answers_no_container(stack):
    options = host(stack)["MetadataOptions"]
    assert options.get("HttpTokens") == "required" and options.get("HttpPutResponseHopLimit") == 1
    assert options.get("HttpProtocolIpv6", "disabled") == "disabled"


@holds("compute", put(f"{DISK}/Ebs/Encrypted", False), drop(f"{DISK}/Ebs/Encrypted"), put(f"{DISK}/Ebs/VolumeType", "gp2"), put(f"{DISK}/DeviceName", "/dev/sdb"),
       put(f"{DISK}/Ebs/DeleteOnTermination", False), put(f"{DISK}/Ebs/VolumeSize", 30), parameters=[{}, {"VolumeSize": 500}])
def disks_are_encrypted(stack):
    assert sole(host(stack)["BlockDeviceMappings"]) == {
        "DeviceName": "/dev/xvda",
        "Ebs": {"VolumeType": "gp3", "VolumeSize": stack.parameters["VolumeSize"], "Encrypted": True, "DeleteOnTermination": True}}


@holds("compute", put("SecurityGroup/SecurityGroupIngress", [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "10.0.0.0/8"}]),
       resource("AWS::EC2::SecurityGroupIngress", GroupId={"Ref": "SecurityGroup"}, IpProtocol="-1", CidrIp="0.0.0.0/0"),
       put("LaunchTemplate/LaunchTemplateData/SecurityGroupIds", ["sg-other"]), drop("LaunchTemplate/LaunchTemplateData/SecurityGroupIds"))
def nothing_gets_in(stack):
    assert host(stack).get("SecurityGroupIds") == ["${SecurityGroup}"]
    assert not stack.one("AWS::EC2::SecurityGroup").get("SecurityGroupIngress")
    assert not stack.of_type("AWS::EC2::SecurityGroupIngress")


@holds("compute", put("LaunchTemplate/LaunchTemplateData/KeyName", "admin"))
def no_key_pair(stack):
    assert "KeyName" not in host(stack)


# What the user data does.

@holds("compute", *(swap(USER_DATA, line, other) for line, other in [
    ("ECS_CLUSTER=${Cluster}", "ECS_CLUSTER=default"),
    ("ECS_DISABLE_PRIVILEGED=true", "ECS_DISABLE_PRIVILEGED=false"),
    ("ECS_ENABLE_TASK_IAM_ROLE=true", "ECS_ENABLE_TASK_IAM_ROLE=false"),
    ("ECS_ENABLE_TASK_CPU_MEM_LIMIT=true", "ECS_ENABLE_TASK_CPU_MEM_LIMIT=false"),
    ("ECS_ENABLE_SPOT_INSTANCE_DRAINING=true\n", ""),
    ("ECS_TASK_PIDS_LIMIT=4096\n", ""),
    ("ECS_AWSVPC_BLOCK_IMDS=true\n", ""),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=5m", "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=3h"),
    ("ECS_IMAGE_PULL_BEHAVIOR=prefer-cached", "ECS_IMAGE_PULL_BEHAVIOR=always"),
    ("/etc/ecs/ecs.config", "/etc/ecs.config"),
]))
def the_ecs_agents_settings(stack):
    assert settings(stack) == {
        "ECS_CLUSTER": "${Cluster}",
        "ECS_DISABLE_PRIVILEGED": "true",
        "ECS_ENABLE_TASK_IAM_ROLE": "true",
        "ECS_ENABLE_TASK_CPU_MEM_LIMIT": "true",
        "ECS_TASK_PIDS_LIMIT": "4096",
        "ECS_AWSVPC_BLOCK_IMDS": "true",
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "5m",
        "ECS_IMAGE_PULL_BEHAVIOR": "prefer-cached",
    }


@holds("compute", swap(USER_DATA, "drop iptables -d 169.254.169.254/32", "drop iptables -i docker0 -d 169.254.169.254/32"),
       swap(USER_DATA, "drop iptables -d 169.254.169.254/32\n", ""), swap(USER_DATA, "fd00:ec2::254", "fd00:ec2::253"),
       swap(USER_DATA, "drop iptables ! -i lo -d 127.0.0.0/8\n", ""), swap(USER_DATA, "-t raw -I PREROUTING", "-t raw -A PREROUTING"), swap(USER_DATA, "drop ip6tables ! -i lo -p tcp --dport 51678", "drop ip6tables ! -i lo -p tcp --dport 51679"))
def the_firewall_drops_instance_metadata_for_all_bridges(stack):
    """What the rules do is tried in tests/e2e/stack/test_firewall.py."""
    lines = [line.strip() for line in written(stack).get("/usr/local/sbin/container-firewall", "").splitlines()]
    local = "! -i lo -p tcp --dport 51678 -m addrtype --dst-type LOCAL"
    for rule in ("iptables -d 169.254.169.254/32", "iptables ! -i lo -d 127.0.0.0/8", "ip6tables -d fd00:ec2::254/128", f"iptables {local}", f"ip6tables {local}"):
        assert f"drop {rule}" in lines, rule
    assert any("-t raw -I PREROUTING" in line for line in lines)
    assert not any("-A PREROUTING" in line for line in lines)


UNIT = "/etc/systemd/system/container-firewall.service"


@holds("compute", swap(USER_DATA, "Before=docker.service ecs.service", "After=docker.service ecs.service"), swap(USER_DATA, "RequiredBy=docker.service ecs.service", "WantedBy=multi-user.target"),
       swap(USER_DATA, "systemctl enable --now container-firewall.service\n", ""), swap(USER_DATA, "systemctl enable --now container-firewall.service", "systemctl start container-firewall.service"),
       swap(USER_DATA, "systemctl enable --now container-firewall.service", "systemctl enable --now container-firewall.service || true"),
       swap(USER_DATA, "ExecStart=/usr/local/sbin/container-firewall", "ExecStart=-/usr/local/sbin/container-firewall"), swap(USER_DATA, "PartOf=docker.service\n", ""),
       swap(USER_DATA, "#!/bin/bash\nset -euo pipefail\ndrop()", "#!/bin/bash\ndrop()"))
def without_the_firewall_neither_docker_nor_the_ecs_agent_starts(stack):
    unit = written(stack).get(UNIT, "").splitlines()
    for line in ("Before=docker.service ecs.service", "RequiredBy=docker.service ecs.service", "PartOf=docker.service", "Type=oneshot", "RemainAfterExit=yes",
                 "ExecStart=/usr/local/sbin/container-firewall"):
        assert line in unit, line
    assert written(stack)["/usr/local/sbin/container-firewall"].startswith("#!/bin/bash\nset -euo pipefail\n")
    assert "systemctl enable --now container-firewall.service" in user_data(stack).splitlines()


@holds("compute", swap(USER_DATA, "set -euo pipefail\nready=no", "ready=no"), swap(USER_DATA, "trap end EXIT\n", ""), swap(USER_DATA, "systemctl poweroff", "true"),
       swap(USER_DATA, "ready=no", "ready=yes"), swap(USER_DATA, "systemctl mask --no-block --now ecs.service || true\n", ""),
       put("LaunchTemplate/LaunchTemplateData/InstanceInitiatedShutdownBehavior", "stop"), swap(USER_DATA, "\nready=yes\n", "\nready=yes\ntrue\n"))
def a_host_that_could_not_be_made_ready_runs_no_task(stack):
    script = user_data(stack)
    head = script.split("\ncat >")[0]
    assert "\nset -euo pipefail\nready=no\n" in head and "\ntrap end EXIT\n" in head
    assert "systemctl poweroff" in head and "systemctl mask --no-block --now ecs.service" in head
    assert script.count("ready=yes") == 1 and script.endswith("\nready=yes\n")
    assert host(stack)["InstanceInitiatedShutdownBehavior"] == "terminate"


@holds("compute", swap(USER_DATA, "d /run/sockguard 0755", "d /run/sockguard 0777"), swap(USER_DATA, "d /var/lib/sockguard 0700", "d /var/lib/sockguard 0755"),
       swap(USER_DATA, "/etc/tmpfiles.d/sockguard.conf <<", "/etc/sockguard.conf <<"), swap(USER_DATA, "systemd-tmpfiles --create /etc/tmpfiles.d/sockguard.conf\n", ""))
def the_sockets_directory_is_there_after_every_start(stack):
    assert written(stack).get("/etc/tmpfiles.d/sockguard.conf") == "d /run/sockguard 0755 root root -\nd /var/lib/sockguard 0700 root root -\n"
    assert "systemd-tmpfiles --create /etc/tmpfiles.d/sockguard.conf" in user_data(stack).splitlines()


@holds("compute", swap(USER_DATA, '"172.18.0.0/15", "size": 25', '"172.18.0.0/15", "size": 20'), swap(USER_DATA, '"172.18.0.0/15"', '"172.16.0.0/15"'),
       swap(USER_DATA, "systemctl restart docker.service\n", ""), swap(USER_DATA, 'settings["icc"] = False', 'settings["icc"] = True'))
def docker_has_addresses_for_many_networks(stack):
    """The documentation of the VPC stack names these addresses."""
    script = user_data(stack)
    assert 'settings["default-address-pools"] = [{"base": "172.18.0.0/15", "size": 25}]' in script
    assert 'settings["bip"] = "172.17.0.1/16"' in script and 'settings["icc"] = False' in script
    assert "systemctl restart docker.service" in script.splitlines()


# Roles.

def statements(stack):
    """All that a host may do."""
    role = stack.one("AWS::IAM::Role")
    policies = [policy["PolicyDocument"] for policy in role["Policies"]]
    policies += [one["PolicyDocument"] for one in stack.of_type("AWS::IAM::RolePolicy").values()]
    return [statement for policy in policies for statement in policy["Statement"]]


def listed(value):
    return value if isinstance(value, list) else [value]


WITH_OR_WITHOUT = [{"SessionManager": "true"}, {"SessionManager": "false"}]


@holds("compute", put(f"{ROLE}/1/Resource", "*"), put(f"{ROLE}/2/Resource", "arn:aws:ecs:*:*:container-instance/*"), put(f"{ROLE}/1/Action", "ecs:*"),
       add(ROLE, {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "*"}), add(ROLE, {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}),
       put("InstanceRole/ManagedPolicyArns", ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"]), drop(f"{ROLE}/3/Condition"),
       put("InstanceRole/AssumeRolePolicyDocument/Statement/0/Principal", {"Service": "ecs-tasks.amazonaws.com"}), parameters=WITH_OR_WITHOUT)
def a_host_may_only_be_a_host_of_its_cluster(stack):
    role = stack.one("AWS::IAM::Role")
    assert "ManagedPolicyArns" not in role
    assert sole(role["AssumeRolePolicyDocument"]["Statement"])["Principal"] == {"Service": "ec2.amazonaws.com"}
    everywhere = {"ecs:DiscoverPollEndpoint"}
    if stack.parameters["SessionManager"] == "true":
        everywhere |= {"ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
                       "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"}
    for statement in statements(stack):
        actions = set(listed(statement["Action"]))
        if actions <= everywhere:
            continue
        assert not any("*" in action for action in actions)
        assert all(fnmatch.fnmatch(action, "ecs:*") for action in actions), actions
        assert statement["Resource"] in ("${Cluster.Arn}", "arn:aws:ecs:us-east-1:123456789012:container-instance/${Cluster}/*")
        if "ecs:TagResource" in actions:
            assert statement.get("Condition") == {"StringEquals": {"ecs:CreateAction": "RegisterContainerInstance"}}


@holds("compute", *(drop(f"{ROLE}/{i}") for i in range(3)), drop(f"{ROLE}/1/Action/0"), drop(f"{ROLE}/2/Action/0"), drop(f"{ROLE}/1/Action/4"))
def a_host_may_do_all_that_the_ecs_agent_does(stack):
    allowed = {action for statement in statements(stack) for action in listed(statement["Action"])}
    assert {f"ecs:{name}" for name in (
        "DiscoverPollEndpoint", "RegisterContainerInstance", "DeregisterContainerInstance", "Poll", "StartTelemetrySession", "UpdateContainerInstancesState",
        "SubmitTaskStateChange", "SubmitContainerStateChange", "SubmitAttachmentStateChanges")} <= allowed


@holds("compute", drop("/Resources/SessionManagerPolicy/Condition"), drop("/Resources/SessionManagerPolicy"), parameters=WITH_OR_WITHOUT)
def session_manager_is_an_option(stack):
    opens = any("ssmmessages:OpenDataChannel" in listed(statement["Action"]) for statement in statements(stack))
    assert opens is (stack.parameters["SessionManager"] == "true")


@holds("compute", put("LaunchTemplate/LaunchTemplateData/IamInstanceProfile", {"Name": "admin"}), put("InstanceProfile/Roles", ["admin"]))
def hosts_have_this_role(stack):
    assert host(stack)["IamInstanceProfile"] == {"Arn": "${InstanceProfile.Arn}"}
    assert stack.one("AWS::IAM::InstanceProfile")["Roles"] == ["${InstanceRole}"]


@holds("compute", drop("/Outputs/Cluster"), put("/Outputs/CapacityProvider/Value", {"Ref": "Cluster"}), drop("/Outputs/Cluster/Export"))
def outputs_are_what_the_other_stacks_need(stack):
    assert stack.outputs.get("Cluster", {}).get("Value") == "${Cluster}"
    assert stack.outputs["CapacityProvider"]["Value"] == "${CapacityProvider}"
    assert all(output.get("Export") == {"Name": f"test-{name}"} for name, output in stack.outputs.items())
