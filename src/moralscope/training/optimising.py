"""How do parameters move, and how is that kept? One optimiser step, and its state as tensors.

What is written here is all of a training's state that is not a draw or a statistic: parameters and
Adam's two moments with their step count, by name. Read back it is the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Parameters = Mapping[str, nn.Parameter]


def move(
    parameters: Parameters,
    optimiser: torch.optim.Optimizer,
    losses: Iterable[Tensor],
    *,
    rate: float,
    limit: float | None,
    share: Callable[[], None] | None = None,
    seen: Callable[[], None] | None = None,
) -> float:
    """One optimiser step down the sum of losses.

    Args:
        parameters: what moves, by name.
        optimiser: over them.
        losses: scalars, each differentiated and its graph freed before the next is asked for.
        rate: of the optimiser, for this step.
        limit: a longer gradient is shortened to this; None for none.
        share: sums gradients over processes, in place; None for one process.
        seen: called when the gradient is whole and not shortened yet.

    Returns:
        Length of the gradient before it is shortened, if it is.
    """
    for loss in losses:
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
    if share is not None:
        share()
    if seen is not None:
        seen()
    moved: Sequence[nn.Parameter] = list(parameters.values())
    norm = nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
    if limit is not None:
        nn.utils.clip_grads_with_norm_(moved, limit, norm)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()  # pyright: ignore[reportUnknownMemberType]
    optimiser.zero_grad(set_to_none=True)
    return float(norm)


def state_of(
    owner: str, parameters: Parameters, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Parameters and moments, by names that begin with their owner's."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        found[f"{owner}/parameter/{name}"] = _kept(parameter)
        state: dict[str, Any] = optimiser.state.get(parameter, {})
        for moment in _MOMENTS:
            if moment in state:
                found[f"{owner}/{moment}/{name}"] = _kept(torch.as_tensor(state[moment]))
    return found


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


@torch.no_grad()
def put_back(
    owner: str,
    parameters: Parameters,
    optimiser: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Put parameters and moments back to what ``state_of`` gave."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"{owner}/parameter/{name}"])
        keys = {m: f"{owner}/{m}/{name}" for m in _MOMENTS}
        if keys["step"] in tensors:
            optimiser.state[parameter] = {
                moment: tensors[key].to("cpu" if moment == "step" else parameter.device)
                for moment, key in keys.items()
            }


def norm_of_b(parameters: Parameters) -> float:
    """Frobenius norm of all ``lora_B`` together; 0 is an adapter that changes nothing."""
    squares = [
        float(p.detach().double().square().sum())
        for name, p in parameters.items()
        if ".lora_B." in name
    ]
    return math.sqrt(sum(squares))


def require_finite(agent: str, step: int, loss: Tensor, *, of: str = "loss") -> None:
    """Refuse a loss that is not finite.

    Args:
        agent: whose.
        step: at which.
        loss: a scalar.
        of: what it is called.

    Raises:
        AgentError: it is not; the last checkpoint is kept.
    """
    if not bool(torch.isfinite(loss)):
        raise AgentError(
            f"Training {agent!r} broke down at step {step}",
            seen=f"{of} {float(loss.detach())}",
            allowed="a finite loss",
            remedy="lower learning_rate or raise kl_coefficient; the last checkpoint is kept",
        )
