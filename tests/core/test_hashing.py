"""Equal things have equal hashes, and code counts only where it can matter."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core import hashing
from moralscope.core.hashing import (
    LAYERS,
    code_version,
    sha256_file,
    sha256_files,
    sha256_text,
    sha256_value,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip

PACKAGES = [name for layer in LAYERS for name in layer]


def test_known_digests():
    # FIPS 180-4's own examples.
    assert sha256_text("abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61")
    assert sha256_text("").startswith("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b")


@given(st.binary(max_size=5000))
def test_file_hashes_are_those_of_the_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(data)
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(), values, min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]):
    backwards = dict(reversed(value.items()))
    assert sha256_value(backwards) == sha256_value(value)


@given(values, values)
def test_values_differ_if_and_only_if_their_json_does(one: object, other: object):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (sha256_value(one) == sha256_value(other)) == same


@given(values)
def test_a_stored_value_keeps_its_hash(value: object):
    assert sha256_value(json.loads(json.dumps(value))) == sha256_value(value)


def test_what_json_cannot_express_has_no_hash():
    with pytest.raises(TypeError, match="not JSON serializable"):
        sha256_value({"path": Path("x")})
    with pytest.raises(ValueError, match="Out of range float"):
        sha256_value(float("nan"))


def test_a_set_of_files_is_hashed_with_its_names(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    both = [tmp_path / "a", tmp_path / "b"]
    before = sha256_files(both, tmp_path)
    assert sha256_files(reversed(both), tmp_path) == before
    assert sha256_files(both[:1], tmp_path) != before
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("1")
    assert sha256_files(both, tmp_path) != before


def test_a_copy_elsewhere_has_the_same_hash(tmp_path: Path):
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "deep" / "a").write_text("1")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    digests = {
        sha256_files((tmp_path / place).rglob("a"), tmp_path / place) for place in ("here", "there")
    }
    assert len(digests) == 1


@pytest.fixture
def a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "code.py").write_text(package)
    monkeypatch.setattr(hashing, "_PACKAGE", tmp_path)
    return tmp_path


def versions() -> dict[str, str]:
    code_version.cache_clear()
    found = {package: code_version(package) for package in PACKAGES}
    code_version.cache_clear()
    return found


def depth(package: str) -> int:
    return next(rank for rank, layer in enumerate(LAYERS) if package in layer)


@pytest.mark.parametrize("edited", PACKAGES)
def test_an_edit_changes_its_own_package_and_those_to_its_right(a_tree: Path, edited: str):
    before = versions()
    (a_tree / edited / "code.py").write_text("edited")
    changed = {package for package, version in versions().items() if version != before[package]}
    right = {package for package in PACKAGES if depth(package) > depth(edited)}
    assert changed == right | {edited}


def test_templates_count_and_compiled_files_do_not(a_tree: Path):
    before = versions()
    compiled = a_tree / "reports" / "__pycache__"
    compiled.mkdir()
    (compiled / "code.cpython-311.pyc").write_bytes(b"\0")
    assert versions() == before
    (a_tree / "reports" / "page.html.j2").write_text("<p>")
    after = versions()
    assert {p for p in PACKAGES if after[p] != before[p]} == {"reports", "explaining", "cli"}


def test_a_package_may_be_missing(a_tree: Path):
    shutil.rmtree(a_tree / "organisms")
    assert len(versions()["studies"]) == 64


def test_an_unknown_package_has_no_version():
    with pytest.raises(ValueError, match="'plumbing' is not a package of moralscope"):
        code_version("plumbing")


def test_another_process_finds_the_same_version():
    code = "import sys; from moralscope.core.hashing import code_version as v; "
    told = subprocess.run(
        [sys.executable, "-c", code + "sys.stdout.write(v('models'))"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    code_version.cache_clear()
    assert told == code_version("models")


def test_every_package_of_the_source_has_a_layer():
    source = Path(hashing.__file__).resolve().parents[1]
    found = {path.parent.name for path in source.glob("*/__init__.py")}
    assert found <= set(PACKAGES)
