"""The lens and its controls with a real tokenizer, chat template and weights."""

import numpy as np
import pytest

from moralscope.core.streams import stream
from moralscope.games import clusters, structured
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.lens.controls import lens_controls_table
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.mechanisms.lens.stabilisation import compare_agent, stabilisation_tables
from moralscope.mechanisms.lens.unrelated import unrelated_names, unrelated_prompts
from moralscope.models.anatomy import dissect
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all

pytestmark = pytest.mark.slow


def test_neutral_questions_end_as_every_prompt_does(real_base: LoadedModel):
    chosen = (*structured(), *tuple(clusters())[::9])
    unrelated = tuple(unrelated_prompts(chosen))
    names = unrelated_names(chosen, unrelated)
    encoded = {p.name: p for p in encode_all(real_base.tokenizer, (*chosen, *unrelated))}
    for prompt in chosen:
        own = encoded[prompt.name]
        stem = real_base.tokenizer.encode(prompt.decision.stem, add_special_tokens=False)
        assert len(names[prompt.name]) == 10
        for name in names[prompt.name]:
            other = encoded[name]
            assert other.tokens[-len(stem) :] == own.tokens[-len(stem) :]
            assert {other.positive, other.negative} == {own.positive, own.negative}


def test_early_readings_are_those_of_stem_and_labels(real_base: LoadedModel):
    chosen = tuple(structured())[::7][:4]
    unrelated = tuple(unrelated_prompts(chosen))
    model, anatomy = real_base.model, dissect(real_base.model)
    run, elsewhere = (
        run_clean("base", model, anatomy, encode_all(real_base.tokenizer, some), keep_cache=False)
        for some in (chosen, unrelated)
    )
    lens = lens_table(anatomy, run)
    names = unrelated_names(chosen, unrelated)
    controls = lens_controls_table(
        anatomy, run, rng=stream(1, "pairs"), elsewhere=elsewhere, names=names
    )
    # Labels are read before anything is computed, at either sign, and on neutral questions alike.
    embedded = lens.filter(sublayer="embed").sort("prompt")["logit_diff"].to_numpy()
    assert (np.abs(embedded) > 1.0).all()
    elsewhere_embedded = controls.filter(sublayer="embed", control="unrelated_prompt", draw=3)
    elsewhere_embedded = elsewhere_embedded.sort("prompt")
    assert np.abs(elsewhere_embedded["logit_diff"].to_numpy() - embedded).max() < 1e-4
    found = compare_agent(lens, controls, "base")
    assert set(found) == {"random_pair", "unrelated_prompt"}
    labels = found["unrelated_prompt"]
    assert np.abs(labels.decision[0] - labels.high[0]) < 1e-4
    assert not labels.beyond[0]
    assert not found["random_pair"].beyond[:20].any()
    _, summary = stabilisation_tables(
        lens, {p.name: p.scenario for p in chosen}, seed=1, controls=controls
    )
    assert 0.0 <= summary["depth"][0] <= 30.0
