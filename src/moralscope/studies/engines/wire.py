"""How do a driver and a worker process speak? One JSON value a line, in both directions.

to the worker      the work order, then assignments
from the worker    how far it is, and how each assignment went
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from moralscope.core.progress import ProgressEvent
from moralscope.studies.engines.assignments import (
    Answer,
    Assignment,
    Broken,
    Died,
    Failure,
    Finished,
    Heard,
    WorkOrder,
)

_KINDS: Mapping[str, type[Answer]] = {
    kind.__name__: kind for kind in (Finished, Broken, Died, Heard)
}


def line_of(value: WorkOrder | Assignment | Answer) -> str:
    """A value as one line, with its end."""
    return json.dumps({"kind": type(value).__name__, **asdict(value)}) + "\n"


def order_in(line: str) -> WorkOrder:
    """The work order in a line."""
    return WorkOrder(**_fields(line))


def assignment_in(line: str) -> Assignment:
    """The assignment in a line."""
    fields = _fields(line)
    fields["without"] = tuple(fields["without"])
    return Assignment(**fields)


def answer_in(line: str) -> Answer:
    """The answer in a line."""
    said = json.loads(line)
    kind = _KINDS[said.pop("kind")]
    if "failure" in said:
        said["failure"] = Failure(**said["failure"])
    if "event" in said:
        said["event"] = ProgressEvent(**said["event"])
    return kind(**said)


def _fields(line: str) -> dict[str, Any]:
    return {
        key: value
        for key, value in cast("dict[str, Any]", json.loads(line)).items()
        if key != "kind"
    }
