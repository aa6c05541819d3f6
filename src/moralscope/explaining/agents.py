"""Who is explained? A base model and any number of agents on it, loaded in one call.

What an agent is, is told by its files: a folder or hub id with ``adapter_config.json`` is an
adapter, put un-merged on the base; one with ``config.json`` is a full checkpoint, loaded beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from moralscope.core.agents import AgentKind, AgentSpec
from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import AgentError
from moralscope.explaining.asking import named
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Part
from moralscope.models.libraries import huggingface_hub
from moralscope.models.loading import DtypeName, load_model, locate_model
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import CONFIG, Roster

BASE = "base"
"""What the base is called among the agents."""

_FULL = "config.json"


@dataclass(frozen=True, eq=False, repr=False)
class Agents:
    """A base model, called ``base``, and the agents on it, in memory.

    Attributes:
        roster: what holds their weights.
    """

    roster: Roster

    @property
    def names(self) -> tuple[str, ...]:
        """The agents, the base first."""
        return tuple(self.roster.specs)

    def anatomy(self, name: str = BASE) -> Anatomy:
        """The parts of an agent's decoder: layers, heads, sites.

        Raises:
            AgentError: there is no such agent; ModelError: its architecture is not supported.
        """
        return self.roster.anatomy(name)

    def speaking(self, name: str = BASE) -> AbstractContextManager[nn.Module]:
        """The decoder with this agent's weights in force, for the length of a ``with`` block.

        Raises:
            AgentError: there is no such agent.
        """
        return self.roster.speaking(name)

    def read(self, prompts: Prompt | Sequence[Prompt] | PromptSet) -> tuple[EncodedPrompt, ...]:
        """Prompts as the model reads them: text, tokens and the tokens of spans.

        Raises:
            PromptError: an answer cannot be scored as asked.
        """
        return encode_all(self.roster.tokenizer, tuple(named(prompts)))

    def run(
        self,
        name: str,
        prompts: Prompt | Sequence[Prompt] | PromptSet,
        *,
        everywhere: bool = False,
        parts: Sequence[Part] = (),
    ) -> CleanRun:
        """An agent's clean run over prompts: log-odds and activations, which every method reads.

        Args:
            name: which agent.
            prompts: what to ask.
            everywhere: keep activations at every token, not at the answers alone.
            parts: which of queries, keys and values to keep: ``q``, ``k``, ``v``.

        Raises:
            AgentError: there is no such agent; PromptError: an answer cannot be scored as asked;
            ModelError: the architecture is not supported, or an activation is not finite.
        """
        read = self.read(prompts)
        with self.speaking(name) as model:
            anatomy = self.anatomy(name)
            return run_clean(name, model, anatomy, read, everywhere=everywhere, parts=parts)

    def __repr__(self) -> str:
        base = self.roster.base
        lines = [f"Agents on {base.source.name} ({base.dtype}, {base.device})"]
        width = max(len(name) for name in self.names)
        lines += [
            f"  {name:<{width}}  {spec.kind:<10}  {spec.adapter or spec.checkpoint or ''}".rstrip()
            for name, spec in self.roster.specs.items()
        ]
        return "\n".join(lines)


def load(
    base: str | Path = "default",
    /,
    *,
    dtype: DtypeName = "float32",
    device: str = "cpu",
    **agents: str | Path,
) -> Agents:
    """Load a base model and agents on it.

    Args:
        base: ``default`` (SmolLM2-135M-Instruct), a hub id, or a folder as ``save_pretrained``
            writes it; safetensors only.
        dtype: how weights are held: float32, bfloat16, float16, float64, or nf4 (4 bits).
        device: a torch device.
        agents: name to the folder or hub id of an adapter (LoRA, rsLoRA, DoRA) or of a full
            fine-tune of the base.

    Returns:
        The agents; the base is called ``base``.

    Raises:
        ModelError: the base or a checkpoint cannot be found, trusted or understood.
        AgentError: an agent is neither adapter nor checkpoint, belongs to another base, changes
            nothing, or has a name that tables cannot hold.
        DependencyError: the model stack is not installed.
    """
    for name in agents:
        _check_name(name)
    kinds = {name: _kind(name, str(place)) for name, place in agents.items()}
    roster = Roster(load_model(locate_model(str(base)), dtype=dtype, device=device))
    asked_for = str(base)
    roster.add(AgentSpec(name=BASE, base=asked_for))
    for name, place in agents.items():
        adapter = str(place) if kinds[name] == "adapter" else None
        checkpoint = None if adapter else str(place)
        roster.add(AgentSpec(name=name, base=asked_for, adapter=adapter, checkpoint=checkpoint))
    return Agents(roster)


def _check_name(name: str) -> None:
    if name == BASE or not name.replace("-", "").replace("_", "").isalnum():
        raise AgentError(
            "This cannot be the name of an agent",
            seen=repr(name),
            allowed="letters, digits, - and _; the base model is called base already",
            remedy="rename the agent",
        )


def _kind(name: str, place: str) -> AgentKind:
    """Adapter or checkpoint, told by its files.

    Raises:
        AgentError: it is neither, or cannot be found.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        return _kind_on_hub(name, place)
    if (folder / CONFIG).is_file():
        return "adapter"
    if (folder / _FULL).is_file():
        return "checkpoint"
    raise AgentError(
        f"The folder of agent {name!r} holds neither an adapter nor a model",
        seen=f"{place} with {', '.join(sorted(p.name for p in folder.iterdir())[:6]) or 'nothing'}",
        allowed=f"a folder with {CONFIG} (an adapter) or {_FULL} (a full model)",
        remedy="give the folder that save_pretrained wrote",
    )


def _kind_on_hub(name: str, place: str) -> AgentKind:
    errors = huggingface_hub.errors
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(place, CONFIG), str):
            return "adapter"
        if isinstance(huggingface_hub.try_to_load_from_cache(place, _FULL), str):
            return "checkpoint"
        huggingface_hub.hf_hub_download(place, CONFIG)
    except (OSError, ValueError) as cause:
        # The hub answered that there is no such file: then the repository holds a full model.
        absent = isinstance(cause, errors.EntryNotFoundError)
        if absent and not isinstance(cause, errors.LocalEntryNotFoundError):
            return "checkpoint"
        raise _not_found(name, place) from cause
    return "adapter"


def _not_found(name: str, place: str) -> AgentError:
    return AgentError(
        f"Agent {name!r} was not found",
        seen=place,
        allowed="a folder, or a hub id that is cached or can be reached",
        remedy="check the path or the id",
    )


def is_checkpoint(agents: Agents, *names: str) -> bool:
    """Whether one of some agents is a full checkpoint."""
    return any(agents.roster.specs[name].kind == "checkpoint" for name in names)
