"""Two processes learn what one learns; one starts nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from shared_work import AGENTS, SETTINGS, STEPS, loss_of, own_rows, rows_of, train_named
from torch import Tensor, nn

from moralscope.games import structured
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.training.distribution import ALONE, Processes, joined_processes
from moralscope.training.lora import adapted, trainable

SCRIPT = Path(__file__).parent / "shared_work.py"
Found = tuple[list[dict[str, Any]], list[dict[str, Tensor]]]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def found_in(out: Path) -> Found:
    told = [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]
    return told, [load_file(str(out / f"{rank}.safetensors")) for rank in range(2)]


@pytest.fixture(scope="module")
def two_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes write."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(tiny_folder: Path, two_folder: Path) -> Found:
    """What two processes came to that were told of each other as ``torchrun`` tells them."""
    out = two_folder
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, str(SCRIPT), str(tiny_folder), str(out)]
    running = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    return found_in(out)


def one_process(base: LoadedModel) -> dict[str, Tensor]:
    """The same five steps in a plain loop that reads every row and shares nothing."""
    encoded = encode_all(base.tokenizer, tuple(structured()))
    bias = nn.Parameter(torch.full((), 0.1, dtype=torch.float64))
    with adapted(base, SETTINGS, 0) as wrapped:
        adapter = trainable(wrapped)
        optimiser = torch.optim.Adam([*adapter.values(), bias], lr=0.01)
        for step in range(STEPS):
            loss: Any = loss_of(own_rows(base, [encoded[i] for i in rows_of(step)]), bias)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        kept = {name: p.detach().clone() for name, p in adapter.items()}
    return {**kept, "bias": bias.detach().clone()}


def assert_learned_the_same(base: LoadedModel, found: Found) -> None:
    told, parameters = found
    alone = one_process(base)
    assert parameters[0].keys() == parameters[1].keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(parameters[0][name], parameters[1][name])
        assert float((parameters[0][name] - value).abs().max()) < 1e-9
    # It learned something, and neither process did all of the reading.
    moved = [float(v.abs().max()) for k, v in alone.items() if ".lora_B." in k]
    assert min(moved) > 0.005
    rows = sum(len(rows_of(step)) for step in range(STEPS))
    assert sorted(t["read"] for t in told) == [8, 13]
    assert sum(t["read"] for t in told) == rows


def test_two_processes_learn_what_one_learns(wide_base: LoadedModel, two: Found) -> None:
    assert_learned_the_same(wide_base, two)


def test_what_is_exchanged(two: Found) -> None:
    told, _ = two
    assert [t["rank"] for t in told] == [0, 1]
    assert [t["main"] for t in told] == [True, False]
    assert [t["share"] for t in told] == [[0, 1, 2], [3, 4, 5, 6]]
    for t in told:
        assert t["count"] == 2
        assert t["sums"] == [pytest.approx(0.3, abs=1e-15), 2.0]
        assert t["rows"] == [[0, 1], [10, 11], [12, 13]]
        assert t["numbers"] == [0, 1]
        assert t["whole"][1] == "-inf"
        assert float(t["whole"][0]) == 0.0
        assert t["told"] == "every row must be the share of one process, and of one alone"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("total", [0, 1, 4, 17])
def test_shares_are_each_row_once_and_nearly_equal(count: int, total: int) -> None:
    shares = [Processes(rank, count).share(total) for rank in range(count)]
    assert [row for share in shares for row in share] == list(range(total))
    assert max(len(s) for s in shares) - min(len(s) for s in shares) <= 1


def test_one_process_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_processes() as processes:
        assert processes is ALONE
        assert not torch.distributed.is_initialized()
        own = torch.randn(3, 2, requires_grad=True)
        assert processes.assemble(own, range(3), 3) is own
        mixed = processes.assemble(own, [2, 0, 1], 3)
        assert torch.equal(mixed, own[[1, 2, 0]])
        mixed[0].sum().backward()
        assert own.grad is not None
        assert own.grad.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
        before = own.grad.clone()
        processes.sum_gradients([own])
        assert torch.equal(own.grad, before)
        assert torch.equal(processes.gather_rows(own), own)
        assert processes.sum_floats([1, 2.5]) == [1.0, 2.5]
        processes.barrier()
    with pytest.raises(ValueError, match="every row must be the share of one process"):
        ALONE.assemble(torch.ones(2), [0, 0], 2)


@pytest.mark.parametrize("name", AGENTS)
def test_two_processes_train_the_agent_that_one_trains(
    wide_base: LoadedModel, two: Found, two_folder: Path, tmp_path: Path, name: str
) -> None:
    train_named(wide_base, tmp_path, ALONE, name)
    folders = [Path(name), *([Path(name) / "opponent"] if name == "exact" else [])]
    for folder in folders:
        alone, shared = (
            load_file(str(root / folder / "adapter_model.safetensors"))
            for root in (tmp_path, two_folder)
        )
        assert alone.keys() == shared.keys()
        for key, value in alone.items():
            assert float((shared[key] - value).abs().max()) < 1e-8
        assert max(float(v.abs().max()) for k, v in alone.items() if "lora_B" in k) > 0.005
    tables = [
        pl.read_parquet(root / name / "training.parquet").drop("seconds")
        for root in (tmp_path, two_folder)
    ]
    assert_frame_equal(*tables, rel_tol=1e-7)


@pytest.mark.slow
def test_torchrun_launches_both(wide_base: LoadedModel, tiny_folder: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--master_port", free_port()]
    done = subprocess.run(
        [*launch, str(SCRIPT), str(tiny_folder), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_learned_the_same(wide_base, found_in(tmp_path))
