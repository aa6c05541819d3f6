"""A series is verified with its members, each under its own name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from moralscope.core.files import write_json
from moralscope.core.sealing import sealed_manifest
from moralscope.core.tables import read_table, write_table
from moralscope.studies import Study
from moralscope.studies.series import Series, run_series
from moralscope.studies.verifying.verify import verify_run


def test_a_series_is_verified_with_its_members(finished: Any, tmp_path: Path) -> None:
    out = tmp_path / "series"

    def run(study: Study, folder: Path) -> bool:
        assert study is finished.study
        shutil.copytree(finished.out, folder)
        return True

    series = Series(study="study.yaml", members={"a": {}, "b": {}})
    run_series(series, {"a": finished.study, "b": finished.study}, out, run)
    found = verify_run(out)
    assert found.failed == ()
    assert {"members/a/tables/decisions.parquet", "tables/claims.parquet"} <= {
        check.subject for check in found.checks
    }

    table = out / "members" / "b" / "tables" / "lens.parquet"
    kept = table.read_bytes()
    table.write_bytes(b"nothing")
    failed = {check.subject for check in verify_run(out).failed}
    assert "members/b/tables/lens.parquet" in failed
    assert not any(subject.startswith("members/a") for subject in failed)
    table.write_bytes(kept)

    claims = read_table("claims", out / "tables")
    write_table("claims", claims.clear(), out / "tables")
    write_json(out / "claims.json", [])
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["tables"]["claims"]["rows"] = 0
    del manifest["seal"]
    write_json(out / "manifest.json", sealed_manifest(manifest, out))
    shutil.rmtree(out / "members" / "a")
    checks = verify_run(out).checks
    told = [check for check in checks if check.subject == "tables/claims.parquet"]
    assert any("stand in the second alone" in check.found for check in told) == (claims.height > 0)
    assert ("members/a", False) in {(check.subject, check.passed) for check in checks}
