"""What is in memory while a study runs? The base model, the agents, their clean runs.

Everything is loaded when a stage first needs it and shared by the stages that follow, so a study
whose stages are all cached loads no weights at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moralscope.core.decision import Prompt, PromptSet
from moralscope.mechanisms.clean import CleanRun, memory_of, run_clean
from moralscope.models.capture import parts_of
from moralscope.models.loading import LoadedModel, ModelSource, load_model
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.studies.catalogue import all_prompts, digest, mechanism_prompts
from moralscope.studies.study import Study, agent_spec, models_of

Key = tuple[str, str]
"""An agent and a digest of what it was asked."""

CLEAN_BYTES = 2 * 2**30
"""Clean runs that are kept from stage to stage; beyond that the last two alone are."""


@dataclass
class Workbench:
    """The resources of one running study.

    Attributes:
        study: what is run.
        source: the base model's files.
    """

    study: Study
    source: ModelSource
    _base: LoadedModel | None = None
    _roster: Roster | None = None
    _clean: dict[Key, CleanRun] = field(default_factory=dict[Key, CleanRun])
    _passing: list[Key] = field(default_factory=list[Key])

    def base(self) -> LoadedModel:
        """The base model without any adapter beside it, as training wants it."""
        if self._roster is not None:
            # Adapters live inside the loaded model; training starts from an untouched one.
            self.release()
        if self._base is None:
            self._base = load_model(self.source, dtype=self.study.dtype, device=self.study.device)
        return self._base

    def release(self) -> None:
        """Forget models and clean runs."""
        self._base, self._roster = None, None
        self._clean.clear()
        self._passing.clear()

    @contextlib.contextmanager
    def lacking(self, names: Iterable[str]) -> Generator[None]:
        """The study without some agents, for a stage that is made from what is there."""
        absent, whole = set(names), self.study
        if absent:
            kept = {name: entry for name, entry in whole.agents.items() if name not in absent}
            self.study = whole.model_copy(update={"agents": kept})
        try:
            yield
        finally:
            self.study = whole

    def roster(self, names: Iterable[str], trained: Mapping[str, Path]) -> Roster:
        """The roster with at least these agents loaded.

        Args:
            names: agents that are needed; scripted policies have nothing to load.
            trained: adapter folders of the agents that were trained here.
        """
        if self._roster is None:
            self._roster = Roster(self.base())
        models = models_of(self.study)
        for name in names:
            if name in models and name not in self._roster.specs:
                self._roster.add(agent_spec(self.study, name, trained.get(name)))
        return self._roster

    def prompts(self) -> PromptSet:
        """Every prompt of the study."""
        return all_prompts(self.study)

    def encoded(self, prompts: Sequence[Prompt]) -> tuple[EncodedPrompt, ...]:
        """Prompts as tokens."""
        tokenizer = (self._base or self.base()).tokenizer
        return encode_all(tokenizer, tuple(prompts))

    def clean_run(
        self, name: str, trained: Mapping[str, Path], prompts: PromptSet | None = None
    ) -> CleanRun:
        """An agent's clean run, made once; it keeps what the study's patches need.

        Args:
            name: the agent.
            trained: adapter folders of the agents that were trained here.
            prompts: what to run; the mechanism prompts unless given.
        """
        asked = mechanism_prompts(self.study) if prompts is None else prompts
        key = (name, digest(asked))
        if key not in self._clean:
            while len(self._passing) > 1:
                del self._clean[self._passing.pop(0)]
            roster = self.roster([name], trained)
            wanted = self.study.mechanisms
            parts = parts_of(wanted.sites)
            with roster.speaking(name) as model:
                self._clean[key] = run_clean(
                    name,
                    model,
                    roster.anatomy(name),
                    self.encoded(tuple(asked)),
                    max_nodes=self.study.max_nodes,
                    everywhere=wanted.everywhere,
                    parts=parts,
                )
            # Stages go through all agents again and again, so the runs made first stay: of a queue
            # longer than the room for it, forgetting the oldest keeps none until it is needed.
            if sum(memory_of(run) for run in self._clean.values()) > CLEAN_BYTES:
                self._passing.append(key)
        return self._clean[key]
