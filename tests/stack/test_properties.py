"""The templates keep what they promise, and a template that does not is noticed: see properties.py."""

import functools

import agent_properties  # noqa: F401
import compute_properties  # noqa: F401
import pytest
import scaler_properties  # noqa: F401
import sockguard_properties  # noqa: F401
import vpc_properties  # noqa: F401
from properties import PROPERTIES
from template import Stack, shipped

shipped = functools.cache(shipped)


@pytest.mark.parametrize("property", PROPERTIES, ids=lambda property: property.name)
def test_holds(property):
    for parameters in property.parameters:
        property.assertion(Stack(shipped(property.template), parameters))


MUTATIONS = [(property, mutation) for property in PROPERTIES for mutation in property.mutations]


@pytest.mark.parametrize("property, mutation", MUTATIONS, ids=lambda it: it.name)
def test_is_noticed(property, mutation):
    """With the mutation, the property's own assertion fails, for one set of parameters at least."""
    mutant = mutation.of(shipped(property.template))

    def passes(parameters):
        stack = Stack(mutant, parameters)
        try:
            property.assertion(stack)
        except AssertionError:
            return False
        return True
    assert not all(passes(parameters) for parameters in property.parameters), "nobody noticed"


def test_every_property_has_a_mutation():
    assert [property.name for property in PROPERTIES if not property.mutations] == []
    assert {property.template for property in PROPERTIES} == {"vpc", "compute", "sockguard", "agent"}


def test_every_name_is_there_once():
    names = [property.name for property in PROPERTIES]
    assert sorted(set(names)) == sorted(names)
