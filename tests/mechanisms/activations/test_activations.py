"""Activations on disk are those of plain runs, come back whole, and belong to what they say."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from hooked import record
from hypothesis import given, settings
from hypothesis import strategies as st
from live_memory import LiveMemory
from safetensors.torch import load_file
from worlds import Worlds

from moralscope.core.errors import (
    AgentError,
    ModelError,
    MoralscopeError,
    OutputError,
    PromptError,
    SiteError,
)
from moralscope.core.files import TEMPORARY_PREFIX
from moralscope.core.progress import ProgressEvent
from moralscope.core.site import Site
from moralscope.mechanisms.activations import capturing, reading
from moralscope.mechanisms.activations.capturing import capture_agents
from moralscope.mechanisms.activations.index import INDEX
from moralscope.mechanisms.activations.reading import StoredActivations, read_activations
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

AGENTS = ("game", "base", "moral")
PROMPTS = tiny.token_prompts(4, forms="several")
NODES = 40
"""Largest pack: the prompts need three."""


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    return tiny.tiny_roster(tmp_path_factory.mktemp("agents"))


@pytest.fixture(scope="module")
def finished(roster: Roster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished capture; tests that change it copy it."""
    return captured(roster, tmp_path_factory.mktemp("finished") / "activations")


def captured(roster: Roster, folder: Path, **changes: Any) -> Path:
    chosen = {"everywhere": True, "parts": "qkv", "dtype": "float64", "max_nodes": NODES, **changes}
    prompts = chosen.pop("prompts", PROMPTS)
    return capture_agents(roster, chosen.pop("names", AGENTS), prompts, folder, **chosen)


def expected(
    roster: Roster, agent: str, prompt: EncodedPrompt, site: Site, positions: str
) -> torch.Tensor:
    """By plain hooks, one sequence a form: the prompt's tokens, then new tokens of each form."""
    rows: dict[tuple[int, ...], torch.Tensor] = {}
    with roster.speaking(agent) as model:
        for sequence in prompt.continuations:
            found = record(model, sequence, [site] if site.kind in "qkv" else [])
            for at, value in enumerate(_of(found, site, model)):
                rows.setdefault(sequence[: at + 1], value)
    start = len(prompt.tokens) if positions == "answer_span" else 1
    return torch.stack([value for path, value in rows.items() if len(path) >= start])


def _of(found: Any, site: Site, model: Any) -> torch.Tensor:
    layer = site.layer or 0
    if site.kind in ("q", "k", "v"):
        return found[0, str(site)]
    if site.kind == "head":
        return found[layer, "z"].chunk(model.config.num_attention_heads, -1)[site.head or 0]
    return found[layer, "resid_pre" if site.kind == "embed" else site.kind]


@pytest.mark.parametrize(
    ("family", "everywhere"),
    [("llama", True), ("llama", False), ("gemma2", True), ("olmo2", False), ("gpt_neox", True)],
)
def test_every_site_is_what_plain_hooks_find(
    tmp_path: Path, worlds: Worlds, family: str, everywhere: bool
):
    roster = worlds(family).roster
    read = read_activations(captured(roster, tmp_path, everywhere=everywhere, names=["game"]))
    assert len(read.index.packs) > 1
    assert set(read.sites) == set(
        roster.anatomy("game").sites(
            *("embed", "resid_pre", "head", "q", "k", "v", "attn", "resid_mid", "mlp"),
            "resid_post",
        )
    )
    chosen = [site for site in read.sites if site.head in (None, 1) and site.layer in (None, 0, 2)]
    prompt = PROMPTS[2]
    for site in chosen:
        for positions in ("answer_span", "all") if everywhere else ("answer_span",):
            ours = read.get("game", prompt.name, site, positions)
            plain = expected(roster, "game", prompt, site, positions)
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9, msg=str(site))
            assert ours.dtype == torch.float64
            assert float(plain.abs().max()) > 1e-3


def test_each_agent_and_prompt_has_its_own(roster: Roster, finished: Path):
    read = read_activations(finished)
    assert read.agents == AGENTS
    assert read.prompts == tuple(prompt.name for prompt in PROMPTS)
    for agent in AGENTS:
        for prompt in PROMPTS:
            ours = read.get(agent, prompt.name, "L2.resid_post")
            plain = expected(roster, agent, prompt, Site("resid_post", 2), "answer_span")
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
        with roster.speaking(agent) as model:
            odds = [tiny.plain_log_odds(model, prompt) for prompt in PROMPTS]
        assert read.log_odds(agent).tolist() == pytest.approx(odds, abs=1e-9)
    assert not torch.equal(read.log_odds("game"), read.log_odds("base"))


def test_tokens_by_their_index(finished: Path, roster: Roster, tmp_path: Path):
    read, prompt = read_activations(finished), PROMPTS[1]
    whole = read.get("moral", prompt.name, "blocks.1.hook_mlp_out", "all")
    some = read.get("moral", prompt.name, "L1.mlp", [7, 0, 3])
    assert torch.equal(some, whole[[7, 0, 3]])
    last = len(prompt.tokens) - 1
    spans = read_activations(captured(roster, tmp_path, everywhere=False))
    kept = spans.get("moral", prompt.name, "L1.mlp", [last])
    torch.testing.assert_close(kept, whole[[last]], rtol=1e-12, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    forms=st.sampled_from(["single", "several"]),
    limit=st.integers(9, 99),
)
def test_rows_are_the_tokens_in_their_order(
    roster: Roster, tmp_path_factory: pytest.TempPathFactory, seed: int, forms: str, limit: int
):
    prompts = tiny.token_prompts(3, seed=seed, forms=forms, length=12)
    folder = tmp_path_factory.mktemp("rows")
    read = read_activations(
        captured(roster, folder, prompts=prompts, names=["base"], max_nodes=limit, parts="")
    )
    with roster.speaking("base") as model:
        table = model.get_input_embeddings().weight
    for prompt in prompts:
        options = dict.fromkeys(
            form[:end] for form in prompt.positive + prompt.negative for end in range(1, len(form))
        )
        tokens = [*prompt.tokens, *(prefix[-1] for prefix in options)]
        assert torch.equal(read.get("base", prompt.name, "embed", "all"), table[tokens])
        span = read.get("base", prompt.name, "embed")
        assert torch.equal(span, table[tokens[len(prompt.tokens) - 1 :]])


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class _Watched:
    """An open file that notes what is read of it."""

    def __init__(self, file: Any, asked: list[Any]) -> None:
        self._file, self._asked = file, asked

    def get_slice(self, name: str) -> Any:
        part = self._file.get_slice(name)
        asked = self._asked

        class Slice:
            def get_shape(self) -> list[int]:
                return part.get_shape()

            def __getitem__(self, at: Any) -> torch.Tensor:
                asked.append((name, at))
                return part[at]

        return Slice()


def test_only_what_is_asked_for_is_read(finished: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    real = reading.safe_open

    class Opened:
        def __init__(self, *where: str) -> None:
            self._manager = real(*where)

        def __enter__(self) -> _Watched:
            return _Watched(self._manager.__enter__(), asked)

        def __exit__(self, *error: object) -> None:
            self._manager.__exit__(*error)

    monkeypatch.setattr(reading, "safe_open", Opened)
    read = read_activations(finished)
    found = read.get("game", PROMPTS[0].name, "L2.h1", [4])
    (name, (layer, rows, features)), dim = asked[0], found.shape[-1]
    assert len(asked) == 1
    assert (name, layer) == ("z", 2)
    assert (rows.stop - rows.start, features) == (1, slice(dim, 2 * dim))
    assert found.untyped_storage().nbytes() == found.numel() * found.itemsize


def test_memory_holds_one_pack(roster: Roster, tmp_path: Path):
    prompts = [
        dataclasses.replace(p, name=f"{p.name}-{seed}")
        for seed in range(6)
        for p in tiny.token_prompts(1, seed=seed, length=40)
    ]
    peaks: list[int] = []
    for folder, some in (("one", prompts[:1]), ("six", prompts)):
        with LiveMemory() as memory:
            captured(roster, tmp_path / folder, prompts=some, names=["game"])
        peaks.append(memory.most)
    assert len(read_activations(tmp_path / "six").index.packs) == 6
    assert peaks[1] < 1.3 * peaks[0], peaks


def interrupted(roster: Roster, folder: Path, after: int) -> None:
    def stop(event: ProgressEvent) -> None:
        if event.done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        captured(roster, folder, progress=stop)


def test_an_interrupted_capture_goes_on(roster: Roster, tmp_path: Path, finished: Path):
    interrupted(roster, tmp_path, after=4)
    read = read_activations(tmp_path)
    assert read.get("game", "p0", "L0.mlp").isfinite().all()
    with pytest.raises(OutputError, match="was interrupted") as refusal:
        read.log_odds("moral")
    assert "goes on where it stopped" in refusal.value.remedy
    old = tmp_path / f"{TEMPORARY_PREFIX}killed"
    old.mkdir()
    os.utime(old, (0, 0))
    (tmp_path / f"{TEMPORARY_PREFIX}under-way").mkdir()
    events: list[ProgressEvent] = []
    captured(roster, tmp_path, progress=events.append)
    total = len(AGENTS) * len(read.index.packs)
    assert [event.done for event in events] == list(range(5, total + 1))
    (tmp_path / f"{TEMPORARY_PREFIX}under-way").rmdir()
    assert contents(tmp_path) == contents(finished)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("how", ["flipped", "cut", "removed", "not named"])
def test_a_damaged_file_is_never_trusted(roster: Roster, finished: Path, tmp_path: Path, how: str):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    victim = folder / read_activations(folder).index.file_name("base", 1)
    whole = victim.read_bytes()
    if how == "flipped":
        victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif how == "cut":
        victim.write_bytes(whole[:-8])
    elif how == "removed":
        victim.unlink()
    else:
        index = json.loads((folder / INDEX).read_text())
        del index["files"][victim.name]
        (folder / INDEX).write_text(json.dumps(index))
    read = read_activations(folder)
    names = [p.name for p in read.index.prompts if p.pack == 1]
    with pytest.raises(OutputError, match="damaged|interrupted") as refusal:
        read.get("base", names[0], "L0.mlp")
    assert "capture_agents again" in refusal.value.remedy
    assert read.get("game", names[0], "L0.mlp").isfinite().all()
    events: list[ProgressEvent] = []
    captured(roster, folder, progress=events.append)
    assert [event.note for event in events] == ["base"]
    assert contents(folder) == contents(finished)


def test_a_file_of_another_make_is_explained_without_its_hash(finished: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    read = read_activations(folder, check=False)
    victim = folder / read.index.file_name("game", 0)
    victim.write_bytes(b"\xff" * victim.stat().st_size)
    name = next(p.name for p in read.index.prompts if p.pack == 0)
    with pytest.raises(OutputError, match="missing or damaged"):
        read.get("game", name, "L0.mlp")


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"prompts": PROMPTS[:3]}, "4 prompts, not 3 prompts"),
        ({"prompts": (*PROMPTS[:2], PROMPTS[3], PROMPTS[2])}, "another prompt 'p3', not this one"),
        ({"names": ["game", "base"]}, "agents game ("),
        ({"names": ["base", "game", "moral"]}, "agents game ("),
        ({"dtype": "float32"}, "dtype float64, not dtype float32"),
        ({"everywhere": False}, "everywhere True, not everywhere False"),
        (
            {"parts": "q"},
            "packs of z, attn_out, mlp_out, resid_pre, resid_final, log_odds, q, k, v",
        ),
        ({"max_nodes": 2048}, ", not 1 packs of"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    roster: Roster, finished: Path, changes: dict[str, Any], seen: str
):
    before = contents(finished)
    with pytest.raises(OutputError, match="holds activations of something else") as refusal:
        captured(roster, finished, **changes)
    assert seen in str(refusal.value.seen)
    assert contents(finished) == before


def test_other_weights_are_refused(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "copy")
    other = tiny.tiny_roster(tmp_path / "adapters", adapters=("moral", "game"))
    with pytest.raises(OutputError, match="something else") as refusal:
        captured(other, tmp_path / "copy")
    assert str(refusal.value.seen).count("base (base)") == 2
    other.base = dataclasses.replace(
        other.base, source=dataclasses.replace(other.base.source, sha256="f" * 64)
    )
    with pytest.raises(OutputError, match=r"model tiny \(000000000000, float64\), not model tiny"):
        captured(other, tmp_path / "copy")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "prompts": [{"name": 3}]}']
)
def test_a_foreign_index_is_refused(roster: Roster, tmp_path: Path, text: str):
    (tmp_path / INDEX).write_text(text)
    for attempt in (lambda: read_activations(tmp_path), lambda: captured(roster, tmp_path)):
        with pytest.raises(OutputError, match="not a folder of activations"):
            attempt()
    assert (tmp_path / INDEX).read_text() == text


def test_a_folder_without_an_index_is_refused(tmp_path: Path):
    with pytest.raises(OutputError, match="not a folder of activations"):
        read_activations(tmp_path / "absent")


@pytest.fixture
def small_files() -> Generator[None]:
    """Let no file grow beyond a size that the index stays below, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_file_that_cannot_be_finished_is_not_there(roster: Roster, tmp_path: Path):
    with pytest.raises(OutputError, match="A result cannot be written") as refusal:
        captured(roster, tmp_path)
    assert os.strerror(errno.EFBIG) in str(refusal.value.seen)
    assert [path.name for path in tmp_path.iterdir()] == [INDEX]
    assert read_activations(tmp_path).index.files == {}


def test_a_full_disk_is_found_before_any_work(
    roster: Roster, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    sizes = [path.stat().st_size for path in finished.glob("*.safetensors")]
    headers = 2000 * len(sizes)
    enough = Usage(0, 0, sum(sizes))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, sum(sizes) - headers))
    monkeypatch.setattr(capturing, "capture", None)
    with pytest.raises(OutputError, match="do not fit on the disk") as refusal:
        captured(roster, tmp_path)
    assert "GB to write" in str(refusal.value.seen)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: enough)
    captured(roster, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    captured(roster, tmp_path)  # nothing is left to write


def test_a_folder_that_cannot_be_written_is_explained(roster: Roster, tmp_path: Path):
    (tmp_path / "out").write_text("I am a file")
    with pytest.raises(OutputError, match="A result cannot be written"):
        captured(roster, tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_storage_rounds_once(roster: Roster, finished: Path, tmp_path: Path, dtype: str):
    read = read_activations(captured(roster, tmp_path, dtype=dtype, names=["game"]))
    whole, narrow = read_activations(finished), getattr(torch, dtype)
    for site in ("embed", "L1.h2", "L2.mlp", "L0.kv1.k", "L2.resid_post"):
        exact = whole.get("game", "p1", site, "all")
        ours = read.get("game", "p1", site, "all")
        assert ours.dtype == torch.float32
        assert torch.equal(ours, exact.to(narrow).float())
    assert torch.equal(read.log_odds("game"), whole.log_odds("game"))
    stored = load_file(tmp_path / read.index.file_name("game", 0))
    assert {name for name, tensor in stored.items() if tensor.dtype != narrow} == {"log_odds"}
    assert {k: tuple(v.shape) for k, v in stored.items()} == read.index.packs[0]


def test_what_does_not_fit_a_dtype_is_refused(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path / "adapters", dtype=torch.float32, adapters=())
    with torch.no_grad():
        roster.base.model.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    with pytest.raises(ModelError, match="too large for float16") as refusal:
        captured(roster, tmp_path / "out", names=["base"], dtype="float16")
    assert refusal.value.allowed == "at most 6.55e+04"
    assert "in mlp_out" in str(refusal.value.seen)
    captured(roster, tmp_path / "wide", names=["base"], dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"names": []}, AgentError, "Seen: no agent"),
        ({"names": ["game", "game"]}, AgentError, "each once"),
        ({"names": ["gane"]}, AgentError, "did you mean 'game'"),
        ({"names": ["game", "morel"]}, AgentError, "did you mean 'moral'"),
        ({"prompts": ()}, PromptError, "Seen: no prompt"),
        ({"prompts": (*PROMPTS, PROMPTS[0])}, PromptError, "twice: p0"),
        ({"parts": "w"}, SiteError, "Seen: 'w'"),
        ({"dtype": "float23"}, ModelError, "did you mean 'float32'|did you mean 'float16'"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(
    roster: Roster,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[MoralscopeError],
    text: str,
):
    with pytest.raises(kind, match=text):
        captured(roster, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "kind", "text"),
    [
        (("gane", "p0", "L0.mlp"), AgentError, "did you mean 'game'"),
        (("game", "p9", "L0.mlp"), PromptError, "did you mean 'p"),
        (("game", "p0", "L7.mlp"), SiteError, "did you mean 'L.[.]mlp'"),
        (("game", "p0", "mlp"), SiteError, "not the name of a site"),
        (("game", "p0", "bias"), SiteError, "no activations of this site"),
        (("game", "p0", "L0.h1.q"), SiteError, r"parts=\('q',\)"),
        (("game", "p0", "L0.mlp", "all"), PromptError, "everywhere=True"),
        (("game", "p0", "L0.mlp", "last"), PromptError, "'last' of 'p0'"),
        (("game", "p0", "L0.mlp", [0]), PromptError, "everywhere=True"),
        (("game", "p0", "L0.mlp", [-1]), PromptError, "indices from 0"),
        (("game", "p0", "L0.mlp", []), PromptError, "no activations at these positions"),
    ],
)
def test_what_is_not_there_is_named(
    spans: StoredActivations, asked: tuple[Any, ...], kind: type[MoralscopeError], text: str
):
    with pytest.raises(kind, match=text):
        spans.get(*asked)


@pytest.fixture(scope="module")
def spans(roster: Roster, tmp_path_factory: pytest.TempPathFactory) -> StoredActivations:
    folder = captured(roster, tmp_path_factory.mktemp("spans"), everywhere=False, parts="")
    return read_activations(folder)


def test_a_position_beyond_the_prompt_is_named(finished: Path):
    read = read_activations(finished)
    with pytest.raises(PromptError, match="check the positions"):
        read.get("game", "p0", "L0.mlp", [len(PROMPTS[0].tokens)])
    with pytest.raises(AgentError, match="did you mean 'moral'"):
        read.log_odds("morals")
