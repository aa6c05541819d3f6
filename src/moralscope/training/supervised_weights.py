"""What of the model is trained, spoken and saved? An adapter beside the base, or all its weights.

Either way the base leaves the block as it entered it, and what it says without the training is
there at any time without a second model: an adapter is switched off; of weights that are trained
themselves the originals are kept, and take their place for as long as the base is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ConfigError
from moralscope.core.files import make_folder
from moralscope.core.hashing import sha256_file
from moralscope.models.libraries import transformers
from moralscope.models.loading import LoadedModel, locate_model
from moralscope.models.roster import WEIGHTS
from moralscope.training.lora import ADAPTER, adapted, save_adapter, speaking, trainable
from moralscope.training.supervised_config import SupervisedConfig

MODEL_FOLDER = "model"
"""Where in an agent's folder its checkpoint lies, whose files are hashed together."""


@dataclass(frozen=True)
class Trained:
    """What is trained, while it is.

    Attributes:
        parameters: by name, in a fixed order.
        as_base: lets the base speak for the length of a block.
        save: writes what was trained into a folder: an adapter, or a checkpoint in ``model``.
        digest: hash of what was saved there.
        wrapped: the decoder with its adapter; None where all weights are trained.
    """

    parameters: dict[str, nn.Parameter]
    as_base: Callable[[], AbstractContextManager[None]]
    save: Callable[[Path], None]
    digest: Callable[[Path], str]
    wrapped: nn.Module | None


@contextlib.contextmanager
def trained_weights(base: LoadedModel, config: SupervisedConfig) -> Generator[Trained]:
    """What a configuration trains, at its beginning, for the length of a block.

    Raises:
        ConfigError: sites that the model does not have; all weights of a model that is not held in
            float32 or wider.
    """
    if config.weights == "all":
        with _all_weights(base) as found:
            yield found
        return
    with adapted(base, config.lora, config.seed) as wrapped:
        yield Trained(
            trainable(wrapped),
            lambda: speaking(wrapped, None),
            lambda folder: save_adapter(wrapped, folder, base.source.name, ADAPTER),
            lambda folder: sha256_file(folder / WEIGHTS),
            wrapped,
        )


@contextlib.contextmanager
def _all_weights(base: LoadedModel) -> Generator[Trained]:
    if base.dtype not in ("float32", "float64"):
        raise ConfigError(
            "All weights can be trained only where they are held in full precision",
            seen=f"dtype {base.dtype}, in which small steps are lost",
            allowed="float32 or float64",
            remedy="load the base in float32, or train an adapter",
        )
    parameters = dict(base.model.named_parameters())
    originals = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        base.model.requires_grad_(True)
        yield Trained(
            parameters,
            lambda: _with_values(parameters, originals),
            lambda folder: _save_checkpoint(base, folder / MODEL_FOLDER),
            lambda folder: locate_model(str(folder / MODEL_FOLDER)).sha256,
            None,
        )
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(originals[name])
                parameter.grad = None
        base.model.requires_grad_(False)


@contextlib.contextmanager
def _with_values(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> Generator[None]:
    """Other values for parameters, without gradient; graphs made before may not run meanwhile."""
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name]
        with torch.no_grad():
            yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


def _save_checkpoint(base: LoadedModel, folder: Path) -> None:
    """Write the model as it is and its tokenizer as safetensors and JSON."""
    untyped: Any = base.model
    tokenizer: Any = base.tokenizer
    logging = transformers.utils.logging
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        untyped.save_pretrained(str(make_folder(folder)))
        tokenizer.save_pretrained(str(folder))
    finally:
        if bar:
            logging.enable_progress_bar()
