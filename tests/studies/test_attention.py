"""A study of attention: its tables, its claims, what it was expected to take, and bad settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from moralscope.core.errors import ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.core.tables import read_table
from moralscope.evidence.explaining import explain_claim
from moralscope.studies import Estimate, Study, estimate_study, make_plan, run_study

StudyOf = Callable[..., Study]

FEW: dict[str, Any] = {"games": ["IPD", "ISH"], "wordings": [], "scenarios": False,
                       "table_orders": ["original"]}  # fmt: skip
ASKED: dict[str, Any] = {"scenarios": 2, "methods": ["attention"], "attention": {"draws": 2}}
NONE: dict[str, Any] = {"kernel": False, "dtype": False}
CATEGORIES = ("first", "goal", "labels", "opponent_previous", "own_previous", "payoffs", "rest")


@dataclass(frozen=True)
class Done:
    """A finished run, what was expected of it, and the passes that it took."""

    study: Study
    out: Path
    cache: Path
    estimate: Estimate
    ran: Counter[str]

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, study_of: StudyOf) -> Done:
    folder = tmp_path_factory.mktemp("attention")
    study = study_of(mechanisms=ASKED, prompts=FEW, controls=NONE)
    ran: Counter[str] = Counter()
    running = [""]
    forward = LlamaDecoderLayer.forward

    def counting(self: Any, *args: Any, **named: Any) -> Any:
        ran[running[0]] += self.self_attn.layer_idx == 1
        return forward(self, *args, **named)

    def watch(event: ProgressEvent) -> None:
        if event.task == "stage":
            running[0] = event.note

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        expected = estimate_study(study, folder / "run")
        patch.setattr(LlamaDecoderLayer, "forward", counting)
        run_study(study, folder / "run", progress=watch)
    return Done(study, folder / "run", folder / "cache", expected, ran)


def test_every_head_looks_somewhere_and_every_category_fires(done: Done) -> None:
    table = done.table("attention")
    prompts = table.get_column("prompt").n_unique()
    assert table.height == 2 * prompts * 2 * 4 * len(CATEGORIES)
    assert tuple(table.get_column("category").unique().sort()) == CATEGORIES
    sums = table.group_by("agent", "prompt", "layer", "head").agg(pl.col("mass").sum())
    assert sums.filter((pl.col("mass") - 1.0).abs() > 1e-9).is_empty()
    gates = done.table("gates").filter(pl.col("gate") == "dead channel")
    assert gates.sort("subject").get_column("subject").to_list() == ["base", "game"]
    assert gates.get_column("passed").to_list() == [True, True]


def test_tokens_add_up_to_the_masses_of_their_heads(done: Done) -> None:
    tokens = done.table("attention_tokens")
    # The base has no base that its heads could have moved from.
    assert tokens.get_column("agent").unique().to_list() == ["game"]
    assert tokens.select("layer", "head").unique().height == 4
    place = ["prompt", "layer", "head", "category"]
    summed = tokens.group_by(*place).agg(pl.col("weight", "base_weight").sum())
    for agent, column in (("game", "weight"), ("base", "base_weight")):
        masses = done.table("attention").filter(pl.col("agent") == agent)
        both = summed.join(masses, on=place)
        assert both.height == summed.height
        assert both.filter((pl.col(column) - pl.col("mass")).abs() > 1e-9).is_empty()
    said = tokens.filter(pl.col("category") == "opponent_previous")
    assert all("action" in text for text in _texts(said))


def _texts(tokens: pl.DataFrame) -> list[str]:
    """What the tokens of each prompt and head say together."""
    joined = tokens.sort("position").group_by("prompt", "layer", "head").agg(pl.col("token"))
    return ["".join(texts) for texts in joined.get_column("token")]


def test_every_category_is_masked_on_every_prompt(done: Done) -> None:
    edits = done.table("attention_edits")
    counts = edits.group_by("agent", "prompt", "category").agg(
        pl.col("how").sort().implode(), pl.col("draw").sort()
    )
    prompts = done.table("attention").get_column("prompt").n_unique()
    assert counts.height == 2 * prompts * 5
    assert {tuple(draws) for draws in counts.get_column("draw")} == {(-1, -1, 0, 1)}
    decided = done.table("decisions").select("agent", "prompt", "log_odds")
    both = edits.join(decided, on=["agent", "prompt"])
    assert both.filter((pl.col("baseline_log_odds") - pl.col("log_odds")).abs() > 1e-4).is_empty()


def test_claims_are_made_and_can_be_explained(done: Done) -> None:
    claims, gates = done.table("claims"), done.table("gates")
    names = claims.get_column("id").to_list()
    looked = {"attention:game:base"} | {f"attention:game:base:{c}" for c in CATEGORIES[:-1]}
    uses = {f"uses:{who}:{c}" for who in ("base", "game", "game:base") for c in CATEGORIES[1:-1]}
    assert looked | uses <= set(names)
    tables = {path.stem: pl.read_parquet(path) for path in (done.out / "tables").iterdir()}
    for name in sorted(looked | uses):
        assert explain_claim(tables, claims, gates, name).agrees


def test_the_estimate_counts_the_passes_that_are_run(done: Done) -> None:
    stages = {stage.name: stage for stage in done.estimate.stages}
    for name in ("attend-base", "attend-game"):
        assert done.ran[name] == stages[name].forwards, name


def test_settings_of_attention_are_part_of_its_stage_alone(done: Done, study_of: StudyOf) -> None:
    other = study_of(mechanisms=ASKED | {"attention": {"draws": 3}}, prompts=FEW, controls=NONE)
    keys = [{t.stage.name: t.stage.key for t in make_plan(s)} for s in (done.study, other)]
    changed = {name for name, key in keys[0].items() if keys[1][name] != key}
    assert {"attend-base", "attend-game"} <= changed
    assert not {name for name in changed if name.startswith(("train", "decide", "agents"))}


def test_heads_can_be_named_and_edits_left_out(
    done: Done, study_of: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(done.cache))
    chosen = ASKED | {"attention": {"heads": ["L1.h3"], "edits": False}}
    run_study(study_of(mechanisms=chosen, prompts=FEW, controls=NONE), tmp_path / "run")
    tokens = read_table("attention_tokens", tmp_path / "run" / "tables")
    assert tokens.select("agent", "layer", "head").unique().sort("agent").rows() == [
        ("base", 1, 3), ("game", 1, 3),
    ]  # fmt: skip
    assert tokens.filter(pl.col("agent") == "base")["base_weight"].null_count() > 0
    assert not (tmp_path / "run" / "tables" / "attention_edits.parquet").exists()


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ({"heads": ["L0.h1", "L7.h0"]}, "heads: L7.h0"),
        ({"heads": ["L0.mlp"]}, "heads: L0.mlp"),
        ({"heads": ["payoffs"]}, "heads: payoffs"),
        ({"layers": [0, 2]}, "layers: 2"),
    ],
)
def test_heads_and_layers_that_do_not_exist_are_refused(
    study_of: StudyOf, wrong: dict[str, Any], seen: str
) -> None:
    study = study_of(mechanisms=ASKED | {"attention": wrong}, prompts=FEW)
    with pytest.raises(ConfigError, match="Attention is asked for where the model has none") as e:
        make_plan(study)
    assert e.value.seen == seen
    assert "layers 0 to 1, heads 0 to 3" in str(e.value.allowed)
