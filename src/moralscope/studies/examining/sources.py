"""Are the models of a study here, and how large are they? Folders, packages, the hub.

Nothing is downloaded. Of a model that is not here the hub is asked for its size; where it cannot be
reached, that is said.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moralscope.core.stage import cache_folder
from moralscope.studies.doctor import DEFAULT_MODEL, DEFAULT_MODEL_PACKAGE, Finding
from moralscope.studies.study import Study

DEFAULT_BYTES: Final = 540 << 20
"""Bytes of the packaged model once it is converted to float32."""

ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")

HERE, PACKAGED, REMOTE, MISSING = "here", "in a package", "to be downloaded", "missing"


@dataclass(frozen=True, slots=True)
class Files:
    """A model's files.

    Attributes:
        name: as the study names the model.
        state: ``HERE``, ``PACKAGED`` (converted on first use), ``REMOTE`` or ``MISSING``.
        folder: where they lie; None unless they are here.
        bytes: of the weights; None where not known.
        advice: what to do; empty where there is nothing to say.
    """

    name: str
    state: str
    folder: Path | None
    bytes: int | None
    advice: str = ""


def gib(count: float) -> str:
    """Bytes as gibibytes: ``1.5 GiB``."""
    return f"{count / 2**30:.1f} GiB"


def find_files(name: str) -> Files:
    """Where a model's files are.

    Args:
        name: ``default``, a hub id, or a folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(name, path)
    if name in ("default", DEFAULT_MODEL) and _packaged():
        made = sorted((cache_folder() / "models").glob("smollm2-135m-instruct-*/config.json"))
        if made:
            return Files(name, HERE, made[0].parent, _weights(made[0].parent))
        return Files(name, PACKAGED, None, DEFAULT_BYTES)
    if path.is_absolute() or name.startswith("."):
        return Files(name, MISSING, None, None, "give a folder that exists, or a hub id")
    return _on_hub(DEFAULT_MODEL if name == "default" else name)


def _in_folder(name: str, path: Path) -> Files:
    if not (path / "config.json").is_file() or not _weights(path):
        advice = "give a folder with config.json and *.safetensors, as save_pretrained writes it"
        return Files(name, MISSING, None, None, advice)
    return Files(name, HERE, path, _weights(path))


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _packaged() -> bool:
    try:
        importlib.metadata.version(DEFAULT_MODEL_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _hub() -> Any:
    """The hub's library, or None where it is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    return importlib.import_module("huggingface_hub")


def _on_hub(name: str) -> Files:
    hub = _hub()
    if hub is None:
        return Files(name, MISSING, None, None, "install the extra 'models' to reach the hub")
    try:
        found = hub.try_to_load_from_cache(name, "config.json")
    except ValueError:
        return Files(name, MISSING, None, None, "it is neither a folder nor a hub id")
    if isinstance(found, str) and _weights(Path(found).parent):
        return Files(name, HERE, Path(found).parent, _weights(Path(found).parent))
    return _asked(hub, name)


def _asked(hub: Any, name: str) -> Files:
    """What the hub says of a model that is not here."""
    try:
        told = hub.HfApi().model_info(name, files_metadata=True, timeout=10)
    except (hub.errors.HfHubHTTPError, ValueError, OSError, RuntimeError) as cause:
        said = str(cause).strip().partition("\n")[0] or type(cause).__name__
        advice = f"the hub does not give it ({said}): log in, accept its licence, or download it "
        return Files(name, MISSING, None, None, f"{advice}elsewhere and give its folder")
    sizes = [f.size or 0 for f in told.siblings or () if f.rfilename.endswith(".safetensors")]
    gated = bool(getattr(told, "gated", False))
    advice = "accept its licence on the hub and log in first" if gated else "on first use"
    return Files(name, REMOTE, None, sum(sizes) or None, advice)


def source_findings(study: Study, base: Files) -> Iterator[Finding]:
    """The files of the base, of checkpoints and of adapters.

    Args:
        study: whose models.
        base: the files of its base, as ``find_files`` found them.
    """
    yield _finding("base model", base)
    for agent, entry in study.agents.items():
        if entry.checkpoint is not None:
            yield _finding(f"checkpoint of {agent}", find_files(entry.checkpoint))
        if entry.adapter is not None:
            yield _adapter(agent, entry.adapter)


def _finding(what: str, files: Files) -> Finding:
    size = "" if files.bytes is None else f", {gib(files.bytes)}"
    return Finding(what, f"{files.name}, {files.state}{size}", files.state != MISSING, files.advice)


def _adapter(agent: str, adapter: str) -> Finding:
    what, folder = f"adapter of {agent}", Path(adapter).expanduser()
    if folder.is_dir():
        absent = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
        if absent:
            advice = "save the adapter with save_pretrained"
            return Finding(
                what, f"{adapter}, without {' and '.join(absent)}", ok=False, advice=advice
            )
        return Finding(what, f"{adapter}, {HERE}", ok=True)
    if folder.is_absolute() or adapter.startswith("."):
        advice = "give a folder that exists, or a hub id"
        return Finding(what, f"{adapter}, {MISSING}", ok=False, advice=advice)
    return Finding(what, f"{adapter}, on the hub", None, "looked up when the study is run")
