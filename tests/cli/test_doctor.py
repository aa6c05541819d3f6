"""What the doctor finds, on this machine and on others."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from moralscope.cli import examining
from moralscope.cli.main import main
from moralscope.core.errors import DependencyError
from moralscope.studies import Study, doctor
from moralscope.studies.doctor import (
    Finding,
    Requirement,
    examine,
    memory_bytes,
    require_model_stack,
    requirements,
    version_numbers,
)
from moralscope.studies.examining import needs

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_the_project() -> None:
    found = {(r.name, r.least, r.extra) for r in requirements()}
    expected = {(*line.split(">="), None) for line in PROJECT["dependencies"]}
    extra = PROJECT["optional-dependencies"]["models"]
    expected |= {(*line.split(">="), "models") for line in extra}
    assert {r for r in found if r[2] in (None, "models")} == expected


def test_installed_metadata_and_the_source_tree_say_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = [*PROJECT["dependencies"], 'torch (>=2.10) ; extra == "models"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: installed)
    found = requirements()
    assert found[-1] == Requirement("torch", "2.10", "models")
    assert found[0] == Requirement("altair", "6.0", None)


def test_every_finding_on_a_machine_that_passes_the_tests_will_do() -> None:
    findings = {finding.name: finding for finding in examine()}
    assert [name for name, finding in findings.items() if finding.ok is False] == []
    assert findings["torch"].value == importlib.metadata.version("torch")
    assert int(findings["CPU cores"].value) >= 1
    assert {"Python", "memory", "stage cache", "default model", "accelerator"} <= set(findings)


def test_a_missing_package_is_named_with_its_remedy() -> None:
    missing = doctor._package(Requirement("no-such-package-at-all", "1", "models"))
    assert missing.ok is False
    assert missing.value == "not installed"
    assert missing.advice == 'pip install "moralscope[models]"'


def test_an_old_package_is_named_with_what_is_needed() -> None:
    old = doctor._package(Requirement("numpy", "9999.1", None))
    assert old.ok is False
    assert old.advice == "9999.1 or newer is needed: pip install --upgrade moralscope"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13)), ("1.9.0.post1", (1, 9)), ("10", (10,)), ("rc", ()), ("0", ())],
)
def test_versions_are_compared_by_their_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers


def test_a_container_limit_counts_where_it_is_lower(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = memory_bytes(limit)
    assert whole is not None
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("1048576\n")
    assert memory_bytes(limit) == 1048576
    limit.write_text("max\n")
    assert memory_bytes(limit) == whole


@pytest.mark.parametrize(("total", "ok"), [(None, None), (2 * 2**30, False), (4 * 2**30, True)])
def test_memory_is_held_against_the_demo(
    monkeypatch: pytest.MonkeyPatch, total: int | None, ok: bool | None
) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda: total)
    assert doctor._memory().ok is ok


def test_the_cache_folder_is_examined_where_it_will_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "not" / "yet" / "there"
    monkeypatch.setenv("MORALSCOPE_CACHE", str(cache))
    found = doctor._disk()
    assert found.ok is True
    assert str(cache) in found.value
    assert not cache.exists()


def test_a_cache_folder_without_room_or_permission_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    assert doctor._disk().ok is False
    assert doctor._disk().advice.startswith("the demo needs 3 GiB")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert doctor._disk().value == f"not writable: {tmp_path}"


def test_one_core_is_enough_but_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert doctor._cores().ok is None
    assert "twice as long" in doctor._cores().advice
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert (doctor._cores().value, doctor._cores().ok) == ("8", True)


def test_without_the_packaged_model_the_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_MODEL_PACKAGE", "no-such-package-at-all")
    monkeypatch.setattr(doctor, "DEFAULT_MODEL", "nobody/no-such-model-at-all")
    found = doctor._model()
    assert found.ok is None
    assert found.value == "nobody/no-such-model-at-all, not on this machine"
    assert "downloaded on first use" in found.advice


def test_the_model_stack_is_required_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    require_model_stack()
    needed = (Requirement("torch", "2", "models"), Requirement("no-such-thing", "1", "models"))
    monkeypatch.setattr(doctor, "requirements", lambda: needed)
    with pytest.raises(DependencyError, match=r"missing: no-such-thing\.") as caught:
        require_model_stack()
    assert caught.value.remedy == 'pip install "moralscope[models]"'


def test_a_study_is_told_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []
    enough = [True, False]

    def examined(study: Study, out: Path) -> tuple[Finding, ...]:
        seen.extend((study.name, out))
        return (Finding("disk for it", "some", ok=enough.pop(0), advice="free some"),)

    monkeypatch.setattr(examining, "examine", lambda: (Finding("Python", "3.12", ok=True),))
    monkeypatch.setattr(needs, "examine_study", examined)
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nagents: {base: {}}\n")
    for code, line in (
        (0, "This study can run on this machine."),
        (1, "Needed before a study can run: disk for it."),
    ):
        assert main(["doctor", str(path)]) == code
        said = capsys.readouterr().out
        assert f"What {path} needs" in said
        assert line in said
    assert seen[:2] == ["mine", Path("runs/mine")]
    path.write_text("agnets: {base: {}}\n")
    assert main(["doctor", str(path)]) == 2
    assert "agents" in capsys.readouterr().err
