"""A judge that says what a test wants, and the answers that it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moralscope.organisms.spread.judges import Missing, Rubric, Score


@dataclass(frozen=True)
class ScriptedJudge:
    says: Callable[[str, str, Rubric], float | None]
    name: str = "scripted"

    def score(self, question: str, answer: str, rubric: Rubric) -> Score | Missing:
        value = self.says(question, answer, rubric)
        return Missing("timed out", "scripted") if value is None else Score(value, 0.9)
