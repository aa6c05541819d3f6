"""What is this adapter, and what does it not show? The model card of a trained agent.

``README.md`` opens with the front matter that the hub and PEFT read; ``card.json`` holds the same
facts for programs. Both are made from the agent's folder alone: settings, the tables ``training``
and ``diagnostics``, and the fingerprint, whose log-odds give the behaviour at the end,

    P(defect | legal) = 1 / (1 + exp(-log-odds)),

averaged over the prompts of a wording under one assignment of labels. No machine's paths are in it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from moralscope.core.decision import Prompt
from moralscope.core.files import write_json, write_text
from moralscope.games import ILLEGAL_PENALTY
from moralscope.games.reward_terms import TERMS
from moralscope.training.agent_file import held_back_prompts
from moralscope.training.batches import training_prompts
from moralscope.training.config import TrainingConfig, deviations
from moralscope.training.finished import FinishedAgent, read_finished

CARD, TWIN = "README.md", "card.json"

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("moralscope.reports"),
    autoescape=False,  # noqa: S701 -- Markdown; texts go through the filter "inline"
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write_card(folder: Path) -> Path:
    """Write the card of a finished agent into its folder.

    Returns:
        The path of ``README.md``; ``card.json`` lies beside it. The same folder gives the same
        bytes.

    Raises:
        AgentError: the folder is not that of a finished agent.
        OutputError: it cannot be written.
    """
    facts = card_facts(read_finished(folder))
    write_json(folder / TWIN, facts)
    write_text(folder / CARD, card_text(facts))
    return folder / CARD


def card_facts(agent: FinishedAgent) -> dict[str, Any]:
    """Everything that a card says, as JSON values."""
    config = agent.config.model_copy(update={"opponent": without_folders(agent.config.opponent)})
    stored = agent.fingerprint
    last = agent.training.tail(1).to_dicts()[0]
    hashes = {k: str(stored[k]) for k in ("base", "tokenizer", "chat_template", "adapter")}
    return {
        "agent": agent.name,
        "base": base_label(agent.base),
        "base_is_on_the_hub": base_label(agent.base) == agent.base,
        "dtype": str(stored["dtype"]),
        "reward": config.reward,
        "reward_terms": reward_words(config.reward),
        "illegal_penalty": ILLEGAL_PENALTY,
        "opponent": config.opponent,
        "game": config.game,
        "seed": config.seed,
        "labels": config.labels,
        "words": [list(pair) for pair in (config.words, *config.more_words)],
        "wordings": list(config.wordings),
        "table_orders": list(config.table_orders),
        "method": config.method,
        "preset": config.preset,
        "deviations": {k: list(v) for k, v in deviations(config).items()},
        "settings": config.model_dump(mode="json"),
        "steps": int(last["step"]),
        "trainable_parameters": agent.size.parameters,
        "all_linear_parameters": None if agent.trainable is None else agent.trainable["all_linear"],
        "adapter_bytes": agent.size.bytes,
        "last_step": {k: v for k, v in last.items() if k in _SHOWN and v is not None},
        "behaviour": behaviour(config, stored["prompts"]),
        "fingerprint": hashes,
        "fingerprinted_prompts": len(stored["prompts"]),
        "diagnostics": [] if agent.diagnostics is None else agent.diagnostics.to_dicts(),
    }


_SHOWN = ("reward_mean", "cooperation", "legal_mass", "kl")


def behaviour(config: TrainingConfig, stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the agent does at the end, from its fingerprint.

    Args:
        config: the training, whose prompts are told from those held back.
        stored: prompt name to its entry with ``log_odds``, in nats towards defecting.

    Returns:
        One row for each wording and label assignment: ``trained`` (yes or no), ``template``,
        ``labels`` (cooperate/defect), mean ``p_defect`` given a legal answer, ``prompts``.
    """
    groups: dict[tuple[bool, str, str], list[float]] = {}
    for trained, prompt in _known_prompts(config):
        if prompt.name in stored:
            odds = float(stored[prompt.name]["log_odds"])
            key = (trained, prompt.template, prompt.labels)
            groups.setdefault(key, []).append(float(0.5 * (1.0 + np.tanh(0.5 * odds))))
    return [
        {
            "trained": trained,
            "template": template,
            "labels": labels,
            "p_defect": float(np.mean(found)),
            "prompts": len(found),
        }
        for (trained, template, labels), found in groups.items()
    ]


def _known_prompts(config: TrainingConfig) -> Iterable[tuple[bool, Prompt]]:
    yield from ((True, prompt) for prompt in training_prompts(config))
    yield from ((False, prompt) for prompt in held_back_prompts(config))


def reward_words(expression: str) -> dict[str, str]:
    """The built-in terms of a reward, each with its equation in words."""
    found: dict[str, str] = {}
    for name in sorted(TERMS, key=len, reverse=True):
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", expression):
            told = inspect.getdoc(TERMS[name].value) or ""
            words = " ".join(told.split("\n\n")[0].split()).replace("``", "`")
            usual = [
                f"{key}={part.default}"
                for key, part in inspect.signature(TERMS[name].value).parameters.items()
                if part.default is not inspect.Parameter.empty
            ]
            found[name] = words + (f" Unless given: `{', '.join(usual)}`." if usual else "")
    return dict(sorted(found.items(), key=lambda pair: expression.index(pair[0])))


def base_label(base: str) -> str:
    """What a card calls the base: a hub id as it is, of a folder only its last name."""
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base) and not base.startswith(".")
    return base if is_id and not Path(base).is_dir() else Path(base).name


def without_folders(expression: str) -> str:
    """An expression in which a folder goes by its last name: ``agent(runs/one)`` as ``agent(one)``.

    >>> without_folders("agent(runs/one)")
    'agent(one)'
    """
    return re.sub(r"[^\s(),=]*/(?=[^\s(),/])", "", expression)


def card_text(facts: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    front: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation"}
    if facts["base_is_on_the_hub"]:
        front = {"base_model": facts["base"]} | front
    front["tags"] = ["lora", "moralscope", "social-dilemmas", _tag(str(facts["game"]))]
    template = _ENVIRONMENT.get_template("card.md.jinja")
    return template.render(facts, front=yaml.safe_dump(front, sort_keys=False))


def _tag(game: str) -> str:
    return "game:" + re.sub(r"[^\w.]+", "-", game).strip("-")


def _inline(value: object) -> str:
    """A text of the user's inside a table or a sentence: one line that opens nothing."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"([|<>\[\]*_`\\])", r"\\\1", " ".join(text.split()))


def _code(value: object) -> str:
    """The same as code."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


_ENVIRONMENT.filters.update(inline=_inline, code=_code)
