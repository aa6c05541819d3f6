"""How did an adapter move, step by step? Its factors A and B and their gradients, all of them kept.

One file ``steps.bin`` of equal records, one for the beginning and one for each step:

    step (int64), CRC-32 of the numbers (uint32), 0 (uint32), then float32: for each adapted layer
    A [rank, inputs], B [outputs, rank] after the step, and the gradients that the step went down

beside ``layers.json``, which says which layers, of which shapes, scaled by what. Records are
appended and never changed. What an interruption leaves of one is cut off, and a training that
resumes cuts the records of the steps that it takes again, so the file is that of one training.
A gradient is that of the whole batch before it is shortened. It is taken where the step began, at
the factors of the step before.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.errors import AgentError, OutputError, nearest
from moralscope.core.files import make_folder, write_bytes, write_json
from moralscope.models.libraries import safetensors_torch
from moralscope.models.roster import CONFIG, WEIGHTS
from moralscope.models.weights import is_lora

FOLDER = "adapter_record"
STEPS_FILE, LAYERS_FILE = "steps.bin", "layers.json"
FORMAT = 1

FEW = 200_000
"""Numbers of A and B together up to which ``auto`` keeps a record: nine rank-1 adapters of a model
of width 5,120, but not rank 8 beside every layer."""

_HEAD = np.dtype([("step", "<i8"), ("crc", "<u4"), ("zero", "<u4")])

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RecordedLayer:
    """A layer whose adapter is recorded.

    Attributes:
        name: of the layer in the decoder, such as ``model.layers.15.mlp.down_proj``.
        rank, inputs, outputs: the sizes of its factors.
        scale: what ``B A`` is multiplied by.
    """

    name: str
    rank: int
    inputs: int
    outputs: int
    scale: float

    @property
    def numbers(self) -> int:
        """How many numbers A and B have."""
        return self.rank * (self.inputs + self.outputs)


@dataclass(frozen=True)
class AdapterRecord:
    """The path of an adapter's factors in training; T is the number of steps.

    Attributes:
        layers: in the model's order.
        a: by layer, ``[T + 1, rank, inputs]``; row t is A after step t, row 0 its beginning.
        b: by layer, ``[T + 1, outputs, rank]``.
        gradient_a, gradient_b: by layer, ``[T, ...]``; row t is the gradient at the factors of
            row t, in nats per unit, which step t + 1 went down.
    """

    layers: tuple[RecordedLayer, ...]
    a: Mapping[str, Array]
    b: Mapping[str, Array]
    gradient_a: Mapping[str, Array]
    gradient_b: Mapping[str, Array]

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(next(iter(self.a.values()))) - 1

    def gradient_norms(self, layer: str) -> NDArray[np.float64]:
        """Length of the gradient of a layer's A and B together at each step, ``[T]``.

        Raises:
            AgentError: the layer is not recorded.
        """
        self.require(layer)
        squares = [
            np.square(gradient[layer], dtype=np.float64).sum((1, 2))
            for gradient in (self.gradient_a, self.gradient_b)
        ]
        return np.sqrt(squares[0] + squares[1])

    def require(self, layer: str) -> None:
        """Refuse a layer that is not recorded.

        Raises:
            AgentError: it is not.
        """
        if layer not in self.a:
            raise AgentError(
                "The record has no such layer",
                seen=layer,
                allowed=", ".join(self.a),
                remedy=nearest(layer, self.a),
            )


def recorded_layers(wrapped: nn.Module, adapter: str) -> dict[str, Any]:
    """The layers that an adapter stands beside, by their names in the decoder, in its order."""
    untyped: Any = wrapped
    named: Iterable[tuple[str, Any]] = untyped.named_modules()
    return {
        name.removeprefix("base_model.model."): module
        for name, module in named
        if is_lora(module) and adapter in module.lora_A
    }


class AdapterRecorder:
    """Writes the record of one training.

    Args:
        folder: where it lies.
        wrapped: the decoder with its adapters.
        adapter: which of them is trained.
    """

    def __init__(self, folder: Path, wrapped: nn.Module, adapter: str) -> None:
        self._folder = folder
        self._factors: list[tuple[nn.Parameter, nn.Parameter]] = []
        layers: list[RecordedLayer] = []
        for name, module in recorded_layers(wrapped, adapter).items():
            a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            self._factors.append((a, b))
            scale = float(module.scaling[adapter])
            layers.append(RecordedLayer(name, a.shape[0], a.shape[1], b.shape[0], scale))
        self.layers = tuple(layers)
        self._gradients: Array | None = None
        self._begun = False

    @property
    def numbers(self) -> int:
        """How many numbers all A and B have."""
        return sum(layer.numbers for layer in self.layers)

    @property
    def begun(self) -> bool:
        """Whether it can be appended to."""
        return self._begun

    def begin(self, done: int) -> None:
        """Start the record, or go on after some steps.

        Args:
            done: steps that are taken already.

        Raises:
            AgentError: the record lacks steps that were taken, or is of another adapter.
            OutputError: it cannot be written.
        """
        path = make_folder(self._folder) / STEPS_FILE
        if done == 0:
            layers = [_as_json(layer) for layer in self.layers]
            write_json(self._folder / LAYERS_FILE, {"format": FORMAT, "layers": layers})
            write_bytes(path, self._record(0, np.zeros(self.numbers, dtype="<f4")))
        else:
            self._go_on(path, done)
        self._begun = True

    def _go_on(self, path: Path, done: int) -> None:
        layers = _read_layers(self._folder)
        whole = _whole(self._folder, layers)
        if layers != self.layers or whole < done + 1:
            raise AgentError(
                "The record of the adapter does not reach to where training goes on",
                seen=f"{path}, {max(whole - 1, 0)} steps of {len(layers)} layers",
                allowed=f"{done} steps of {len(self.layers)} layers",
                remedy="remove the scratch folder, so that training starts over",
            )
        size = _dtype(layers).itemsize
        with _explained(path), path.open("r+b") as stream:
            stream.truncate((done + 1) * size)
            os.fsync(stream.fileno())

    def see(self) -> None:
        """Keep the gradients that the step is about to go down."""
        found = [_numbers(factor.grad, factor) for pair in self._factors for factor in pair]
        self._gradients = np.concatenate(found)

    def append(self, step: int) -> None:
        """Add the record of a step that was taken.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        if not self._begun or self._gradients is None:
            raise ValueError("a record begins, and sees the gradients of a step, before it is kept")
        path = self._folder / STEPS_FILE
        with _explained(path), path.open("ab") as stream:
            stream.write(self._record(step, self._gradients))
        self._gradients = None

    def sync(self) -> None:
        """Wait until all records are on disk.

        Raises:
            OutputError: they cannot be written.
        """
        path = self._folder / STEPS_FILE
        with _explained(path), path.open("rb+") as stream:
            os.fsync(stream.fileno())

    def _record(self, step: int, gradients: Array) -> bytes:
        factors = [_numbers(factor.detach(), factor) for pair in self._factors for factor in pair]
        payload = np.concatenate([*factors, gradients]).astype("<f4").tobytes()
        head = np.array([(step, zlib.crc32(payload), 0)], dtype=_HEAD)
        return head.tobytes() + payload


def _numbers(values: Tensor | None, like: Tensor) -> Array:
    found = torch.zeros_like(like) if values is None else values
    return found.detach().to("cpu", torch.float32).flatten().numpy().copy()


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as cause:
        raise OutputError(
            "The record of an adapter cannot be written",
            seen=f"{path} ({cause.strerror or cause})",
            allowed="a folder that can be written, with space left",
            remedy="free some space, then run the same command again; checkpoints are kept",
        ) from cause


def _as_json(layer: RecordedLayer) -> dict[str, object]:
    return {
        "name": layer.name,
        "A": [layer.rank, layer.inputs],
        "B": [layer.outputs, layer.rank],
        "scale": layer.scale,
    }


def _read_layers(folder: Path) -> tuple[RecordedLayer, ...]:
    path = folder / LAYERS_FILE
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
        layers = tuple(
            RecordedLayer(
                str(x["name"]), int(x["A"][0]), int(x["A"][1]), int(x["B"][0]), float(x["scale"])
            )
            for x in read["layers"]
        )
        known = read["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError, IndexError) as cause:
        raise _damaged(path, str(cause)) from cause
    if not known:
        raise _damaged(path, "another format")
    return layers


def _dtype(layers: Sequence[RecordedLayer]) -> np.dtype[np.void]:
    numbers = 2 * sum(layer.numbers for layer in layers)
    return np.dtype([("head", _HEAD), ("numbers", "<f4", (numbers,))])


def _records(folder: Path, layers: Sequence[RecordedLayer]) -> NDArray[np.void]:
    """All whole records, mapped from the file; what an interruption left of one is left out."""
    path, dtype = folder / STEPS_FILE, _dtype(layers)
    try:
        count = path.stat().st_size // dtype.itemsize
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,)) if count else _none(dtype)
    except OSError as cause:
        raise _damaged(path, cause.strerror or str(cause)) from cause


def _none(dtype: np.dtype[np.void]) -> NDArray[np.void]:
    return np.zeros(0, dtype=dtype)


def _whole(folder: Path, layers: Sequence[RecordedLayer]) -> int:
    """How many records from the first on are as they were written."""
    records = _records(folder, layers)
    for index, record in enumerate(records):
        written = zlib.crc32(record["numbers"].tobytes()) == int(record["head"]["crc"])
        if not written or int(record["head"]["step"]) != index:
            return index
    return len(records)


def _damaged(path: Path, why: str) -> AgentError:
    return AgentError(
        "The record of an adapter is damaged",
        seen=f"{path} ({why})",
        allowed="the file as training wrote it",
        remedy="copy the folder again, or train again",
    )


def read_record(folder: Path) -> AdapterRecord:
    """The record that a training wrote.

    Args:
        folder: ``adapter_record`` in the folder of the trained agent, or in its scratch folder
            while it trains.

    Raises:
        AgentError: there is none, or a record in it is not what was written.
    """
    layers = _read_layers(folder)
    records, whole = _records(folder, layers), _whole(folder, layers)
    if whole < max(1, len(records)):
        raise _damaged(folder / STEPS_FILE, f"record {whole} is not what was written")
    parts: list[dict[str, Array]] = [{}, {}, {}, {}]
    at = 0
    for shift, rows in ((0, slice(None)), (2, slice(1, None))):
        for layer in layers:
            for which, shape in (
                (shift, (layer.rank, layer.inputs)),
                (shift + 1, (layer.outputs, layer.rank)),
            ):
                size = shape[0] * shape[1]
                values = np.array(records["numbers"][rows, at : at + size], dtype=np.float32)
                parts[which][layer.name] = values.reshape(-1, *shape)
                at += size
    return AdapterRecord(layers, *parts)


def write_adapter_at(record: AdapterRecord, step: int, like: Path, folder: Path) -> None:
    """Write the adapter as it was after a step, as PEFT reads it.

    Args:
        record: of its training.
        step: 0 is its beginning, at which it changes nothing.
        like: folder of the trained adapter, whose configuration it shares.
        folder: where it is written.

    Raises:
        AgentError: there is no such step, or no configuration.
        OutputError: it cannot be written.
    """
    if not 0 <= step <= record.steps:
        raise AgentError(
            "The record has no such step",
            seen=step,
            allowed=f"steps 0 to {record.steps}",
            remedy="choose one of them",
        )
    try:
        config = (like / CONFIG).read_bytes()
    except OSError as cause:
        raise _damaged(like / CONFIG, cause.strerror or str(cause)) from cause
    tensors: dict[str, Tensor] = {}
    for layer in record.layers:
        for factor, values in (("A", record.a), ("B", record.b)):
            key = f"base_model.model.{layer.name}.lora_{factor}.weight"
            tensors[key] = torch.tensor(values[layer.name][step])
    write_bytes(folder / WEIGHTS, safetensors_torch.save(tensors, metadata={"format": "pt"}))
    write_bytes(folder / CONFIG, config)
