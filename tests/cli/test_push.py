"""Uploading a trained agent, with the real library, to a hub on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve

from moralscope.cli.main import main
from moralscope.core.errors import AgentError
from moralscope.training.finished import read_finished

SENT = {
    "README.md", "adapter_config.json", "adapter_model.safetensors", "card.json",
    "fingerprint.json", "training.json",
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    server = serve(found)
    yield found
    server.shutdown()
    server.server_close()


def push(hub: Hub, folder: Path, *words: str) -> tuple[int, str, str]:
    """The command in a process of its own, which reads the hub's address as it starts."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    here = {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": "hf_x",
        "HF_HOME": str(folder.parent / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # its own protocol; the older one is simple to speak
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [sys.executable, "-m", "moralscope", "push", str(folder), *words],
        capture_output=True, text=True, check=False, timeout=120, env=known | here,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_push_sends_the_agent_and_nothing_else(hub: Hub, trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "agent")
    (folder / "notes.txt").write_text("mine")
    code, said, errors = push(hub, folder, "me/agent", "--private")
    assert code == 0, errors
    assert said == f"Uploaded: {hub.address}/me/agent\n"
    assert hub.created == [{"name": "agent", "organization": "me", "visibility": "private"}]
    assert hub.tokens == {"Bearer hf_x"}
    assert hub.summary == "Upload the agent agent"
    assert set(hub.files) == SENT
    for name in ("adapter_model.safetensors", "fingerprint.json", "README.md"):
        assert hub.files[name] == (folder / name).read_bytes()
    assert any(call.startswith("PUT /large/") for call in hub.calls)
    # The base was a folder here, of which only the last name is anybody's business.
    config = json.loads(hub.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "model"
    assert config == read_config(folder) | {"base_model_name_or_path": "model"}
    sent = b"".join(data for name, data in hub.files.items() if not name.endswith("safetensors"))
    assert str(tmp_path.parents[1]).encode() not in sent


def read_config(folder: Path) -> dict[str, object]:
    return json.loads((folder / "adapter_config.json").read_text())


def test_a_hub_that_refuses_is_one_clear_error(hub: Hub, trained: Path) -> None:
    hub.refuses = True
    code, said, errors = push(hub, trained, "me/agent")
    assert (code, said) == (2, "")
    assert "Error: The agent was not uploaded" in errors
    assert "403" in errors
    assert "hf auth login" in errors
    assert "Traceback" not in errors
    assert hub.files == {}


@pytest.mark.parametrize("lacking", ["fingerprint.json", "training.parquet"])
def test_a_folder_that_is_not_finished_is_refused(
    lacking: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "agent")
    (folder / lacking).unlink()
    assert main(["push", str(folder), "me/agent"]) == 2
    told = capsys.readouterr().err
    assert "This is not the folder of a finished agent" in told
    assert f"without {lacking}" in told


@pytest.mark.parametrize("name", ["agent", "me/agent/more", "me/a gent", "me/--agent"])
def test_a_name_that_the_hub_cannot_have_is_refused(
    name: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "--", str(trained), name]) == 2
    told = capsys.readouterr().err
    assert "This is not the name of a repository on the hub" in told
    assert re.search(r"allowed:\s+OWNER/NAME", told)


def test_a_damaged_adapter_is_told(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "agent")
    (folder / "adapter_model.safetensors").write_bytes(b"\x05" + bytes(20))
    with pytest.raises(AgentError, match="is damaged"):
        read_finished(folder)
