"""Devices: those that can compute are taken, all others refused in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_base

from moralscope.core.errors import ModelError
from moralscope.models.devices import require_device
from moralscope.models.loading import load_model, locate_model


def test_the_processor_is_always_there() -> None:
    assert require_device("cpu") == "cpu"


# Unknown, without a number, holding no numbers, and more than any machine has.
@pytest.mark.parametrize("name", ["cpuu", "", "cuda:x", "meta", "cuda:4096", "xla"])
def test_a_device_that_computes_nothing_is_refused(name: str, tmp_path: Path) -> None:
    said = (
        f"Nothing can be computed on the device {name!r}. Seen: .+ Allowed: cpu.*moralscope doctor"
    )
    with pytest.raises(ModelError, match=said):
        require_device(name)
    source = locate_model(str(save_base(tmp_path / "model")))
    with pytest.raises(ModelError, match=said):
        load_model(source, device=name)
