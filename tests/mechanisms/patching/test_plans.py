"""What a sweep is said to cost, against counts by hand and what it did cost."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_memory import LiveMemory
from torch.utils.flop_counter import FlopCounterMode
from worlds import World, Worlds

from moralscope.core.errors import ResourceError
from moralscope.core.site import Site
from moralscope.mechanisms.patching.donors import donor_for
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import (
    _LOGITS_BYTES,
    Sizes,
    SweepPlan,
    plan_passes,
    plan_sweep,
    sizes_of,
)
from moralscope.mechanisms.patching.rows import run_rows
from moralscope.mechanisms.patching.segments import Segment
from moralscope.mechanisms.patching.sweeps import run_plan, segments_for

KEPT: dict[str, Any] = {"n": 4, "everywhere": True, "parts": "qkv", "equal": True}
TINY = Sizes(3, 4, 8, 32, 48, 1000, 4, masks=1, eager=False)


def segments_of(here: World, positions: str, agent: str = "base") -> list[Segment]:
    run = here.runs[agent]
    pairs = [(member, member) for member in range(len(run.prompts))]
    return segments_for(run, run, pairs, positions)


def every(here: World) -> list[Intervention]:
    return [Intervention((site,)) for site in here.anatomy().component_sites]


@given(
    budget=st.integers(_LOGITS_BYTES, _LOGITS_BYTES + (3 << 20)),
    tokens=st.integers(1, 3000),
    positions=st.sampled_from(["all", "answer_span", "move"]),
)
@settings(max_examples=40)
def test_passes_hold_every_patch_once_within_the_budget(
    worlds: Worlds, budget: int, tokens: int, positions: str
):
    here = worlds("llama", forms="several", max_nodes=60, **KEPT)
    segments, interventions = segments_of(here, positions), every(here)
    try:
        plan = plan_passes(
            TINY, segments, interventions, memory_bytes=budget, max_row_tokens=tokens
        )
    except ResourceError:
        longest = max(len(s.nodes) for s in segments)
        assert budget < _LOGITS_BYTES + 200 * longest * (1000 + longest)
        return
    assert plan.bytes == max(step.bytes for step in plan.passes) <= budget
    done = [(step.segment, i) for step in plan.passes for i in step.interventions]
    expected = [(s, i) for s in range(len(segments)) for i in range(len(interventions))]
    assert sorted(done) == expected
    assert plan.patches == len(interventions) * 4
    for step in plan.passes:
        length = len(segments[step.segment].nodes)
        assert len(step.interventions) == 1 or (len(step.interventions) + 1) * length <= tokens
        entries = [interventions[i].entry for i in step.interventions]
        assert entries == sorted(entries)


def test_more_memory_and_more_tokens_mean_fewer_passes(worlds: Worlds):
    here = worlds("llama", forms="several", **KEPT)
    segments, interventions = segments_of(here, "all"), every(here)

    def passes(budget: int, tokens: int) -> int:
        plan = plan_passes(
            TINY, segments, interventions, memory_bytes=budget, max_row_tokens=tokens
        )
        return len(plan.passes)

    wide = [passes(_LOGITS_BYTES + (size << 20), 10**6) for size in (2, 8, 200)]
    long = [passes(1 << 40, tokens) for tokens in (1, 300, 10**6)]
    assert wide[0] > wide[1] > wide[2] == 1
    assert long[0] == len(interventions) > long[1] > long[2] == 1


def test_not_even_one_row_is_refused_with_what_it_would_take(worlds: Worlds):
    here = worlds("llama", forms="several", **KEPT)
    segments = segments_of(here, "all")
    with pytest.raises(ResourceError, match="Not even one row of a patching sweep fits") as e:
        plan_passes(TINY, segments, every(here), memory_bytes=5 << 20)
    (segment,) = segments
    assert e.value.seen == f"5 MiB for rows of {len(segment.nodes)} tokens"
    needed = int(str(e.value.allowed).split()[0])
    assert e.value.allowed == f"{needed} MiB or more"
    assert "positions='answer_span'" in str(e.value.remedy)
    plan = plan_passes(TINY, segments, every(here), memory_bytes=(needed + 1) << 20)
    assert {len(step.interventions) for step in plan.passes} >= {1}


def test_operations_are_those_counted_by_hand(worlds: Worlds):
    here = worlds("llama", forms="single", **{**KEPT, "n": 1})
    model = here.roster.base.model
    (segment,) = segments_of(here, "answer_span")
    frozen = len(here.prompts[0].tokens) - 1
    assert (len(segment.frozen), len(segment.nodes)) == (frozen, 1)
    weights = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    layer = 2 * weights + 4 * 4 * 8 * (frozen + 1)  # every query head: frozen keys and its own
    interventions = [
        Intervention((Site("mlp", 0),)),
        Intervention((Site("head", 2, 1),)),
        Intervention((Site("resid_post", 2),)),
        Intervention((Site("head", 1, 0), Site("mlp", 2))),
    ]
    plan = plan_sweep(model, here.anatomy(), [segment], interventions)
    assert plan.operations == (3 + 1 + 0 + 2) * layer
    assert plan.patches == 4
    assert plan.seconds(2.0 * plan.operations, efficiency=0.25) == 2.0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("positions", ["answer_span", "all"])
def test_operations_are_those_that_one_row_performs(worlds: Worlds, family: str, positions: str):
    """Counted by torch as they run: matrix products and attention, the readout set apart."""
    # Torch counts matrix products, but not the fused attention of the processor.
    plain = {"attn_implementation": "eager"}
    here = worlds(family, forms="single", everywhere=True, n=1, **plain)
    model, anatomy, run = here.roster.base.model, here.anatomy(), here.runs["base"]
    (segment,) = segments_of(here, positions)
    counts: list[float] = []
    for layer in (0, 2):
        interventions = [Intervention((Site("mlp", layer),))]
        plan = plan_sweep(model, anatomy, [segment], interventions)
        counter = FlopCounterMode(display=False)
        with here.roster.speaking("base") as speaking, counter:
            run_rows(
                speaking, anatomy, run, segment, interventions, donors=[donor_for(run, segment)]
            )
        rows, forms = 2, 2
        readout = 2 * rows * forms * anatomy.width
        counts.append(counter.get_total_flops() - readout)
        assert counts[-1] == plan.operations
    assert counts[0] == 3 * counts[1] > 0


def test_the_sizes_are_those_of_the_model(worlds: Worlds):
    here = worlds("mistral", forms="single", **KEPT)
    found = sizes_of(here.roster.base.model, here.anatomy())
    weights = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    assert found == Sizes(3, 4, 8, 32, 48, weights, 8, masks=2, eager=False)
    eager = sizes_of(worlds("gemma2").roster.base.model, worlds("gemma2").anatomy())
    assert eager.eager == (
        worlds("gemma2").roster.base.model.config._attn_implementation == "eager"
    )


@pytest.mark.parametrize(
    ("family", "positions", "changes"),
    [
        ("llama", "all", {}),
        ("gemma2", "all", {}),
        ("llama", "answer_span", {"hidden_size": 256, "intermediate_size": 512}),
    ],
)
def test_a_pass_takes_no_more_memory_than_was_estimated(
    worlds: Worlds, family: str, positions: str, changes: dict[str, Any]
):
    here = worlds(family, forms="single", n=4, everywhere=True, equal=True, **changes)
    run, anatomy = here.runs["base"], here.anatomy()
    segments, interventions = segments_of(here, positions)[:1], every(here) * 20
    with here.roster.speaking("base") as model:
        plan = plan_sweep(model, anatomy, segments, interventions, max_row_tokens=600)
        largest = max(plan.passes, key=lambda step: step.bytes)
        chosen: dict[str, Any] = {
            "plan": SweepPlan((largest,), len(largest.interventions)),
            "donors": lambda segment: [donor_for(here.runs["game"], segment)],
        }
        run_plan(model, anatomy, run, segments, interventions, **chosen)
        with LiveMemory() as memory:
            run_plan(model, anatomy, run, segments, interventions, **chosen)
    estimate = largest.bytes - _LOGITS_BYTES
    assert estimate > 1 << 20
    assert 0.25 * estimate < memory.peak < estimate
