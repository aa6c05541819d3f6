"""The split of a change of attribution: against plain hooks, and where it must be nothing."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny
import torch
from plain_split import observed, plain_weights
from worlds import World, Worlds, clean_runs, world

from moralscope.core.errors import AgentError
from moralscope.mechanisms.attribution.change import base_attributions, change_table
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import CleanPack, CleanRun, run_clean, with_every_token
from moralscope.models.anatomy import dissect
from moralscope.models.capture import hooks

KEYS = ["prompt", "token", "site"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def split(here: World, agent: str = "game", *, max_nodes: int = 2048) -> pl.DataFrame:
    """The change of an agent of a world from its base."""
    with here.roster.speaking("base") as model:
        anatomy = here.roster.anatomy("base")
        base = run_clean("base", model, anatomy, here.prompts, everywhere=True, max_nodes=max_nodes)
        found = base_attributions(anatomy, base)
    with here.roster.speaking(agent) as model:
        return change_table(model, here.roster.anatomy(agent), here.runs[agent], base, found)


def part(table: pl.DataFrame, which: str, **where: Any) -> dict[str, float]:
    """Contributions of one part by site."""
    return dict(table.filter(part=which, **where).select("site", "contribution").rows())


def check_weights(table: pl.DataFrame, expected: dict[tuple[str, int], float], prompt: str) -> None:
    """Every site and answer token, and the sums over the answer."""
    tokens = sorted({token for _, token in expected})
    sites = {site for site, _ in expected}
    for site in sites:
        summed = sum(expected[site, token] for token in tokens)
        assert part(table, "weights", prompt=prompt, token=-1)[site] == pytest.approx(
            summed, abs=1e-10
        )
    if len(tokens) > 1:
        for token in tokens:
            found = part(table, "weights", prompt=prompt, token=token)
            assert found == pytest.approx({s: expected[s, token] for s in sites}, abs=1e-10)
    assert set(part(table, "weights", prompt=prompt, token=-1)) == sites


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_are_what_the_agent_does_on_the_inputs_of_the_base(worlds: Worlds, family: str):
    here = worlds(family, n=2)
    table = split(here)
    expected = plain_weights(
        lambda: here.roster.speaking("base"), lambda: here.roster.speaking("game"), here.prompts[1]
    )
    check_weights(table, expected, "p1")
    components = table.filter(pl.col("kind").is_in(["head", "mlp"]))
    assert components["contribution"].abs().min() > 1e-8
    same = table.filter(pl.col("kind").is_in(["embed", "bias"]), part="weights")
    assert same["contribution"].abs().max() < 1e-12


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_each_token_of_a_longer_answer_is_split(worlds: Worlds, family: str):
    here = worlds(family, forms="multi", n=2)
    table = split(here, "moral")
    expected = plain_weights(
        lambda: here.roster.speaking("base"), lambda: here.roster.speaking("moral"), here.prompts[0]
    )
    assert {token for _, token in expected} == {1, 2, 3}
    check_weights(table, expected, "p0")


@pytest.mark.parametrize("forms", ["single", "multi"])
@pytest.mark.parametrize("family", ["llama_bias", "gemma2"])
def test_weights_and_input_make_the_change(worlds: Worlds, family: str, forms: str):
    here = worlds(family, forms=forms, n=3)
    sums = split(here).group_by(KEYS).agg(pl.col("contribution").sum())
    tables: list[pl.DataFrame] = []
    for name in ("game", "base"):
        with here.roster.speaking(name):
            whole, _ = attribution_tables(here.roster.anatomy(name), here.runs[name])
        tables.append(whole.select(*KEYS, pl.col("contribution").alias(name)))
    both = sums.join(tables[0], on=KEYS).join(tables[1], on=KEYS)
    assert both.height == sums.height == tables[0].height
    change = (both["game"] - both["base"]).to_numpy()
    assert both["contribution"].to_numpy() == pytest.approx(change, abs=1e-10)
    assert np.abs(change).max() > 0.1


def test_the_table_names_agent_parts_and_every_site(worlds: Worlds):
    here = worlds("llama", forms="multi", n=2)
    table = split(here)
    sites = {"embed", "bias", *map(str, here.anatomy().component_sites)}
    assert set(table["agent"]) == {"game"}
    for which in ("weights", "input"):
        for token in (-1, 1, 2, 3):
            for prompt in here.prompts:
                own = table.filter(part=which, token=token, prompt=prompt.name)
                assert own.height == len(sites)
                assert set(own["site"]) == sites
    assert set(table["part"]) == {"weights", "input"}


def one_layer(folder: Path, family: str, modules: list[str]) -> World:
    """A world whose adapters are on some modules of the second layer alone."""
    return world(
        folder, family, n=2, settings={"target_modules": modules, "layers_to_transform": [1]}
    )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_an_adapter_on_one_mlp_is_found_there(tmp_path: Path, family: str):
    """Before it, nothing but the final norm's scale has changed: one factor for every site."""
    here = one_layer(tmp_path, family, MLP)
    table = split(here)
    prompt = here.prompts[0]
    weights = part(table, "weights", prompt="p0", token=-1)
    fed = part(table, "input", prompt="p0", token=-1)
    assert abs(weights.pop("L1.mlp")) > 1e-3
    assert max(map(abs, weights.values())) < 1e-12
    scale: dict[str, torch.Tensor] = {}
    for name in ("base", "game"):
        with here.roster.speaking(name) as model:
            ending = observed(model, list(prompt.tokens))["final", 0][-1]
        scale[name] = (ending.square().mean() + 1e-6).sqrt()
    factor = float(scale["base"] / scale["game"]) - 1
    with here.roster.speaking("base"):
        whole, _ = attribution_tables(here.anatomy(), here.runs["base"])
    own = part(whole, "whole", prompt="p0", token=-1)
    before = ["embed", *(s for s in own if s.startswith(("L0.", "L1.h")))]
    assert len(before) == 10
    assert {s: fed[s] for s in before} == pytest.approx(
        {s: factor * own[s] for s in before}, abs=1e-8
    )
    assert abs(factor) > 1e-3
    later = [s for s in own if s.startswith("L2.")]
    assert min(abs(fed[s] - factor * own[s]) for s in later) > 1e-6


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_an_adapter_on_queries_is_found_in_the_heads_of_its_layer(tmp_path: Path, family: str):
    """Not in the MLP behind them, which hears the base's attention."""
    table = split(one_layer(tmp_path, family, ["q_proj"]))
    weights = part(table, "weights", prompt="p1", token=-1)
    heads = [abs(weights.pop(f"L1.h{head}")) for head in range(4)]
    assert min(heads) > 1e-8
    assert max(map(abs, weights.values())) < 1e-12
    assert abs(part(table, "input", prompt="p1", token=-1)["L1.mlp"]) > 1e-6


@pytest.mark.parametrize("family", ["llama_bias", "gemma2", "gpt_neox"])
def test_the_base_has_not_changed_from_itself(worlds: Worlds, family: str):
    table = split(worlds(family, forms="multi", n=2), "base")
    assert table.height > 0
    assert table["contribution"].abs().max() < 1e-11


@contextlib.contextmanager
def speaking(model: Any) -> Generator[Any]:
    yield model


def other_weights(family: str, changed: tuple[str, ...], **settings: Any) -> tuple[Any, Any]:
    """A base and a full fine-tune of it, in which the named parameters differ."""
    base, agent = tiny.tiny_model(family, **settings), tiny.tiny_model(family, **settings)
    generator = torch.Generator().manual_seed(5)
    touched = set[str]()
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            for wanted in changed:
                if name.endswith(wanted):
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.add_(0.1 * noise)
                    touched.add(wanted)
    assert touched == set(changed)
    return base, agent


def split_models(base: Any, agent: Any, prompts: tuple[tiny.EncodedPrompt, ...]) -> pl.DataFrame:
    runs = {
        name: run_clean(name, model, dissect(model), prompts, everywhere=True)
        for name, model in (("base", base), ("tuned", agent))
    }
    found = base_attributions(dissect(base), runs["base"])
    return change_table(agent, dissect(agent), runs["tuned"], runs["base"], found)


@pytest.mark.parametrize(
    ("family", "changed", "settings"),
    [
        ("llama_bias", ("embed_tokens.weight",), {}),
        ("llama_bias", ("o_proj.bias",), {}),
        ("gpt2", ("wpe.weight",), {}),
        ("gpt2", ("attn.c_proj.bias",), {}),
        ("gpt2", ("ln_f.bias",), {}),
        ("gpt_neox", ("dense.bias", "final_layer_norm.bias"), {}),
        ("gemma2", ("o_proj.bias",), {"attention_bias": True}),
    ],
)
def test_a_checkpoint_with_other_parameters_shows_them_where_they_are(
    family: str, changed: tuple[str, ...], settings: dict[str, Any]
):
    base, agent = other_weights(family, changed, **settings)
    prompts = tiny.token_prompts(2, forms="multi")
    table = split_models(base, agent, prompts)
    expected = plain_weights(lambda: speaking(base), lambda: speaking(agent), prompts[0])
    check_weights(table, expected, "p0")
    weights = part(table, "weights", prompt="p0", token=-1)
    site = "bias" if changed[0].endswith("bias") else "embed"
    assert abs(weights.pop(site)) > 1e-4
    assert max(map(abs, weights.values())) < 1e-12


def test_a_full_checkpoint_is_split_with_its_own_norms():
    """All parameters differ: projections, biases, gains, the unembedding."""
    changed = ("weight", "bias")
    for family, settings in (("gemma2", {"attention_bias": True}), ("gpt2", {}), ("olmo2", {})):
        wanted = changed if family != "olmo2" else ("weight",)
        base, agent = other_weights(family, wanted, **settings)
        prompts = tiny.token_prompts(2)
        table = split_models(base, agent, prompts)
        expected = plain_weights(
            lambda m=base: speaking(m), lambda m=agent: speaking(m), prompts[1]
        )
        check_weights(table, expected, "p1")
        for which in ("weights", "input"):
            values = part(table, which, prompt="p1", token=-1)
            if family == "olmo2":
                assert values.pop("bias") == 0.0
            assert min(map(abs, values.values())) > 1e-6


def test_packs_of_any_size_and_made_one_by_one_give_equal_results(worlds: Worlds):
    here = worlds("gemma2", forms="several", n=4)
    whole = split(here).sort("part", *KEYS)["contribution"].to_numpy()
    runs = clean_runs(here.roster, here.prompts, max_nodes=60)
    assert len(runs["base"].packs) > 1
    made: list[int] = []

    def one_by_one() -> Iterator[CleanPack]:
        for index, pack in enumerate(runs["base"].packs):
            with here.roster.speaking("base") as base:
                full = with_every_token(base, here.roster.anatomy("base"), pack)
            made.append(index)
            yield full

    with here.roster.speaking("base"):
        found = base_attributions(here.roster.anatomy("base"), runs["base"])
    with here.roster.speaking("game") as model:
        anatomy = here.roster.anatomy("game")
        table = change_table(
            model, anatomy, runs["game"], runs["base"], found, everywhere=one_by_one()
        )
    cut = table.sort("part", *KEYS)["contribution"].to_numpy()
    assert cut == pytest.approx(whole, abs=1e-10)
    assert made == list(range(len(runs["base"].packs)))


def test_the_split_costs_one_call_of_each_layer(worlds: Worlds):
    here = worlds("llama", n=4)
    anatomy = here.anatomy()
    calls: list[int] = []

    def note(layer: int) -> Any:
        return lambda *_: calls.append(layer)

    with here.roster.speaking("base") as model:
        base = run_clean("base", model, anatomy, here.prompts, everywhere=True)
        found = base_attributions(anatomy, base)
    handles = [b.layer.register_forward_pre_hook(note(i)) for i, b in enumerate(anatomy.blocks)]
    with here.roster.speaking("game") as model, hooks(handles):
        change_table(model, anatomy, here.runs["game"], base, found)
    assert calls == [0, 1, 2]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def refused(here: World, run: CleanRun, base: CleanRun) -> AgentError:
    with here.roster.speaking("base"):
        found = base_attributions(here.anatomy(), base)
    with here.roster.speaking("game") as model, pytest.raises(AgentError) as e:
        change_table(model, here.anatomy(), run, base, found)
    return e.value


def test_a_base_that_kept_the_answer_alone_is_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    error = refused(here, here.runs["game"], here.runs["base"])
    assert error.problem == (
        "Splitting a change of attribution needs the base's activations at every token"
    )
    assert error.seen == "a clean run that kept the answer spans"
    assert error.remedy == "run the base clean with everywhere=True"


def test_runs_of_other_prompts_or_packs_are_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    others = clean_runs(here.roster, tiny.token_prompts(2, seed=5))
    cut = clean_runs(here.roster, here.prompts, max_nodes=1)
    for base in (others["base"], cut["base"]):
        error = refused(here, here.runs["game"], base)
        assert error.problem == "An agent and its base were not run on the same prompts"
        assert error.seen == "game and base"
        assert error.remedy == "run both on the same prompts"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_float32_is_complete_to_its_precision(worlds: Worlds, family: str):
    """The bar: 1e-5 of the logit difference, or of one nat where that is smaller."""
    here = worlds(family, n=4, dtype=torch.float32)
    for name in ("base", "game"):
        with here.roster.speaking(name):
            _, check = attribution_tables(here.roster.anatomy(name), here.runs[name])
        bound = 1e-5 * np.maximum(1.0, check["logit_diff"].abs().to_numpy())
        assert (check["error"].abs().to_numpy() <= bound).all()
        assert check["error"].abs().max() > 0.0, "a check that computes anything is not exact"
