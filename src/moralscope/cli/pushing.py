"""Share a trained agent: the command ``push``, the only one that sends anything anywhere.

What goes to the hub is the adapter, its card, fingerprint and settings, copied into a temporary
folder first. Where the base or a frozen opponent is a folder of this machine, only its last name
goes along.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from moralscope.cli.drawing import say
from moralscope.core.errors import ConfigError, OutputError
from moralscope.core.files import write_json
from moralscope.reports.cards import CARD, TWIN, base_label, without_folders, write_card
from moralscope.studies.doctor import require_model_stack
from moralscope.training.finished import (
    ADAPTER,
    ADAPTER_CONFIG,
    FINGERPRINT,
    SETTINGS,
    read_finished,
)

AS_THEY_ARE = (ADAPTER, FINGERPRINT, CARD, TWIN)
"""Files that are uploaded unchanged."""


def push_agent(folder: Path, repo: str, *, private: bool) -> int:
    """Upload a trained agent.

    Args:
        folder: of a finished agent.
        repo: ``OWNER/NAME`` on the hub; it is created where there is none.
        private: create it for those alone who may see it.

    Raises:
        AgentError: the folder is not that of a finished agent.
        ConfigError: ``repo`` is not the name of a repository.
        OutputError: the hub cannot be reached or refuses.
    """
    read_finished(folder)
    require_model_stack()
    hub: Any = importlib.import_module("huggingface_hub")
    errors: Any = importlib.import_module("huggingface_hub.errors")
    _check_name(repo, importlib.import_module("huggingface_hub.utils"), errors)
    if not (folder / CARD).is_file():
        write_card(folder)
    api = hub.HfApi()
    with tempfile.TemporaryDirectory(prefix="moralscope-push-") as temporary:
        stage(folder, Path(temporary))
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=temporary,
                commit_message=f"Upload the agent {folder.name}",
            )
        except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError, OSError) as cause:
            raise OutputError(
                "The agent was not uploaded",
                seen=f"{repo}: {(str(cause).splitlines() or [type(cause).__name__])[0]}",
                allowed="a repository that you may write, and a connection to the hub",
                remedy="log in with: hf auth login; check the name and the connection",
            ) from cause
    say(Console(), f"Uploaded: {api.endpoint}/{repo}", "bold")
    return 0


def stage(folder: Path, destination: Path) -> None:
    """Copy what is shared, folders of this machine by their last names alone."""
    for name in AS_THEY_ARE:
        shutil.copyfile(folder / name, destination / name)
    _rewritten(folder, destination, ADAPTER_CONFIG, "base_model_name_or_path", base_label)
    _rewritten(folder, destination, SETTINGS, "opponent", without_folders)


def _rewritten(
    folder: Path, destination: Path, name: str, key: str, change: Callable[[str], str]
) -> None:
    values = json.loads((folder / name).read_text(encoding="utf-8"))
    write_json(destination / name, values | {key: change(str(values[key]))})


def _check_name(repo: str, utils: Any, errors: Any) -> None:
    try:
        utils.validate_repo_id(repo)
        good = "/" in repo
    except errors.HFValidationError:
        good = False
    if not good:
        raise ConfigError(
            "This is not the name of a repository on the hub",
            seen=repo,
            allowed="OWNER/NAME of letters, digits, dashes, underscores and dots",
            remedy="give your user name, a slash and a name",
        )
