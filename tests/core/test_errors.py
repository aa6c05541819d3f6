"""Every error says four things, and crosses a process boundary whole."""

from __future__ import annotations

import copy
import copyreg
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from moralscope.core import errors
from moralscope.core.errors import MoralscopeError, nearest
from moralscope.core.site import parse_site

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MoralscopeError)
]


def an_error(kind: type[MoralscopeError]) -> MoralscopeError:
    return kind("The pot is empty", seen=0, allowed="1 to 3 cups", remedy="put the kettle on")


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_holds_all_four_fields(kind: type[MoralscopeError]):
    error = an_error(kind)
    assert str(error) == (
        "The pot is empty. Seen: 0. Allowed: 1 to 3 cups. Next: put the kettle on."
    )
    fields = (error.problem, error.seen, error.allowed, error.remedy)
    assert fields == ("The pot is empty", 0, "1 to 3 cups", "put the kettle on")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_equal_in_kind_and_fields(kind: type[MoralscopeError]):
    error = an_error(kind)
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert (twin.problem, twin.seen) == (error.problem, error.seen)
        assert (twin.allowed, twin.remedy) == (error.allowed, error.remedy)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_for_rebuilding_is_a_plain_call(kind: type[MoralscopeError]):
    build, arguments = an_error(kind).__reduce__()[:2]
    assert build is not copyreg.__newobj__
    assert str(build(*arguments)) == str(an_error(kind))


def test_errors_cross_a_process_boundary():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        cause = pool.submit(parse_site, "nowhere").exception()
    assert type(cause) is errors.SiteError
    assert cause.seen == "'nowhere'"
    assert str(cause).endswith("Next: write the layer as L and the head as h, both counted from 0.")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        ("ConfigError", ValueError), ("PromptError", ValueError), ("SiteError", ValueError),
        ("TableError", ValueError), ("OutputError", OSError), ("DependencyError", ImportError),
    ],
)  # fmt: skip
def test_callers_who_know_only_builtins_catch_them(kind: str, builtin: type[Exception]):
    with pytest.raises(builtin, match="The pot is empty"):
        raise an_error(getattr(errors, kind))


def test_the_nearest_name_is_suggested():
    assert nearest("agnets", ["agents", "prompts"]) == "did you mean 'agents'"
    assert nearest("zzz", ["prompts", "agents"]) == "use one of agents, prompts"
    assert nearest("idp", ["IVD", "IPD", "ICD"]) == "did you mean 'IPD'"
