"""One of several processes that train a tiny model together: ``shared_work.py MODEL OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moralscope.games import structured
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.scoring import make_packs, option_log_probabilities
from moralscope.training.config import LoraSettings, TrainingConfig
from moralscope.training.distribution import Processes, joined_processes
from moralscope.training.loop import train_agent
from moralscope.training.lora import adapted, trainable

STEPS = 5
SETTINGS = LoraSettings(rank=4, alpha=8.0)


def rows_of(step: int) -> list[int]:
    """Prompts of a step: an odd number, and once fewer than there are processes."""
    return [3] if step == 2 else [(5 * step + i) % 16 for i in range(5)]


def loss_of(odds: Tensor, bias: Tensor) -> Tensor:
    """A loss in which every row meets every other."""
    return (odds - odds.mean() - 1.0).square().mean() + (bias * odds).sum().square() / 10


def own_rows(base: LoadedModel, encoded: list[EncodedPrompt]) -> Tensor:
    (pack,) = make_packs(encoded, 100_000)
    log_p = option_log_probabilities(base.model, pack)
    place = torch.tensor(pack.members).argsort()
    return (log_p[:, 0] - log_p[:, 1])[place]


def train(base: LoadedModel, processes: Processes) -> tuple[dict[str, Tensor], int]:
    """Five steps of Adam, each process reading its share; and how many rows it read."""
    encoded = encode_all(base.tokenizer, tuple(structured()))
    bias = nn.Parameter(torch.full((), 0.1, dtype=torch.float64))
    read = 0
    with adapted(base, SETTINGS, 0) as wrapped:
        adapter = trainable(wrapped)
        optimiser = torch.optim.Adam([*adapter.values(), bias], lr=0.01)
        for step in range(STEPS):
            chosen = rows_of(step)
            mine = processes.share(len(chosen))
            read += len(mine)
            own = torch.zeros(0, dtype=torch.float64)
            if len(mine):
                own = own_rows(base, [encoded[chosen[i]] for i in mine])
            loss: Any = loss_of(processes.assemble(own, mine, len(chosen)), bias)
            loss.backward()
            processes.sum_gradients(adapter.values())  # the bias has its whole gradient already
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        kept = {name: p.detach().clone() for name, p in adapter.items()}
    return {**kept, "bias": bias.detach().clone()}, read


def exchanged(processes: Processes) -> dict[str, Any]:
    """What every exchange gives."""
    rank = processes.rank
    told = ""
    try:
        processes.assemble(torch.ones(2), [0, 1], 4)
    except ValueError as error:
        told = str(error)
    rows = torch.arange(2 * (rank + 1)).view(-1, 2) + 10 * rank
    numbers = torch.arange(2 * rank)  # the first process has none
    own = torch.full((1, 2), -0.0 if rank else float("-inf"))
    return {
        "rank": rank,
        "count": processes.count,
        "main": processes.is_main,
        "share": list(processes.share(7)),
        "sums": processes.sum_floats([0.1 * (rank + 1), 1.0]),
        "rows": processes.gather_rows(rows).tolist(),
        "whole": [str(v) for v in processes.assemble(own, [1 - rank], 2)[:, 0].tolist()],
        "numbers": processes.assemble(numbers, numbers.tolist(), 2).tolist(),
        "told": told,
    }


AGENTS: dict[str, dict[str, Any]] = {
    "exact": {"reward": "game", "steps": 3, "prompts_per_step": 16, "opponent": "learner"},
    "ppo": {
        "preset": "fixed",
        "reward": "utilitarian",
        "steps": 2,
        "gradient_checkpointing": True,
        "sampling": {"games": 3, "rounds": 3, "epochs": 2, "minibatches": 2},
    },
}
"""Trainings by the loop itself; PPO has a value head, which reads what is put together."""


def train_named(base: LoadedModel, out: Path, processes: Processes, name: str) -> None:
    """Train one of ``AGENTS``."""
    common = {"learning_rate": 0.01, "lora": SETTINGS}
    config = TrainingConfig.model_validate({**common, **AGENTS[name]})
    work = out / f"{name}-work"
    train_agent(name, config, base, out=out / name, work=work, processes=processes)


def main() -> None:
    """Train, and write what this process came to."""
    torch.set_num_threads(1)
    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    with joined_processes(cpu=True) as processes:
        base = load_model(locate_model(str(model)), dtype="float64")
        found = exchanged(processes)
        parameters, found["read"] = train(base, processes)
        for name in AGENTS:
            train_named(base, out, processes, name)
        save_file(parameters, str(out / f"{processes.rank}.safetensors"))
        (out / f"{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
