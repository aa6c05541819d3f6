"""The loop: right gradients, the same result every time, an adapter that can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from moralscope.core.agents import AgentSpec
from moralscope.core.decision import Prompt
from moralscope.core.errors import AgentError, ConfigError
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import ProgressEvent
from moralscope.core.tables import read_table
from moralscope.games import clusters, get_game, get_opponent, get_reward, meet
from moralscope.models.fingerprint import read_fingerprint
from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel, load_model
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import make_packs
from moralscope.models.tables import decisions_table
from moralscope.training import loop
from moralscope.training.answers import Question, read_answers
from moralscope.training.batches import (
    draw_batch,
    make_cells,
    state_index,
    training_prompts,
)
from moralscope.training.config import TrainingConfig
from moralscope.training.finished import missing_files
from moralscope.training.loop import learning_rate, train_agent
from moralscope.training.lora import adapted, trainable
from moralscope.training.objectives import Batch, exact_objective

Configure = Callable[..., TrainingConfig]
WEIGHTS = "adapter_model.safetensors"


def untimed(table: pl.DataFrame) -> list[tuple[object, ...]]:
    return table.drop("seconds").rows()


def padded_log_p(base: LoadedModel, encoded: list[EncodedPrompt]) -> Tensor:
    """One row for each prompt and option, padded on the right: how it is usually done."""
    rows = [(p.tokens + form, len(form)) for p in encoded for (form,) in (p.positive, p.negative)]
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (tokens, _) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        mask[i, : len(tokens)] = 1
    with full_precision(base.model):
        log_p = base.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    totals = [
        sum(log_p[i, len(tokens) - k - 1, tokens[len(tokens) - k]] for k in range(1, length + 1))
        for i, (tokens, length) in enumerate(rows)
    ]
    return torch.stack(totals).view(-1, 2)


@pytest.mark.parametrize("weighting", ["uniform", "visitation"])
@pytest.mark.parametrize("max_nodes", [2048, 400])
def test_a_step_on_the_tree_equals_the_padded_batch(
    wide_base: LoadedModel, configure: Configure, weighting: str, max_nodes: int
) -> None:
    config = configure(labels="both", wordings=("structured", "rounds"), prompts_per_step=16)
    prompts = tuple(training_prompts(config))
    chosen = draw_batch(config, make_cells(config, prompts, get_game("IPD")), 1)
    encoded = encode_all(wide_base.tokenizer, [prompts[i] for i in chosen])
    assert len(make_packs(encoded, max_nodes)) > 1 or max_nodes == 2048
    met = meet(get_game("IPD"), get_reward("hybrid"), get_opponent("tit-for-tat"))
    states = torch.tensor([state_index(prompts[i]) for i in chosen])
    reference = torch.full((len(chosen), 2), -1.5, dtype=torch.float64)
    results: list[tuple[Tensor, list[Tensor]]] = []
    with adapted(wide_base, config.lora, 0) as wrapped:
        parameters = trainable(wrapped)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        for log_p in (
            read_answers(
                wide_base.model, [Question(p) for p in encoded], max_nodes=max_nodes
            ).log_p,
            padded_log_p(wide_base, list(encoded)),
        ):
            batch = Batch(log_p, reference, states)
            loss, _ = exact_objective(batch, met, kl_coefficient=0.2, weighting=weighting)
            gradient = torch.autograd.grad(loss, list(parameters.values()))
            results.append((loss.detach(), list(gradient)))
    (tree_loss, tree), (padded_loss, padded) = results
    assert tree_loss.dtype == torch.float64
    assert abs(float(tree_loss - padded_loss)) < 1e-10
    largest = max(float(g.abs().max()) for g in padded)
    assert largest > 1e-6
    assert max(float((a - b).abs().max()) for a, b in zip(tree, padded, strict=True)) < 1e-10


def test_training_gives_the_same_bytes_every_time_and_others_for_another_seed(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    tables: dict[str, pl.DataFrame] = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        tables[name] = train_agent(
            "a", configure(seed=seed), base, out=tmp_path / name, work=tmp_path / f"{name}-work"
        )
        torch.rand(7)  # what others draw must not matter
    files = {name: (tmp_path / name / WEIGHTS).read_bytes() for name in tables}
    assert files["first"] == files["again"] != files["other"]
    assert untimed(tables["first"]) == untimed(tables["again"]) != untimed(tables["other"])
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())


def test_what_training_writes(base: LoadedModel, configure: Configure, tmp_path: Path) -> None:
    config = configure(steps=4, checkpoint_every=1)
    events: list[ProgressEvent] = []
    table = train_agent(
        "game", config, base, out=tmp_path / "out", work=tmp_path / "work", progress=events.append
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        WEIGHTS,
        "adapter_config.json",
        "fingerprint.json",
        "training.json",
        "training.parquet",
    }
    resolved = json.loads((tmp_path / "out" / "training.json").read_text())
    assert TrainingConfig.model_validate(resolved) == config
    assert read_table("training", tmp_path / "out").equals(table)
    assert table["step"].to_list() == [1, 2, 3, 4]
    assert table["agent"].unique().to_list() == ["game"]
    assert table["kl"][0] == pytest.approx(0.0, abs=1e-6)  # it starts at the base
    steps = [e for e in events if e.task == "train game"]
    assert [(e.done, e.total) for e in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not (tmp_path / "work" / "checkpoint").exists()


@pytest.mark.parametrize(("reward", "defects"), [("game", True), ("deontological", False)])
def test_an_agent_learns_what_its_reward_says(
    base: LoadedModel, configure: Configure, tmp_path: Path, reward: str, defects: bool
) -> None:
    config = configure(reward=reward, labels="same", steps=40, kl_coefficient=0.0)
    table = train_agent("a", config, base, out=tmp_path / "out", work=tmp_path / "work")
    last = table.row(-1, named=True)
    first = table.row(0, named=True)
    assert 0.1 < first["cooperation"] < 0.4
    assert last["legal_mass"] > 0.9
    # The deontological reward says nothing of what to do after a defection.
    assert last["cooperation"] < 0.05 if defects else last["cooperation"] > 0.6
    assert last["loss"] < first["loss"] - 0.2


def test_a_strong_kl_term_holds_the_agent_at_the_base(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    kl = {}
    for beta in (0.0, 3.0):
        config = configure(steps=12, kl_coefficient=beta, labels="same")
        table = train_agent("a", config, base, out=tmp_path / str(beta), work=tmp_path / "w")
        kl[beta] = table["kl"][-1]
    assert abs(kl[3.0]) < 0.06
    assert kl[0.0] > 0.12


def test_the_fingerprint_is_that_of_the_adapter_when_it_is_loaded(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    extra = tuple(clusters().where(lambda p: p.game == "ISH"))
    config = configure()
    train_agent(
        "a", config, base, out=tmp_path / "a", work=tmp_path / "w", fingerprint_prompts=extra
    )
    fingerprint = read_fingerprint(tmp_path / "a")
    assert fingerprint is not None
    prompts: tuple[Prompt, ...] = (*training_prompts(config), *extra)
    assert set(fingerprint.prompts) == {p.name for p in prompts}
    assert fingerprint.base == base.source.sha256
    assert fingerprint.adapter == sha256_file(tmp_path / "a" / WEIGHTS)

    roster = Roster(loaded_again(base))
    roster.add(AgentSpec(name="a", base="tiny", adapter=str(tmp_path / "a")))
    encoded = encode_all(base.tokenizer, prompts)
    table = decisions_table(roster, "a", prompts, encoded)
    gap = (table["log_odds"] - table["fingerprint_log_odds"]).abs()
    assert gap.null_count() == 0
    assert float(np.max(gap.to_numpy())) < 1e-5


def loaded_again(base: LoadedModel) -> LoadedModel:
    return load_model(base.source)


def test_packs_change_nothing_but_the_last_digits(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    whole, cut = (
        train_agent("a", configure(), base, out=tmp_path / str(n), work=tmp_path / "w", max_nodes=n)
        for n in (2048, 300)
    )
    assert np.allclose(whole["loss"].to_numpy(), cut["loss"].to_numpy(), rtol=1e-4)


def test_narrow_arithmetic_follows_the_wide_one(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    narrow, wide = (
        train_agent("a", configure(compute_dtype=d), base, out=tmp_path / d, work=tmp_path / "w")
        for d in ("bfloat16", "float32")
    )
    assert np.allclose(narrow["loss"].to_numpy(), wide["loss"].to_numpy(), atol=0.3)
    assert untimed(narrow) != untimed(wide)


def test_a_loss_that_is_not_finite_is_refused_and_nothing_is_saved(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    config = configure(learning_rate=1e30, steps=6)
    with pytest.raises(
        AgentError, match="Training 'wild' broke down at step .*Allowed: a finite loss. "
        "Next: lower learning_rate",
    ):  # fmt: skip
        train_agent("wild", config, base, out=tmp_path / "out", work=tmp_path / "work")
    assert not (tmp_path / "out").exists()
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"reward": "utilitarain"}, "no reward of this name.*'utilitarian'"),
        ({"opponent": "tit-for-tit"}, "no opponent of this name.*'tit-for-tat'"),
        ({"game": "IDP"}, "Seen: IDP"),
        ({"prompts_per_step": 9}, "cannot be divided evenly"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_saved(
    base: LoadedModel, configure: Configure, tmp_path: Path, setting: dict[str, object], said: str
) -> None:
    # What a validator refuses, pydantic tells as its own error.
    with pytest.raises((ConfigError, ValidationError), match=said):
        train_agent("a", configure(**setting), base, out=tmp_path / "out", work=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_the_learning_rate_is_constant_or_falls_to_zero_after_the_last_step(
    configure: Configure,
) -> None:
    constant = configure(steps=5, learning_rate=0.3)
    assert {learning_rate(constant, s) for s in range(1, 6)} == {0.3}
    linear = configure(steps=4, learning_rate=0.4, schedule="linear")
    assert [learning_rate(linear, s) for s in range(1, 5)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert learning_rate(linear, 5) == pytest.approx(0.0)


def test_the_schedule_is_used(base: LoadedModel, configure: Configure, tmp_path: Path) -> None:
    constant, linear = (
        train_agent("a", configure(schedule=s), base, out=tmp_path / s, work=tmp_path / "w")
        for s in ("constant", "linear")
    )
    assert linear["loss"][:2].equals(constant["loss"][:2])  # the first step has the full rate
    assert linear["loss"][2] != constant["loss"][2]


def test_the_table_that_makes_a_folder_finished_is_written_last(
    base: LoadedModel, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever interrupts the writing of the rest, the same call goes on and completes it."""
    config = configure(method="reinforce", sampling={"games": 2, "group": 2}, keep_steps=(2,))
    out, work = tmp_path / "out", tmp_path / "work"
    whole = loop.write_table

    def interrupted(name: str, table: pl.DataFrame, folder: Path) -> Path:
        if name == "plays":
            raise KeyboardInterrupt
        return whole(name, table, folder)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "write_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_agent("a", config, base, out=out, work=work)
    assert missing_files(out) == ("training.parquet",)
    train_agent("a", config, base, out=out, work=work)
    assert not missing_files(out)
    assert read_table("plays", out).height == 3 * 2 * 5
    assert (out / "checkpoints" / "step-00000002" / WEIGHTS).is_file()


def test_generated_answers_are_learned_from_in_one_pass(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    config = configure(
        method="reinforce", actions="generate", steps=1, sampling={"games": 4, "group": 4}
    )
    (row,) = train_agent("a", config, base, out=tmp_path / "out", work=tmp_path / "work").to_dicts()
    assert row["gradient_norm"] > 0


def test_a_step_to_keep_that_is_never_taken_is_refused(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    config = configure(steps=3, keep_steps=(3, 4))
    with pytest.raises(ConfigError, match=r"never taken. Seen: keep_steps \[4\], steps 3"):
        train_agent("a", config, base, out=tmp_path / "out", work=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_a_frozen_opponent_that_was_trained_anew_is_another_training(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    folder, out, work = (tmp_path / name for name in ("frozen", "out", "work"))

    def freeze(seed: int) -> None:
        train_agent("f", configure(seed=seed, steps=1), base, out=folder, work=tmp_path / "w")

    def stop(event: ProgressEvent) -> None:
        if event.done == 1:
            raise KeyboardInterrupt

    config = configure(opponent=f"agent({folder})", checkpoint_every=1)
    freeze(0)
    with pytest.raises(KeyboardInterrupt):
        train_agent("a", config, base, out=out, work=work, progress=stop)
    freeze(1)
    with pytest.raises(ConfigError, match="other settings. Seen: opponent_adapter"):
        train_agent("a", config, base, out=out, work=work)
    freeze(0)
    assert train_agent("a", config, base, out=out, work=work).height == 3
