"""What stays in memory from stage to stage: the runs made first, and of the others the last two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from moralscope.core.decision import PromptSet
from moralscope.mechanisms.clean import CleanRun, memory_of
from moralscope.models.loading import locate_model
from moralscope.studies import Study, workbench
from moralscope.studies.catalogue import mechanism_prompts
from moralscope.studies.workbench import Workbench

StudyOf = Callable[..., Study]


def asked_in_turn(study: Study, rounds: int = 2) -> tuple[Workbench, list[CleanRun]]:
    """The base's runs over four different sets of prompts, again and again."""
    bench = Workbench(study, locate_model(study.model))
    whole = tuple(mechanism_prompts(study))
    sets = [PromptSet(whole[: 2 + n]) for n in range(4)]
    return bench, [bench.clean_run("base", {}, asked) for _ in range(rounds) for asked in sets]


def test_runs_that_fit_are_made_once(study_of: StudyOf) -> None:
    _, runs = asked_in_turn(study_of())
    assert all(first is again for first, again in zip(runs[:4], runs[4:], strict=True))


def test_beyond_the_limit_the_first_stay_and_the_last_two(
    study_of: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    _, runs = asked_in_turn(study, rounds=1)
    monkeypatch.setattr(workbench, "CLEAN_BYTES", memory_of(runs[0]) + 1)
    bench, found = asked_in_turn(study)
    assert found[4] is found[0]  # it fits, so it is there whenever its turn comes
    assert all(found[4 + n] is not found[n] for n in (1, 2, 3))
    assert len(bench._clean) == 3
    for n in (1, 2, 3):  # made again, it is the same
        assert torch.equal(found[4 + n].log_odds, found[n].log_odds)


def test_the_memory_of_a_run_counts_every_tensor_once(study_of: StudyOf) -> None:
    _, (run, *_) = asked_in_turn(study_of(), rounds=1)
    (part,) = run.packs
    seen = part.captured
    tensors = [
        *run.out_weights, *(bias for bias in run.out_biases if bias is not None), part.log_odds,
        *(t for layer in part.cache.layers for t in (layer.keys, layer.values)),
        seen.z, seen.attn_out, seen.mlp_out, seen.attn_write, seen.mlp_write, seen.resid_pre,
        seen.resid_final, seen.logits,
    ]  # fmt: skip
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert memory_of(run) == sum(held.values())
