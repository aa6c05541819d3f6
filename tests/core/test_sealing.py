"""Hashes of a run's files, and the seal over them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.files import write_json
from moralscope.core.sealing import (
    canonical,
    report_files,
    result_files,
    seal_of,
    seal_report,
    sealed,
    sealed_manifest,
    unlisted_files,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy"), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1, max_size=4)


@given(RECORDS, RECORDS)
@settings(max_examples=50)
def test_seals_are_equal_where_the_records_are(
    one: dict[str, object], other: dict[str, object]
) -> None:
    text = json.dumps(one, sort_keys=True, separators=(",", ":"))
    assert seal_of(one) == hashlib.sha256(text.encode()).hexdigest()
    same = text == json.dumps(other, sort_keys=True, separators=(",", ":"))
    assert (seal_of(one) == seal_of(other)) == same
    assert seal_of(sealed(one)) == sealed(one)["seal"] == seal_of(one)


def test_a_record_is_written_in_its_canonical_form(tmp_path: Path) -> None:
    record = sealed({"b": [1.5, None], "a": {"é": "\n"}})
    write_json(tmp_path / "record.json", record)
    assert (tmp_path / "record.json").read_bytes() == canonical(record).encode()


def test_what_was_computed_and_what_was_added_later_are_told_apart(tmp_path: Path) -> None:
    for name in ("study.yaml", "tables/a.parquet", "agents/x/w", "report.html", "figures/f.svg",
                 "explained/c/e.json", ".lock", "tables/.partial-1"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    computed = result_files(tmp_path)
    assert set(computed) == {"study.yaml", "tables/a.parquet", "agents/x/w"}
    assert computed["study.yaml"] == hashlib.sha256(b"study.yaml").hexdigest()
    assert set(report_files(tmp_path)) == {"report.html", "figures/f.svg"}
    manifest = sealed_manifest({"study": "s"}, tmp_path)
    assert manifest["files"] == computed
    write_json(tmp_path / "manifest.json", manifest)
    seal_report(tmp_path)
    listed = json.loads((tmp_path / "report-files.json").read_text())
    assert listed["seal"] == seal_of(listed)
    digest = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert listed["manifest_sha256"] == digest
    assert unlisted_files(tmp_path, {**computed, **listed["files"]}) == ()
    assert unlisted_files(tmp_path, computed) == ("figures/f.svg", "report.html")


def test_a_report_without_a_manifest_says_so(tmp_path: Path) -> None:
    seal_report(tmp_path)
    assert json.loads((tmp_path / "report-files.json").read_text())["manifest_sha256"] is None
