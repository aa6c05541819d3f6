"""The bars on real weights: scoring, attribution and patching of SmolLM2 in float32."""

from collections.abc import Generator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tiny
from hooked import hooked_sweep
from worlds import clean_runs

from moralscope.core.agents import AgentSpec
from moralscope.core.site import Site, parse_site
from moralscope.games import clusters, structured
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.mechanisms.patching.changing import Controlled
from moralscope.mechanisms.patching.controlled import control_patches_table, spread_sites
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.tables import patching_table, sweep_prompt
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import score

pytestmark = pytest.mark.slow

SITES = ("L0.h0", "L3.h8", "L11.mlp", "L14.attn", "L17.h4", "L22.mlp", "L28.h1", "L29.mlp")


@pytest.fixture(scope="module")
def prompts(real_base: LoadedModel) -> tuple[EncodedPrompt, ...]:
    """Six prompts of the structured kind and six of the scenarios, both label assignments."""
    chosen = (*tuple(structured())[::6][:6], *tuple(clusters())[::27][:6])
    return encode_all(real_base.tokenizer, chosen)


@pytest.fixture(scope="module")
def roster(real_base: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[Roster]:
    """The real base with two random adapters on all linear layers, taken off at the end."""
    folder = tmp_path_factory.mktemp("adapters")
    places = {
        name: tiny.save_adapter(folder / name, real_base.model, seed=seed, rank=8, size=0.03)
        for seed, name in enumerate(("game", "moral"), start=1)
    }
    made = Roster(real_base)
    made.add(AgentSpec(name="base", base="default"))
    for name, place in places.items():
        made.add(AgentSpec(name=name, base="default", adapter=str(place)))
    yield made
    made._wrapped.unload()
    real_base.model.requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def runs(roster: Roster, prompts: tuple[EncodedPrompt, ...]) -> dict[str, CleanRun]:
    return clean_runs(roster, (prompts[0], prompts[5], prompts[9]))


@pytest.mark.parametrize("name", ["base", "game"])
def test_the_tree_equals_one_by_one_scoring(
    roster: Roster, prompts: tuple[EncodedPrompt, ...], name: str
):
    with roster.speaking(name) as model:
        found = score(model, prompts).log_odds
        single = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
    assert np.abs(found - single).max() <= 5e-5
    assert np.ptp(single) > 0.1


@pytest.mark.parametrize("name", ["base", "game", "moral"])
def test_attribution_is_complete(roster: Roster, runs: dict[str, CleanRun], name: str):
    with roster.speaking(name):
        anatomy = roster.anatomy(name)
        attribution, completeness = attribution_tables(anatomy, runs[name])
        lens = lens_table(anatomy, runs[name])
    logit_diff = completeness["logit_diff"].to_numpy()
    bound = 1e-4 * np.maximum(1.0, np.abs(logit_diff))
    assert (np.abs(completeness["error"].to_numpy()) <= bound).all()
    sums = attribution.filter(token=-1).group_by("prompt").agg(pl.col("contribution").sum())
    both = sums.join(completeness, on="prompt")
    assert both.height == 3
    gaps = (both["contribution"] - both["logit_diff"]).abs().to_numpy()
    assert (gaps <= 1e-4 * np.maximum(1.0, both["logit_diff"].abs().to_numpy())).all()
    last = lens.filter(layer=29, sublayer="mlp").join(completeness, on="prompt")
    assert (last["logit_diff"] - last["logit_diff_right"]).abs().max() < 1e-3


def test_rows_equal_hooks_with_un_merged_adapters(roster: Roster, runs: dict[str, CleanRun]):
    prompt = runs["moral"].prompts[1]
    sites = [(parse_site(name),) for name in SITES]
    for write in ("write", "z"):
        with roster.speaking("moral") as model:
            baseline, values = sweep_prompt(
                model, roster.anatomy("moral"), runs["game"], runs["moral"], member=1,
                interventions=[Intervention(found) for found in sites], write=write,
            )  # fmt: skip
        direct = hooked_sweep(roster, "game", "moral", prompt, interventions=sites, write=write)
        assert np.abs(values.numpy() - direct).max() <= 1e-4
        assert np.abs(values.numpy() - baseline).max() > 1e-2


def test_controls_hold_over_every_site(roster: Roster, runs: dict[str, CleanRun], tmp_path: Path):
    with roster.speaking("moral") as model:
        anatomy = roster.anatomy("moral")
        across, controls = patching_table(
            model, anatomy, runs["game"], runs["moral"], members=[0, 2]
        )
        _, itself = patching_table(model, anatomy, runs["moral"], runs["moral"], members=[0])
    assert across.height == 2 * 301
    assert controls["value"].max() <= 1e-4
    assert itself["value"].max() <= 5e-5
    ceiling = across.filter(site="all")
    assert ceiling["effect"].abs().max() > 0.1
    heads = across.filter((pl.col("kind") == "head") & (pl.col("prompt") == across["prompt"][0]))
    for layer in range(30):
        effects = np.sort(heads.filter(layer=layer)["effect"].to_numpy())
        assert len(effects) == 9
        assert np.diff(effects).max() > 1e-6, "heads of a layer must not be clones"


def test_the_anatomy_has_three_hundred_sites(roster: Roster):
    sites = roster.anatomy("base").component_sites
    assert (len(sites), sites[-1]) == (300, Site("mlp", 29))


def test_planted_vectors_do_what_they_do_in_a_whole_forward(
    roster: Roster, runs: dict[str, CleanRun]
):
    with roster.speaking("moral") as model:
        anatomy = roster.anatomy("moral")
        wanted = Controlled(
            ((0, 0), (1, 1)), spread_sites(anatomy.component_sites), 1, planted=True
        )
        table = control_patches_table(
            model, anatomy, runs["game"], runs["moral"], wanted,
            rng=np.random.default_rng(0), patched={},
        )  # fmt: skip
    planted = table.filter(control="planted")
    effect, expected = (planted[name].to_numpy() for name in ("effect", "expected"))
    assert (np.abs(effect - expected) <= 1e-4 * np.maximum(1.0, np.abs(expected))).all()
    assert np.abs(expected).max() > 1e-2
    random = table.filter(control="random_direction")
    assert random.height == 2 * 24
    assert random["effect"].null_count() == 0
