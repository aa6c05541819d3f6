"""Rewards of installed packages: a real distribution on the path, and broken ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import GAMES, get_reward, pair_round, reward_phases
from moralscope.games.reward_entries import GROUP, entry_names

SEEN = pair_round(GAMES["IPD"], ("D", "C"), ("C", "C"))
"""Betraying: points 4 and 0."""

MODULE = '''
from moralscope.games import Reward

def envy(seen):
    """Less what the best of the others has."""
    return -max(seen.others_points)

def selfish(seen):
    return 10 * seen.own_points

ready = Reward("ready", selfish)
half = 0.5
def two(seen, other): return 0.0
def nothing(seen): return None
def endless(seen): return float("inf")
class Kind: pass
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with a module and entry points where Python finds packages."""

    def distribution(package: str, module: str, source: str, **entries: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name.replace('_', '-')} = {module}:{what}" for name, what in entries.items()]
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
        (tmp_path / f"{module}.py").write_text(source)

    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield distribution
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_an_installed_reward_is_found_summed_and_named(install: Install) -> None:
    assert "plain-envy" not in entry_names()
    install("extra-rewards", "extra_rewards", MODULE, plain_envy="envy", ready_made="ready")
    assert {"plain-envy", "ready-made"} <= set(entry_names())
    assert "extra_rewards" not in sys.modules  # metadata alone was read
    assert get_reward("game").value(SEEN) == 4
    assert "extra_rewards" not in sys.modules
    friendly = pair_round(GAMES["IPD"], ("C", "D"), ("C", "C"))
    reward = get_reward("game + 0.5*plain-envy")
    assert reward.name == "game + 0.5*plain-envy"
    assert (reward.value(SEEN), reward.value(friendly)) == (4, -2)
    assert get_reward("ready-made").value(SEEN) == 40
    assert reward_phases("plain-envy then game") == ("plain-envy", "game")


def test_built_in_rewards_win(install: Install) -> None:
    install("taker", "taker_rewards", MODULE, game="selfish", care="selfish")
    assert get_reward("game").value(SEEN) == 4
    assert get_reward("care").value(SEEN) == 4
    assert "taker_rewards" not in sys.modules


def test_an_unknown_reward_names_the_installed_ones_too(install: Install) -> None:
    install("extra-rewards", "known_rewards", MODULE, plain_envy="envy", spite="selfish")
    message = "Allowed: game, .*, spite, plain-envy, and sums of them. Next: did you mean 'plain-"
    with pytest.raises(ConfigError, match=message):
        get_reward("plane-envy")


def test_an_installed_reward_takes_no_settings(install: Install) -> None:
    install("extra-rewards", "set_rewards", MODULE, plain_envy="envy")
    with pytest.raises(ConfigError, match="'plain-envy' has no such setting.*no settings at all"):
        get_reward("plain-envy(2)")


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("missing", "AttributeError: .*missing"),
        ("Kind.missing", "AttributeError"),
    ],
)
def test_an_object_that_is_not_there_is_refused(install: Install, what: str, seen: str) -> None:
    install("holed", "holed_rewards", MODULE, hole=what)
    message = (
        rf"'hole' .* cannot be loaded. Seen: holed \(holed_rewards:{what}\): {seen}.*reinstall"
    )
    with pytest.raises(ConfigError, match=message):
        get_reward("hole")


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: .*no_such_module_anywhere"),
        ("def broken(:\n", "SyntaxError"),
        ("broken = undefined\n", "NameError"),
        ("int('x')\n", "ValueError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(
    install: Install, source: str, seen: str
) -> None:
    install("broken", "broken_rewards", source, broken="broken")
    with pytest.raises(ConfigError, match=f"'broken' of an installed .* cannot be loaded.*{seen}"):
        get_reward("broken")
    assert get_reward("game").value(SEEN) == 4  # nobody else is harmed


@pytest.mark.parametrize(("what", "seen"), [("half", "0.5"), ("two", "other"), ("Kind", "Kind")])
def test_an_object_that_is_no_function_of_a_round_is_refused(
    install: Install, what: str, seen: str
) -> None:
    install("odd", "odd_rewards", MODULE, odd=what)
    message = f"'odd' of an installed package is not a function of one round. Seen: .*{seen}"
    with pytest.raises(ConfigError, match=message):
        get_reward("odd")


@pytest.mark.parametrize(("what", "seen"), [("nothing", "None"), ("endless", "inf")])
def test_a_value_that_is_no_finite_number_is_refused(
    install: Install, what: str, seen: str
) -> None:
    install("vague", "vague_rewards", MODULE, vague=what)
    reward = get_reward("game + 2*vague")
    message = rf"'game \+ 2\*vague' is not a finite number.*game gives 4, vague gives {seen}"
    with pytest.raises(ConfigError, match=message):
        reward.value(SEEN)


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("first", "first_rewards", MODULE, mood="envy")
    install("second", "second_rewards", MODULE, mood="envy")
    seen = r"first \(first_rewards:envy\), second \(second_rewards:envy\)"
    with pytest.raises(ConfigError, match=f"Several packages offer a reward 'mood'. Seen: {seen}"):
        get_reward("mood")
