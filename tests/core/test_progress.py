"""Progress is a value; the silent callback takes it and does nothing."""

from __future__ import annotations

import dataclasses

import pytest

from moralscope.core.progress import ProgressEvent, silent


def test_an_event_is_a_value(capsys: pytest.CaptureFixture[str]):
    event = ProgressEvent("train game", 3, 25)
    assert event == ProgressEvent("train game", 3, 25, "")
    silent(event)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.done = 4
