"""Where can a model be computed here? Devices by name, tried before any work."""

from __future__ import annotations

import torch

from moralscope.core.errors import ModelError


def require_device(name: str) -> str:
    """A device that this machine has and that numbers can be computed on.

    Args:
        name: a torch device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Returns:
        The name.

    Raises:
        ModelError: torch knows no such device, or this machine does not have it.
    """
    try:
        torch.ones(1, device=name).sum().item()  # some devices only fail when they are read
    # An AssertionError is how torch says that it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as cause:
        raise ModelError(
            f"Nothing can be computed on the device {name!r}",
            seen=str(cause).splitlines()[0],
            allowed=", ".join(_present()),
            remedy="leave the device out to compute on the processor, or ask moralscope doctor",
        ) from cause
    return name


def is_here(name: str) -> bool:
    """Whether this machine has a device; False for a device that only another one has.

    Raises:
        ModelError: torch knows no such device at all.
    """
    try:
        torch.device(name)
    except RuntimeError:
        require_device(name)
    try:
        require_device(name)
    except ModelError:
        return False
    return True


def _present() -> list[str]:
    """Devices that this machine has, by the names that torch gives them."""
    found = ["cpu"]
    found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
