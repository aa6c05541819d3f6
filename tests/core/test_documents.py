"""A file that a user wrote is read strictly, and what is wrong in it is said with its place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from moralscope.core.agents import AgentSpec, Frozen
from moralscope.core.documents import read_yaml, validate
from moralscope.core.errors import ConfigError, PromptError


class Wheel(Frozen):
    spokes: int

    @field_validator("spokes")
    @classmethod
    def _strong(cls, value: int) -> int:
        if value == 13:
            raise PromptError("A wheel is unlucky", seen=13, allowed="not 13", remedy="add one")
        return value


class Bicycle(Frozen):
    name: str
    front: Wheel
    spares: dict[str, Wheel] = Field(default_factory=dict)
    bells: tuple[Wheel, ...] | None = None


WHOLE = {"name": "b", "front": {"spokes": 36}}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_mapping_is_read(tmp_path: Path):
    text = "name: é\nfront: {spokes: 36}\nlist:\n  - 1\n  - a: 2\n    b: 3\n"
    expected = {"name": "é", "front": {"spokes": 36}, "list": [1, {"a": 2, "b": 3}]}
    assert read_yaml(written(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "The key 'a' is given twice. Seen: .*study.yaml, line 3"),
        ("x:\n  a: 1\n  a: 1\n", "The key 'a' is given twice. Seen: .*study.yaml, line 3"),
        ("x: [{a: 1, a: 2}]\n", "The key 'a' is given twice. Seen: .*study.yaml, line 1"),
        ("a: [1\n", "The file is not valid YAML.*line"),
        ("a: !!python/object/apply:os.getcwd []\n", "The file is not valid YAML"),
        ("- 1\n- 2\n", "The file does not hold keys and values.*list"),
        ("", "The file does not hold keys and values"),
        (b"a: \xff\xfe", "The file cannot be read"),
        ("a: 2026-13-45\n", "The file is not valid YAML"),
        ("a: !!int many\n", "The file is not valid YAML"),
        ("[" * 400, "The file is not valid YAML"),
    ],
)
def test_what_is_not_a_plain_mapping_is_refused(tmp_path: Path, text: str | bytes, problem: str):
    with pytest.raises(ConfigError, match=problem):
        read_yaml(written(tmp_path, text))


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match="The file cannot be read. Seen: .*absent.yaml"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_right_value_is_built():
    spares = {"left": {"spokes": 32}}
    bicycle = validate(Bicycle, WHOLE | {"spares": spares}, "study.yaml")
    assert bicycle == Bicycle(name="b", front=Wheel(spokes=36), spares={"left": Wheel(spokes=32)})


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (WHOLE | {"nmae": "b"}, "no key 'nmae' in s.yaml.*Next: did you mean 'name'"),
        (
            {"name": "b", "front": {"spoke": 36, "spokes": 36}},
            "no key 'front.spoke' in s.yaml.*Allowed: spokes. Next: did you mean 'spokes'",
        ),
        (
            WHOLE | {"spares": {"left": {"spokes": 1, "spoks": 1}}},
            "no key 'spares.left.spoks' in s.yaml.*did you mean 'spokes'",
        ),
        ({"nmae": "b", "front": {"spokes": 36}}, "no key 'nmae' in s.yaml.*did you mean 'name'"),
        ({"name": "b"}, "The key 'front' is missing in s.yaml.*Next: add 'front'"),
        (WHOLE | {"front": {}}, "The key 'front.spokes' is missing in s.yaml"),
        (
            WHOLE | {"front": {"spokes": "many"}},
            "The value of 'front.spokes' in s.yaml cannot be used. Seen: 'many'.*integer",
        ),
        (WHOLE | {"name": None}, "The value of 'name' in s.yaml cannot be used. Seen: None"),
        (
            [1],
            r"There are no keys and values in s.yaml. Seen: \[1\] \(list\). Allowed: name, front",
        ),
        (
            WHOLE | {"name": True},
            "'name' in s.yaml.*Seen: True.*put quotes around words such as yes",
        ),
        (WHOLE | {"name": [True]}, "'name' in s.yaml.*Next: correct the value"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(raw: object, problem: str):
    with pytest.raises(ConfigError, match=problem):
        validate(Bicycle, raw, "s.yaml")


def test_our_own_refusals_come_through_as_they_are():
    with pytest.raises(PromptError, match="A wheel is unlucky"):
        validate(Bicycle, {"name": "b", "front": {"spokes": 13}}, "s.yaml")
    both = {"name": "a", "base": "m", "adapter": "x", "checkpoint": "y"}
    with pytest.raises(ConfigError, match="'a' names both an adapter and a checkpoint"):
        validate(AgentSpec, both, "s.yaml")


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "front", "spokes", "spares", "x"]), inner)
    ),
    max_leaves=8,
)


def refusal_of(raw: object) -> ConfigError | PromptError | None:
    try:
        validate(Bicycle, raw, "s.yaml")
    except (ConfigError, PromptError) as refusal:
        return refusal
    return None


@given(junk)
def test_any_value_is_built_or_refused_with_all_four_parts(raw: object):
    refusal = refusal_of(raw)
    if refusal is not None:
        assert all((refusal.problem, refusal.allowed, refusal.remedy))


@given(st.text(max_size=60))
def test_any_text_is_a_mapping_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = written(tmp_path_factory.mktemp("yaml"), text)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(path), dict)
