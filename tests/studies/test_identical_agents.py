"""One training under two names, two seeds of one reward, and two rewards with a seed each.

The first differ in nothing, at any level; of the others nothing can be said about rewards. The
three studies share a cache and most of their agents, so that little is computed twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from moralscope.core.tables import read_table
from moralscope.studies import Study, run_study

StudyOf = Callable[..., Study]

GAME: dict[str, Any] = {"reward": "game", "seed": 0}
STUDIES: dict[str, dict[str, Any]] = {
    "twins": {
        "agents": {"base": {}, "game": GAME, "twin": GAME},
        "comparisons": {"twins": ["game", "twin"]},
    },
    "seeds": {
        "agents": {"base": {}, "game": GAME, "other": {**GAME, "seed": 1}},
    },
    "rewards": {
        "agents": {"base": {}, "game": GAME, "kind": {"reward": "utilitarian", "seed": 0}},
        "comparisons": {"rewards": ["game", "kind"]},
    },
}
MECHANISMS: dict[str, Any] = {
    "methods": [
        "attribution", "patching", "attention", "interactions", "weights", "representations",
    ],
    "scenarios": 8,
    "attention": {"heads": 1, "amplify": None, "draws": 1},
    "interactions": {"pathways": 4, "traced": ["named"]},
    "representations": {"depths": 1, "framing": None, "changes": [], "searched": 1,
                        "dimensions": [1], "steps": 3, "random_directions": 2},
}  # fmt: skip
LEVELS = ("behaviour", "attribution", "patching", "attention", "wiring", "weights",
          "representations")  # fmt: skip
ABOUT_REWARDS = ("reward", "rewards", "replicates", "representations", "weights")
"""First parts of the ids of claims whose unit is the training seed."""


@dataclass(frozen=True)
class Done:
    """A finished run and its claims."""

    out: Path
    claims: dict[str, dict[str, Any]]

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")

    def of(self, name: str, agent: str) -> pl.DataFrame:
        """An agent's rows of a table, without its name."""
        return self.table(name).filter(agent=agent).drop("agent")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory, study_of: StudyOf) -> Callable[[str], Done]:
    folder = tmp_path_factory.mktemp("identical")
    done: dict[str, Done] = {}

    def run(name: str) -> Done:
        if name not in done:
            study = study_of(
                **STUDIES[name],
                prompts={"games": ["IPD", "ISH"], "wordings": [], "scenarios": False,
                         "table_orders": []},
                mechanisms=MECHANISMS,
                controls={"dtype": False, "random_directions": 0, "planted": False},
            )  # fmt: skip
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
                run_study(study, folder / name)
            rows = read_table("claims", folder / name / "tables").to_dicts()
            done[name] = Done(folder / name, {row["id"]: row for row in rows})
        return done[name]

    return run


@pytest.fixture(scope="module")
def twins(run_of: Callable[[str], Done]) -> Done:
    return run_of("twins")


def named(claim: str) -> set[str]:
    """The words of a claim's id: agents, rewards, kinds."""
    return set(re.split(r"[:<>]+", claim))


@pytest.mark.parametrize(
    "table", ["decisions", "attribution", "attention", "attention_edits", "norms", "projections",
              "update_norms", "update_spectra", "cooperation"]
)  # fmt: skip
def test_twins_have_the_same_numbers_to_the_last_bit(twins: Done, table: str) -> None:
    game, twin = twins.of(table, "game"), twins.of(table, "twin")
    assert game.height > 0
    assert game.equals(twin)


def test_patching_one_twin_into_the_other_does_what_patching_it_into_itself_does(
    twins: Done,
) -> None:
    own = twins.table("controls").filter(control="self_patch")
    assert set(own["subject"]) == {"game", "twin"}
    effects = twins.table("patching")
    between = effects.filter(pl.col("source") != "base")
    assert set(between["source"]) == {"game", "twin"}
    # Rounding, as between a twin and itself on the few prompts where that is asked.
    assert max(own["value"].max(), between["effect"].abs().max()) < 1e-5
    assert not between["flipped"].any()
    assert effects.filter(source="base")["effect"].abs().max() > 0.01


def test_every_distance_between_twins_is_zero(twins: Done) -> None:
    pair = {"agent_a": "game", "agent_b": "twin"}
    weights = twins.table("update_distances").filter(**pair)
    assert weights["cosine"].to_list() == pytest.approx([1.0] * weights.height)
    assert weights["distance"].max() < 1e-7
    streams = twins.table("representation_pairs").filter(**pair)
    assert streams["distance"].max() == 0.0
    assert streams["change_cosine"].drop_nulls().to_list() == pytest.approx(
        [1.0] * streams["change_cosine"].drop_nulls().len()
    )
    assert twins.table("interaction_changes").filter(**pair)["difference"].abs().max() == 0.0
    cascade = twins.table("cascade").filter(kind="named")
    assert set(cascade["level"]) == set(LEVELS)
    away = cascade.filter(pl.col("level") != "patching")
    assert away["distance"].abs().max() < 1e-7
    assert cascade["distance"].abs().max() < 1e-6
    assert (cascade["control"] > 1e-3).all()


def test_twins_are_equivalent_at_every_level(twins: Done) -> None:
    for level in LEVELS:
        claim = twins.claims[f"cascade:twins:{level}"]
        assert claim["verdict"] == "equivalent", claim["reason"]
    alike = ["difference:game:twin", "alike:game:twin", "representation:game:twin"]
    alike += [name for name in twins.claims if re.fullmatch("attention:game:twin:.+", name)]
    alike += [name for name in twins.claims if re.fullmatch("uses:game:twin:.+", name)]
    assert len(alike) >= 3 + 2 * 5
    for name in alike:
        assert twins.claims[name]["verdict"] == "equivalent", twins.claims[name]["reason"]
        assert twins.claims[name]["estimate"] == pytest.approx(0.0, abs=1e-12)


def test_nothing_is_claimed_to_differ_between_twins(twins: Done) -> None:
    between = {n: c for n, c in twins.claims.items() if {"game", "twin"} <= named(n)}
    assert len(between) > 20
    kinds = {name.split(":")[0] for name in between}
    assert {"patching", "effect", "asymmetry", "attention", "uses", "wiring", "hub", "difference",
            "representation", "subspace", "alike"} <= kinds  # fmt: skip
    assert {n for n, c in between.items() if c["verdict"] == "supported"} == set()
    # What two equal updates share is all of both.
    shared = {n: c["verdict"] for n, c in twins.claims.items() if n.startswith("overlap:twins")}
    assert shared["overlap:twins:outputs"] == "supported"


def test_what_is_said_of_one_twin_is_said_of_the_other(twins: Done) -> None:
    said = {n: c for n, c in twins.claims.items() if "game" in named(n) and "twin" not in named(n)}
    count = 0
    for name, claim in said.items():
        other = re.sub(r"\bgame\b", "twin", name)
        if other not in twins.claims:  # about the reward, which has this name as well
            assert name.split(":")[0] in ("reward", *ABOUT_REWARDS)
            continue
        assert twins.claims[other]["estimate"] == claim["estimate"], name
        count += 1
    assert count > 20


@pytest.mark.parametrize("name", ["twins", "seeds", "rewards"])
def test_no_claim_is_made_about_rewards(run_of: Callable[[str], Done], name: str) -> None:
    done = run_of(name)
    own = {n: c for n, c in done.claims.items() if n.split(":")[0] in ABOUT_REWARDS}
    assert own
    wrong = {n: c["verdict"] for n, c in own.items() if c["verdict"] in ("supported", "equivalent")}
    assert not wrong
    assert "supported" not in {
        c["verdict"] for c in done.claims.values() if c["replicate"] == "training seeds"
    }


def test_two_seeds_of_one_reward_are_compared_with_each_other_alone(
    run_of: Callable[[str], Done],
) -> None:
    done = run_of("seeds")
    assert done.claims["reward:game"]["verdict"] == "not identified by this design"
    assert not [name for name in done.claims if name.startswith(("rewards:", "cascade:"))]
    cascade = done.table("cascade")
    assert set(cascade["kind"]) == {"base", "replicate"}
    assert cascade["answer"].drop_nulls().is_empty()
    # They are not twins: training differed in its seed.
    assert done.table("update_distances").filter(agent_a="game", agent_b="other")[
        "cosine"
    ].max() < 0.99  # fmt: skip


def test_one_seed_each_identifies_no_difference_of_rewards(run_of: Callable[[str], Done]) -> None:
    done = run_of("rewards")
    levels = {n: c for n, c in done.claims.items() if n.startswith("cascade:rewards:")}
    assert {name.split(":")[2] for name in levels} == set(LEVELS)
    own = {n: c for n, c in done.claims.items() if n.split(":")[0] in ABOUT_REWARDS}
    assert {"reward:game", "reward:utilitarian", "rewards:game:utilitarian"} <= set(own)
    unidentified = {**levels, **own}
    verdicts = {name: claim["verdict"] for name, claim in unidentified.items()}
    # That two agents are alike at a level can be seen in them; what made them differ cannot.
    assert verdicts.pop("cascade:rewards:representations") == "equivalent"
    assert set(verdicts.values()) == {"not identified by this design"}
    answers = done.table("cascade").filter(kind="named")["answer"]
    assert answers.len() > len(LEVELS)
    assert answers.drop_nulls().is_empty()
