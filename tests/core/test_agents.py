"""An agent's specification says which weights are meant, and only one thing at a time."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from moralscope.core.agents import AgentSpec


def test_the_kind_follows_from_what_is_given():
    assert AgentSpec(name="base", base="m").kind == "base"
    assert AgentSpec(name="a", base="m", adapter="folder").kind == "adapter"
    assert AgentSpec(name="c", base="m", checkpoint="folder").kind == "checkpoint"


def test_adapter_and_checkpoint_exclude_each_other():
    with pytest.raises(ValidationError, match="'a' names both an adapter and a checkpoint"):
        AgentSpec(name="a", base="m", adapter="x", checkpoint="y")


def test_a_misspelt_key_is_refused():
    with pytest.raises(ValidationError, match="adaptor"):
        AgentSpec.model_validate({"name": "a", "base": "m", "adaptor": "x"})


def test_a_specification_is_immutable():
    spec = AgentSpec(name="a", base="m")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"
