"""Paths against brute force that shares no code with them, and against plain patches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny
from brute_paths import brute_paths
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, Worlds

from moralscope.core.errors import AgentError, ResourceError, SiteError
from moralscope.core.progress import ProgressEvent
from moralscope.core.site import Edge, Site, parse_edge, parse_site
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import sweep
from moralscope.mechanisms.paths.tables import check_edge, direct_to_decision, patch_paths
from moralscope.models.capture import hooks

SENDERS = ("embed", "L0.h1", "L0.h3", "L0.attn", "L0.mlp", "L1.h2", "L1.attn", "L1.mlp", "L2.mlp")
RECEIVERS = (
    "L0.resid_mid", "L0.mlp", "L0.resid_post", "L1.resid_pre", "L1.h0.q", "L1.kv1.k", "L1.kv0.v",
    "L1.attn", "L1.resid_mid", "L1.mlp", "L2.h3.q", "L2.kv0.k", "L2.kv1.v", "L2.attn", "L2.mlp",
    "L2.resid_post",
)  # fmt: skip
ANSWER = "answer_span"
HEARS = ("k", "v", "attn", "resid_pre")
"""Receivers through which a word that is not the last token reaches the decision."""


def comes_after(receiver: Site, sender: Site, *, parallel: bool) -> bool:
    """Whether the one hears the other directly."""
    if (receiver.layer, sender.kind) == (sender.layer, "mlp"):
        return receiver.kind == "resid_post"
    if receiver.layer == sender.layer:
        hears = ("resid_post",) if parallel else ("resid_mid", "mlp", "resid_post")
        return receiver.kind in hears
    return (receiver.layer or 0) >= (sender.layer or 0)


def every_edge(*, parallel: bool = False, embed: bool = True) -> list[Edge]:
    """Each kind of sender to each kind of receiver that comes after it."""
    return [
        Edge(sender, receiver)
        for sender in map(parse_site, SENDERS)
        for receiver in map(parse_site, RECEIVERS)
        if comes_after(receiver, sender, parallel=parallel)
        and not (parallel and receiver.kind == "resid_mid")
        and (embed or sender.kind != "embed")
    ]


class Everywhere:
    """Clean runs that keep every token, of worlds that tests share."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, str], CleanRun] = {}

    def __call__(self, here: World, name: str) -> CleanRun:
        key = (id(here), name)
        if key not in self._runs:
            with here.roster.speaking(name) as model:
                anatomy = here.roster.anatomy(name)
                self._runs[key] = run_clean(name, model, anatomy, here.prompts, everywhere=True)
        return self._runs[key]


@pytest.fixture(scope="module")
def everywhere() -> Everywhere:
    return Everywhere()


def patched(
    here: World,
    edges: Sequence[Edge],
    *,
    source: str = "game",
    target: str = "moral",
    runs: Callable[[World, str], CleanRun] | None = None,
    **chosen: Any,
) -> pl.DataFrame:
    """The table of paths; ``runs`` gives other clean runs than the world's."""
    mine, theirs = (
        here.runs[name] if runs is None else runs(here, name) for name in (target, source)
    )
    with here.roster.speaking(target) as model:
        return patch_paths(model, here.roster.anatomy(target), theirs, mine, edges, **chosen)


def values(table: pl.DataFrame, edges: Sequence[Edge], prompt: str) -> np.ndarray:
    """Patched log-odds of one prompt in the order of the edges."""
    own = table.filter(prompt=prompt)
    found = {(s, r): v for s, r, v in own.select("sender", "receiver", "patched_log_odds").rows()}
    assert len(found) == own.height == len(edges)
    return np.array([found[str(edge.sender), str(edge.receiver)] for edge in edges])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_kind_of_path_equals_brute_force(worlds: Worlds, family: str):
    here = worlds(family, n=2)
    edges = every_edge(parallel=here.anatomy().parallel, embed=False)
    if family not in ("llama", "gemma2", "gpt_neox"):
        edges = edges[::4]
    table = patched(here, edges)
    direct = brute_paths(here.roster, "game", "moral", here.prompts[1], edges)
    assert values(table, edges, "p1") == pytest.approx(direct, abs=1e-10)
    assert table["effect"].abs().min() > 1e-9, "every path must matter, or nothing is compared"


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llama", ("multi", "write", ANSWER)),
        ("llama", ("several", "z", ANSWER)),
        ("llama", ("multi", "write", "all")),
        ("gemma2", ("multi", "z", ANSWER)),
        ("gemma2", ("single", "write", "all")),
        ("gpt_neox", ("multi", "write", ANSWER)),
        ("gpt_neox", ("single", "z", "all")),
    ],
)
def test_options_of_several_tokens_all_positions_and_both_ways_of_writing(
    worlds: Worlds, everywhere: Everywhere, family: str, how: tuple[str, str, str]
):
    forms, write, positions = how
    here = worlds(family, forms=forms, n=2)
    edges = every_edge(parallel=here.anatomy().parallel, embed=False)[::7]
    table = patched(here, edges, runs=everywhere, positions=positions, write=write)
    for prompt in here.prompts:
        direct = brute_paths(
            here.roster, "game", "moral", prompt, edges, positions=positions, write=write
        )
        assert values(table, edges, prompt.name) == pytest.approx(direct, abs=1e-10)
    assert table["effect"].abs().min() > 1e-9


@pytest.mark.parametrize(
    ("family", "source", "positions"),
    [("llama", "game", "all"), ("gemma2", "moral", "all"), ("gpt2", "moral", ANSWER),
     ("gpt_neox_sequential", "game", "all")],
)  # fmt: skip
def test_paths_from_another_prompt(
    worlds: Worlds, everywhere: Everywhere, family: str, source: str, positions: str
):
    """Of the same agent and of another; the embedding sends as well."""
    here = worlds(family, forms="several", n=4)
    mine, other = here.prompts[0], here.prompts[3]
    assert len(mine.tokens) == len(other.tokens)
    assert mine.tokens[-1] != other.tokens[-1]
    edges = every_edge()[::6]
    assert {"embed", "head", "attn", "mlp"} == {edge.sender.kind for edge in edges}
    table = patched(
        here, edges, source=source, runs=everywhere, pairs=[(0, 3)], positions=positions
    )
    direct = brute_paths(
        here.roster, source, "moral", mine, edges, other=other, positions=positions
    )
    assert values(table, edges, "p0") == pytest.approx(direct, abs=1e-10)
    assert set(table["source_prompt"]) == {"p3"}
    assert table["effect"].abs().min() > 1e-9


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_paths_from_named_words(worlds: Worlds, everywhere: Everywhere, family: str):
    """Senders at a word alone, of prompts of two lengths; receivers hear it there and later."""
    shared = worlds(family, forms="multi", n=2)
    places = ((4, 5, 11), (3, 9, 10))
    marked = [
        replace(prompt, spans=(("word", at),))
        for prompt, at in zip(shared.prompts, places, strict=True)
    ]
    assert len(marked[0].tokens) != len(marked[1].tokens)
    here = World(shared.roster, tuple(marked), {})
    edges = every_edge(parallel=here.anatomy().parallel)[::5]
    last = here.anatomy().n_layers - 1
    texts = (f"L1.mlp>L{last}.h3.q", f"L0.h1>L{last}.mlp", f"L2.mlp>L{last}.resid_post")
    deaf = [parse_edge(text) for text in texts]
    edges = [*(edge for edge in edges if edge.receiver.kind in HEARS), *deaf]
    table = patched(here, edges, runs=everywhere, pairs=[(0, 1)], positions="word")
    direct = brute_paths(
        here.roster, "game", "moral", marked[0], edges, other=marked[1], positions="word"
    )
    assert values(table, edges, "p0") == pytest.approx(direct, abs=1e-10)
    effects = table["effect"].abs().to_numpy()
    assert effects[: -len(deaf)].min() > 1e-9
    assert effects[-len(deaf) :].max() < 1e-11, "the decision reads no word of the last layer"


def plain(here: World, sites: Sequence[Site], runs: Any, **chosen: Any) -> Any:
    with here.roster.speaking("moral") as model:
        return sweep(
            model, here.anatomy(), runs(here, "game"), runs(here, "moral"),
            [Intervention((site,)) for site in sites], **chosen,
        )  # fmt: skip


@pytest.mark.parametrize("positions", [ANSWER, "all"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_a_path_into_the_next_stream_is_the_patch_of_its_sender(
    worlds: Worlds, everywhere: Everywhere, family: str, positions: str
):
    here = worlds(family, forms="multi", n=2)
    texts = ("L0.mlp>L1.resid_pre", "L1.mlp>L1.resid_post", "L1.h2>L1.resid_mid",
             "L1.attn>L1.resid_mid", "L2.mlp>L2.resid_post")  # fmt: skip
    edges = [parse_edge(text) for text in texts]
    table = patched(here, edges, runs=everywhere, positions=positions)
    senders = [edge.sender for edge in edges]
    whole = plain(here, senders, everywhere, positions=positions)
    for at, prompt in enumerate(here.prompts):
        expected = whole.patched[:, at].tolist()
        assert values(table, edges, prompt.name) == pytest.approx(expected, abs=1e-10)
    assert whole.effect.abs().min() > 1e-4


def test_a_path_past_the_neighbour_is_not_the_patch_of_its_sender(worlds: Worlds):
    """What lies between is held: the decision hears the sender only once."""
    here = worlds("llama", n=2)
    edges = [parse_edge("L0.mlp>L1.resid_pre"), parse_edge("L0.mlp>L2.resid_post")]
    found = patched(here, edges).filter(prompt="p0")["effect"].to_list()
    assert abs(found[0] - found[1]) > 1e-3


def test_attention_and_mlp_side_by_side_send_to_the_next_stream_alone(worlds: Worlds):
    here = worlds("gpt_neox", n=1)
    edges = [parse_edge("L1.h2>L1.resid_post"), parse_edge("L1.attn>L2.resid_pre")]
    table = patched(here, edges)
    whole = plain(here, [edge.sender for edge in edges], lambda h, name: h.runs[name])
    assert values(table, edges, "p0") == pytest.approx(whole.patched[:, 0].tolist(), abs=1e-10)


@pytest.mark.parametrize("write", ["write", "z"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
def test_a_path_from_an_agent_into_itself_is_nothing(
    worlds: Worlds, everywhere: Everywhere, family: str, write: str
):
    here = worlds(family, forms="several", n=2)
    edges = every_edge(parallel=here.anatomy().parallel)[::6]
    for positions in (ANSWER, "all"):
        table = patched(
            here, edges, source="moral", runs=everywhere, write=write, positions=positions
        )
        assert table["effect"].abs().max() < 1e-10


def test_the_embedding_of_agents_on_one_base_sends_nothing(worlds: Worlds):
    table = patched(worlds("llama", n=2), [parse_edge("embed>L2.mlp")])
    assert table["effect"].abs().max() < 1e-12


def test_no_two_paths_are_clones(worlds: Worlds):
    here = worlds("llama", n=1)
    senders = [Site("head", 0, head) for head in range(4)]
    receivers = [Site("q", 2, head) for head in range(4)] + [Site("v", 2, 0), Site("v", 2, 1)]
    edges = [Edge(sender, receiver) for sender in senders for receiver in receivers]
    found = values(patched(here, edges), edges, "p0")
    gaps = np.abs(found[:, None] - found[None, :]) + np.eye(len(found))
    assert gaps.min() > 1e-9


def test_many_paths_are_one_call_of_a_layer_for_each_step(worlds: Worlds):
    here = worlds("llama", n=1)
    calls: list[tuple[int, int]] = []

    def note(layer: int) -> Any:
        return lambda _, args: calls.append((layer, args[0].shape[1]))

    def counted(edges: Sequence[Edge]) -> list[tuple[int, int]]:
        calls.clear()
        blocks = here.anatomy().blocks
        with hooks([b.layer.register_forward_pre_hook(note(i)) for i, b in enumerate(blocks)]):
            patched(here, edges)
        return list(calls)

    heads = [Site("head", 0, head) for head in range(4)]
    into = [Edge(s, Site("q", 2, h)) for s in heads for h in range(4)]
    # Sixteen paths: the receiving layer on what they heard, then with a clean row beside them.
    assert counted(into) == [(2, 16), (2, 17)]
    assert counted([Edge(s, Site("q", 1, 0)) for s in heads]) == [(1, 4), (1, 4), (2, 4)]
    assert counted([direct_to_decision(here.anatomy(), s) for s in heads]) == []


@given(st.data())
@settings(max_examples=6)
def test_paths_do_not_see_each_other(worlds: Worlds, data: st.DataObject):
    here = worlds("gemma2", forms="multi", n=2)
    some = st.lists(st.sampled_from(every_edge(embed=False)), min_size=2, max_size=12, unique=True)
    edges = data.draw(some)
    together = patched(here, edges)
    one = data.draw(st.sampled_from(edges))
    alone = patched(here, [one])
    at = edges.index(one)
    for prompt in here.prompts:
        found = values(together, edges, prompt.name)[at]
        assert found == pytest.approx(values(alone, [one], prompt.name)[0], abs=1e-10)


@pytest.mark.parametrize("limits", [{"max_row_tokens": 1}, {"max_row_tokens": 13}])
def test_passes_of_any_size_give_equal_results(worlds: Worlds, limits: dict[str, int]):
    here = worlds("gemma2", forms="several", n=2)
    edges = every_edge(embed=False)[::4]
    whole, cut = patched(here, edges), patched(here, edges, **limits)
    asked = [(p.name, str(e.sender), str(e.receiver)) for p in here.prompts for e in edges]
    assert cut.select("prompt", "sender", "receiver").rows() == asked
    assert cut["baseline_log_odds"].n_unique() == len(here.prompts)
    for prompt in here.prompts:
        found = values(cut, edges, prompt.name)
        assert found == pytest.approx(values(whole, edges, prompt.name), abs=1e-10)


def test_the_table_says_what_was_patched(worlds: Worlds):
    here = worlds("llama", n=2)
    seen: list[ProgressEvent] = []
    edge = direct_to_decision(here.anatomy(), Site("head", 1, 3))
    table = patched(here, [edge], write="z", progress=seen.append)
    assert table.select("source", "target", "sender", "receiver", "positions", "write").unique(
    ).rows() == [("game", "moral", "L1.h3", "L2.resid_post", ANSWER, "z")]  # fmt: skip
    assert table.select("prompt", "source_prompt").rows() == [("p0", "p0"), ("p1", "p1")]
    own = here.runs["moral"].log_odds.tolist()
    assert table["baseline_log_odds"].to_list() == pytest.approx(own, abs=1e-10)
    gap = table["patched_log_odds"] - table["baseline_log_odds"]
    assert table["effect"].to_list() == pytest.approx(gap.to_list(), abs=1e-15)
    assert [(e.task, e.done, e.total) for e in seen] == [
        ("paths game>moral", 1, 1)  # spans of one token go two by two
    ]  # fmt: skip
    assert patched(here, []).height == 0


def test_the_model_is_left_as_it_was(worlds: Worlds):
    here = worlds("gemma2", n=1)
    patched(here, every_edge(embed=False)[::5])
    modules = here.roster.base.model.modules()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


_ORDER = "The receiver of a path does not come after its sender. Seen: {}"
_NO_PATH = "This is not a path between components. Seen: {}"
_NO_SITE = "The model has no such site. Seen: {}"


@pytest.mark.parametrize(
    ("family", "text", "message", "remedy"),
    [
        ("llama", "L2.mlp>L1.mlp", _ORDER, "exchange the two, or choose a later receiver"),
        ("llama", "L1.h0>L1.h2.q", _ORDER, "exchange the two, or choose a later receiver"),
        ("llama", "L1.attn>L1.attn", _ORDER, "exchange the two, or choose a later receiver"),
        ("llama", "L1.mlp>L1.resid_mid", _ORDER, "exchange the two, or choose a later receiver"),
        ("llama", "L1.h0>L1.resid_pre", _ORDER, "exchange the two, or choose a later receiver"),
        ("gpt_neox", "L1.attn>L1.mlp", _ORDER, "exchange the two, or choose a later receiver"),
        ("llama", "L0.h1>L2.h3", _NO_PATH, "send to a head through its query (L7.h2.q), key"),
        ("llama", "bias>L2.mlp", _NO_PATH, "send to a head"),
        ("llama", "L0.mlp>all", _NO_PATH, "send to a head"),
        ("llama", "L0.resid_post>L2.mlp", _NO_PATH, "send to a head"),
        ("llama", "L0.h9>L2.mlp", _NO_SITE.format("L0.h9"), "the nearest is L0.h3"),
        ("llama", "L0.h1>L2.kv4.v", _NO_SITE.format("L2.kv4.v"), "the nearest is L2.kv1.v"),
        ("llama", "L0.h1>L7.mlp", _NO_SITE.format("L7.mlp"), "the nearest is L2.mlp"),
        ("gpt_neox", "L0.h1>L1.resid_mid", _NO_SITE.format("L1.resid_mid"),
         "the nearest is L1.resid_post"),
    ],
)  # fmt: skip
def test_a_path_that_does_not_exist_is_refused(
    worlds: Worlds, family: str, text: str, message: str, remedy: str
):
    here = worlds(family, n=1)
    with pytest.raises(SiteError, match=message.format(text)) as e:
        patched(here, [parse_edge("L0.mlp>L2.mlp"), parse_edge(text)])
    assert e.value.remedy is not None
    assert e.value.remedy.startswith(remedy)


def test_every_kind_of_path_of_these_tests_is_allowed(worlds: Worlds):
    for family in ("llama", "gpt_neox"):
        anatomy = worlds(family, n=1).anatomy()
        allowed = set(every_edge(parallel=anatomy.parallel))
        for sender in map(parse_site, SENDERS):
            for receiver in map(parse_site, RECEIVERS):
                edge = Edge(sender, receiver)
                if edge in allowed:
                    check_edge(anatomy, edge)
                else:
                    with pytest.raises(SiteError):
                        check_edge(anatomy, edge)


def test_runs_that_kept_too_little_are_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    edges = [parse_edge("L0.mlp>L2.mlp")]
    with pytest.raises(AgentError, match="needs activations that were not kept"):
        patched(here, edges, positions="all")
    with pytest.raises(ResourceError, match="Not even one row of a patching sweep fits"):
        patched(here, edges, memory_bytes=1000)
