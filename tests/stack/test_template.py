"""What reads the templates in the tests reads them as CloudFormation does."""

import pytest
import template
from template import Stack, TemplateError, load


@pytest.fixture
def stack(tmp_path):
    def make(text, parameters=None, **settings):
        path = tmp_path / "template.yaml"
        path.write_text(text)
        return Stack(load(path), parameters, **settings)
    return make


def value(stack, text, parameters=None, **settings):
    """What a property is resolved to, beside parameters and resources of all kinds."""
    return stack(f"""
Parameters:
  Count: {{Type: Number, Default: 3, MinValue: 1, MaxValue: 5}}
  Image: {{Type: "AWS::SSM::Parameter::Value<String>", Default: /an/image}}
  Subnets: {{Type: "List<AWS::EC2::Subnet::Id>", Default: "subnet-1, subnet-2"}}
  Kind: {{Type: String, Default: small, AllowedValues: [small, large]}}
Mappings:
  Sizes:
    small: {{Memory: 512}}
    large: {{Memory: 1024}}
Conditions:
  Large: !Equals [!Ref Kind, large]
  Small: !Not [!Condition Large]
  Both: !And [!Condition Large, !Condition Small]
  Any: !Or [!Condition Both, !Condition Small]
Resources:
  Topic: {{Type: AWS::SNS::Topic}}
  Absent: {{Type: AWS::SNS::Topic, Condition: Large}}
  It:
    Type: AWS::Test
    Properties:
      Value: {text}
""", parameters, **settings).resources["It"]["Properties"].get("Value", "no value")


@pytest.mark.parametrize("text, expected", [
    ("2012-10-17", "2012-10-17"),
    ("!Ref Count", 3),
    ("!Ref Image", "${ssm:/an/image}"),
    ("!Ref Subnets", ["subnet-1", "subnet-2"]),
    ("!Ref Topic", "${Topic}"),
    ("!Ref AWS::NoValue", "no value"),
    ("[1, !Ref AWS::NoValue]", [1]),
    ("!GetAtt Topic.Arn.Part", "${Topic.Arn.Part}"),
    ("{Fn::GetAtt: [Topic, Arn]}", "${Topic.Arn}"),
    ('!Sub "${Kind}-${Topic.Arn} ${!Literal} ${AWS::Region} $Plain"', "small-${Topic.Arn} ${Literal} us-east-1 $Plain"),
    ('!Sub ["${A}/${Count}", {A: !Ref Kind}]', "small/3"),
    ("!If [Small, 1, !Ref Absent]", 1),
    ("!If [Any, 1, 2]", 1),
    ("!If [Both, 1, 2]", 2),
    ('!Join ["-", [a, !Ref Count, true]]', "a-3-true"),
    ('!Select [1, !Split [",", "a,b"]]', "b"),
    ("!Select [0, !GetAZs '']", "us-east-1a"),
    ("!FindInMap [Sizes, !Ref Kind, Memory]", 512),
    ("!Base64 abc", "YWJj"),
])
def test_functions(stack, text, expected):
    assert value(stack, text) == expected


@pytest.mark.parametrize("text, parameters, message", [
    ("!Ref Nothing", {}, "nothing is named Nothing"),
    ("!Ref Absent", {}, "Absent is not made"),
    ("!GetAtt Nothing.Arn", {}, "nothing is named Nothing.Arn"),
    ('!Sub "${Nothing}"', {}, "nothing is named Nothing"),
    ('!Sub "${Subnets}"', {}, "text is wanted"),
    ('!Join [",", [a, !Ref Subnets]]', {}, "text is wanted"),
    ("!If [Nothing, 1, 2]", {}, "no such condition: Nothing"),
    ("!FindInMap [Sizes, medium, Memory]", {}, "no medium"),
    ("!Select [2, [a, b]]", {}, "no item 2"),
    ("!Transform x", {}, "Fn::Transform: an unknown function"),
    ("{Fn::Length: [1]}", {}, "Fn::Length: an unknown function"),
    ("{Fn::Join: [',', [a]], Other: 1}", {}, "a function is wanted"),
    ("1", {"Nothing": 1}, "no such parameters"),
    ("1", {"Kind": "huge"}, "is none of"),
    ("1", {"Count": 6}, "out of range"),
])
def test_what_is_refused(stack, text, parameters, message):
    with pytest.raises(TemplateError, match=message):
        value(stack, text, parameters)


def test_values_from_an_account_can_be_given(stack):
    assert value(stack, "!GetAtt Topic.Arn", attributes={"Topic.Arn": "arn:x"}) == "arn:x"
    assert value(stack, "!Ref Image", attributes={"ssm:/an/image": "ami-1"}) == "ami-1"


def test_what_is_no_yaml_for_cloudformation(stack):
    with pytest.raises(TemplateError, match="alias"):
        stack("Resources: {A: &a {Type: T}, B: *a}")
    with pytest.raises(TemplateError, match="twice"):
        stack("Resources: {A: {Type: T}, A: {Type: T}}")


def test_a_resource_is_there_only_if_its_condition_holds(stack):
    text = "Conditions: {No: !Equals [a, b]}\nResources: {A: {Type: T, Condition: No}, B: {Type: T}}\n"
    assert list(stack(text).resources) == ["B"]
    assert stack(text).one("T") == {}


def test_the_stacks_are_where_they_are_looked_for():
    assert template.STACKS.is_dir()
