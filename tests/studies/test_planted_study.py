"""One whole study of an agent with three plants, and the same study without them.

Everything goes through ``run_study``: the models are folders, the prompts a file, and each analysis
has to find its plant in the tables that it wrote itself. Two further copies of the base stand for
two seeds of one reward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent / "planted"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from planted_world import HEAD, LOOK, UPDATED, WIRE, World, save_world

from moralscope.core.tables import read_table
from moralscope.evidence.explaining import explain_claim
from moralscope.studies import Study, run_study

MECHANISMS: dict[str, Any] = {
    "methods": [
        "attribution", "patching", "attention", "interactions", "weights", "representations",
    ],
    "scenarios": 24,
    "attention": {"heads": 1, "amplify": None, "draws": 2},
    "interactions": {"pathways": 6, "traced": ["named"]},
    "representations": {"depths": 1, "framing": None, "changes": [], "searched": 1,
                        "dimensions": [1], "steps": 3, "random_directions": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A finished run and its claims."""

    out: Path
    claims: dict[str, dict[str, Any]]

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")

    def supported(self) -> set[str]:
        return {name for name, row in self.claims.items() if row["verdict"] == "supported"}

    def statement(self, name: str) -> str:
        assert self.claims[name]["verdict"] == "supported", self.claims[name]["reason"]
        return str(self.claims[name]["statement"])


def study_of(world: World, agent: Path) -> Study:
    seeds = {
        f"game-{seed}": {"checkpoint": str(folder), "reward": "game", "seed": seed}
        for seed, folder in enumerate(world.seeds)
    }
    return Study.model_validate(
        {
            "model": str(world.base),
            "agents": {
                "base": {},
                **seeds,
                "agent": {"checkpoint": str(agent), "reward": "utilitarian", "seed": 0},
            },
            "comparisons": {"plant": ["agent", "game-0"]},
            "prompts": {"games": [], "files": [str(world.prompts)], "wordings": [],
                        "scenarios": False, "table_orders": []},
            "mechanisms": MECHANISMS,
            "controls": {"dtype": False, "random_directions": 0, "planted": False},
            "evidence": {"draws": 999},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Done]:
    folder = tmp_path_factory.mktemp("planted")
    world = save_world(folder / "models")
    agents = {"planted": world.planted, "bare": world.bare}

    def run(which: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
            run_study(study_of(world, agents[which]), folder / which)
        claims = read_table("claims", folder / which / "tables").to_dicts()
        return Done(folder / which, {row["id"]: row for row in claims})

    return run


@pytest.fixture(scope="module")
def planted(run_of: Callable[[str], Done]) -> Done:
    return run_of("planted")


@pytest.fixture(scope="module")
def bare(run_of: Callable[[str], Done]) -> Done:
    return run_of("bare")


def test_the_agent_decides_otherwise(planted: Done) -> None:
    assert "more inclined to choose the positive option" in planted.statement("change:agent")
    assert planted.claims["difference:game-0:agent"]["verdict"] == "supported"


@pytest.mark.parametrize(
    "name",
    [
        "patching:base>agent", "patching:agent>game-0", "patching:game-0>agent",
        "effect:agent<>game-0", "attribution:agent",
    ],
)  # fmt: skip
def test_patches_and_attribution_name_the_head(planted: Done, name: str) -> None:
    assert HEAD in planted.statement(name)


def test_attention_names_the_head_and_the_category(planted: Done) -> None:
    for other in ("base", "game-0"):
        assert f"at {LOOK} on payoffs" in planted.statement(f"attention:agent:{other}")
        words = planted.statement(f"attention:agent:{other}:payoffs")
        assert f"agent looks more at payoffs than {other}" in words


def test_the_look_does_not_reach_the_decision(planted: Done) -> None:
    """What it writes carries no weight: patching it does next to nothing beside the head."""
    rows = planted.table("patching").filter(source="base", target="agent")
    effects = dict(rows.group_by("site").agg(pl.col("effect").abs().mean()).iter_rows())
    assert effects[LOOK] < 0.1 * effects[HEAD]


def test_wiring_names_the_pair(planted: Done) -> None:
    for name in ("wiring:agent:game-0", "wiring:base:agent"):
        assert f"{WIRE[0]} with {WIRE[1]}" in planted.statement(name)
    found = planted.table("pathways").filter(measure="norm_correlation", agent_a="agent")
    first = found.sort(pl.col("difference").abs(), descending=True).row(0, named=True)
    assert (first["sender"], first["receiver"], first["survives"]) == (*WIRE, True)
    # The reader changed and not what it reads: nothing new comes along the wire.
    assert max(abs(first["effect_a_to_b"]), abs(first["effect_b_to_a"])) < 1e-5


def test_updates_are_where_they_were_made_and_nowhere_else(planted: Done, bare: Done) -> None:
    norms = planted.table("update_norms").filter(agent="agent")
    large = norms.filter(pl.col("norm") > 1e-4)
    found = {(layer, str(m).split(".")[1]) for layer, m in large.select("layer", "module").rows()}
    assert found == UPDATED
    assert norms.filter(pl.col("norm") <= 1e-4).height > len(UPDATED)
    assert bare.table("update_norms")["norm"].max() < 1e-4
    assert planted.claims["writes:agent"]["verdict"] == "supported"


def test_representations_change_from_the_layer_of_the_head_on(planted: Done, bare: Done) -> None:
    for run, changed in ((planted, True), (bare, False)):
        pairs = run.table("representation_pairs").filter(agent_a="base", agent_b="agent")
        far = dict(pairs.group_by("layer").agg(pl.col("distance").mean()).iter_rows())
        assert sorted(far) == [-1, 0, 1, 2]
        assert max(far[-1], far[0]) < 1e-5
        for layer in (1, 2):
            assert (far[layer] > 0.1) if changed else (far[layer] < 1e-5)


def test_the_difference_passes_through_one_direction(planted: Done) -> None:
    assert "after layer 1, 1 direction reaches" in planted.statement("subspace:agents:game-0:agent")


def test_the_cascade_places_every_level(planted: Done, bare: Done) -> None:
    """Seeds lie at 0, and the agent as far from one of them as the base does from the agent.

    That is 2 on the scale: of the two agents compared one is as good as the base itself, and
    fine-tuning is the mean over both.
    """
    levels = {"behaviour", "attribution", "attention", "wiring", "weights", "representations"}
    first = ["log_odds", "contribution", "attention_log_odds", "norm_correlation", "update",
             "stream"]  # fmt: skip
    rows = planted.table("cascade").filter(pl.col("measure").is_in(first), kind="named")
    assert set(rows["level"]) == levels
    assert rows["relative"].to_list() == pytest.approx([2.0] * len(levels), abs=1e-3)
    assert set(rows["answer"]) == {"as large as fine-tuning itself"}
    rows = bare.table("cascade").filter(pl.col("measure").is_in(first), kind="named")
    assert set(rows["level"]) == levels
    assert rows["distance"].max() < 1e-4
    assert set(rows["answer"]) <= {None, "indistinguishable from another seed"}


def test_without_the_plants_no_difference_is_claimed(bare: Done) -> None:
    """What stands is said of each agent by itself, and it is true.

    The agents use the payoffs, and the base does so too. Weights did move, but by rounding.
    """
    agents = ("base", "game-0", "game-1", "agent")
    moved = {f"update:{agent}" for agent in agents[1:]}
    used = {f"uses:{agent}:payoffs" for agent in agents}
    assert bare.supported() - used == set()
    assert {bare.claims[name]["verdict"] for name in moved} == {"artefact"}
    assert 0.0 < max(bare.claims[name]["estimate"] for name in moved) < 2.0**-24
    assert not bare.table("interaction_changes").filter("survives", kind="named").height
    # All that was asked of the planted agent was asked of this one as well.
    between = {name for name in bare.claims if "agent" in name.replace(">", ":").split(":")}
    assert {"patching:base>agent", "attention:agent:base", "wiring:agent:game-0",
            "attribution:agent", "subspace:agents:game-0:agent"} <= between  # fmt: skip


def test_supported_claims_lead_back_to_their_rows(planted: Done) -> None:
    tables = {path.stem: pl.read_parquet(path) for path in (planted.out / "tables").iterdir()}
    for name in ("patching:base>agent", "attention:agent:base", "wiring:agent:game-0",
                 "attribution:agent", "writes:agent", "cascade:plant:attention"):  # fmt: skip
        assert explain_claim(tables, tables["claims"], tables["gates"], name).agrees
