"""What the agent stack promises of its scaler."""

from properties import NEEDED, add, drop, holds, put, resource, sole, swap
from template import ACCOUNT, REGION

CLUSTER = NEEDED["agent"]["Cluster"]
WITH = {"ScalerBucket": "programs"}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234"
SCALE, TOKEN, LOG = (f"ScalerRole/Policies/PolicyName={name}/PolicyDocument/Statement/0" for name in ("scale", "token", "log"))


def listed(value):
    return value if isinstance(value, list) else [value]


def role_statements(stack):
    """All that the scaler's role may do."""
    role = stack.resources["ScalerRole"]["Properties"]
    assert set(role) == {"AssumeRolePolicyDocument", "Policies"}
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


@holds("agent", put("Scaler/Runtime", "provided.al2"), put("Scaler/Handler", "main"), put("Scaler/Architectures", ["x86_64"]),
       put("Scaler/Code/S3Key", "scaler.zip"), put("Scaler/Code/S3Bucket", "others"), put("Scaler/Role", {"Fn::GetAtt": ["TaskRole", "Arn"]}),
       parameters=[WITH | {"ScalerArchitecture": "arm64", "ScalerKey": "1.2.3/scaler.zip"}])
def the_scaler_is_the_program_that_was_named(stack):
    function = stack.one("AWS::Lambda::Function")
    assert (function["Runtime"], function["Handler"], function["Architectures"]) == ("provided.al2023", "bootstrap", ["arm64"])
    assert function["Code"] == {"S3Bucket": "programs", "S3Key": "1.2.3/scaler.zip"}
    assert function["Role"] == "${ScalerRole.Arn}"


@holds("agent", drop("Scaler/ReservedConcurrentExecutions"), put("Scaler/ReservedConcurrentExecutions", 2), put("Scaler/Timeout", 120),
       put("ScalerSchedule/ScheduleExpression", "rate(5 minutes)"), put("ScalerSchedule/State", "DISABLED"),
       put("ScalerSchedule/Targets/0/Arn", "other"), drop("ScalerPermission/SourceArn"), put("ScalerPermission/FunctionName", "other"),
       put("ScalerPermission/Principal", "*"), parameters=[WITH])
def one_scaler_works_each_minute(stack):
    function, rule = stack.one("AWS::Lambda::Function"), stack.one("AWS::Events::Rule")
    assert (function.get("ReservedConcurrentExecutions"), function["Timeout"]) == (1, 60)
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    assert sole(rule["Targets"])["Arn"] == "${Scaler.Arn}"
    assert stack.one("AWS::Lambda::Permission") == {
        "FunctionName": "${Scaler}", "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com",
        "SourceArn": "${ScalerSchedule.Arn}"}


@holds("agent", put("ScalerInvocation/MaximumRetryAttempts", 2), drop("ScalerInvocation/MaximumEventAgeInSeconds"),
       put("ScalerInvocation/Qualifier", "1"), drop("ScalerSchedule/Targets/0/RetryPolicy/MaximumRetryAttempts"), parameters=[WITH])
def a_missed_minute_is_not_made_up_for(stack):
    retries = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    assert stack.one("AWS::Lambda::EventInvokeConfig") == {"FunctionName": "${Scaler}", "Qualifier": "$LATEST"} | retries
    assert sole(stack.one("AWS::Events::Rule")["Targets"])["RetryPolicy"] == retries


@holds("agent", put(f"{SCALE}/Resource", "*"), add(f"{SCALE}/Action", "ecs:RunTask"), drop(f"{SCALE}/Condition"),
       put(f"{TOKEN}/Action", "ssm:*"), swap(f"{TOKEN}/Resource/Fn::Sub", "${TokenParameter}", "/*"), put(f"{LOG}/Resource", "*"),
       add("ScalerRole/Policies", {"PolicyName": "more", "PolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}}),
       put("ScalerRole/ManagedPolicyArns", ["arn:aws:iam::aws:policy/AdministratorAccess"]),
       put("ScalerRole/Policies/PolicyName=token/PolicyDocument/Statement/1/Fn::If/1/Resource", "*"),
       put("ScalerRole/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": "*"}),
       parameters=[WITH, WITH | {"TokenKey": KEY}])
def the_scaler_may_set_its_service_and_read_its_token_no_more(stack):
    arn = f"arn:aws:{{}}:{REGION}:{ACCOUNT}:{{}}".format
    allowed = [
        (["ecs:DescribeServices", "ecs:UpdateService"], arn("ecs", f"service/{CLUSTER}/${{Service.Name}}"),
         {"ArnEquals": {"ecs:cluster": arn("ecs", f"cluster/{CLUSTER}")}}),
        (["ssm:GetParameter"], arn("ssm", "parameter/buildkite/agent-token"), None),
    ]
    if stack.parameters["TokenKey"]:
        allowed.append((["kms:Decrypt"], KEY, None))
    allowed.append((["logs:CreateLogStream", "logs:PutLogEvents"], "${ScalerLogGroup.Arn}", None))
    statements = role_statements(stack)
    assert [(listed(one["Action"]), one["Resource"], one.get("Condition")) for one in statements] == allowed
    assert all(one["Effect"] == "Allow" for one in statements)
    trust = sole(stack.resources["ScalerRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"])
    assert trust == {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}


@holds("agent", drop("Scaler/LoggingConfig"), drop("ScalerLogGroup/RetentionInDays"), parameters=[WITH | {"LogRetention": 7}])
def the_scalers_log_is_its_own_and_ends(stack):
    assert stack.one("AWS::Lambda::Function").get("LoggingConfig") == {"LogGroup": "${ScalerLogGroup}"}
    assert stack.resources["ScalerLogGroup"]["Properties"].get("RetentionInDays") == 7


@holds("agent", put("ScalerAlarm/MetricName", "Invocations"), put("ScalerAlarm/TreatMissingData", "notBreaching"),
       drop("ScalerAlarm/AlarmActions"), put("ScalerAlarm/Dimensions/0/Value", "other"),
       parameters=[WITH, WITH | {"AlarmTopic": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"}])
def a_scaler_that_fails_is_noticed(stack):
    alarm = stack.one("AWS::CloudWatch::Alarm")
    assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("AWS/Lambda", "Errors", "Sum")
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": "${Scaler}"}]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, "GreaterThanOrEqualToThreshold")
    assert alarm["TreatMissingData"] == "breaching"
    assert alarm.get("AlarmActions", []) == [topic for topic in [stack.parameters["AlarmTopic"]] if topic]


@holds("agent", resource("AWS::Lambda::Function"), put("/Conditions/HasScaler", {"Fn::Equals": ["", ""]}))
def there_is_no_scaler_without_a_program(stack):
    kinds = {one["Type"].rsplit("::", 1)[0] for one in stack.resources.values()}
    assert not kinds & {"AWS::Lambda", "AWS::Events", "AWS::CloudWatch"}
    assert not [name for name in [*stack.resources, *stack.outputs] if name.startswith("Scaler")]
