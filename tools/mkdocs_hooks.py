"""Pages of the documentation that are written from the code, so that they cannot disagree with it.

A page says where: ``<!-- tables -->`` is replaced by every table's columns from
``moralscope.core.schemas``, ``<!-- commands -->`` by every command's help, ``<!-- study -->`` by
every key of a study file with its default, ``<!-- agent -->`` by every key of an agent file and
by what each preset changes, ``<!-- strategies -->`` by the classical strategies with their sources,
``<!-- families -->`` by the prompt families and frames, ``<!-- contrasts -->`` by the contrasts
between situations with their definitions, ``<!-- quantities -->`` by the keys of a hypothesis and
the quantities that it can be about.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from moralscope.cli.main import app
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import Schema, schema_of
from moralscope.evidence.contrasts import OF_SITUATIONS, OF_STATES, Contrast
from moralscope.evidence.hypotheses.forms import FORMS, Count, Form
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.games import (
    CLUSTER_GAMES,
    GAMES,
    MIRRORED,
    OPPONENTS,
    REWARDS,
    TABLE_ORDERS,
    WORDINGS,
)
from moralscope.games.asking.family_sets import FAMILIES, families
from moralscope.games.asking.framing import FRAMINGS
from moralscope.games.asking.wording import Wording
from moralscope.games.play.classical import CLASSICAL
from moralscope.studies.choices.attention import AttentionChoice
from moralscope.studies.choices.controls import ControlChoice
from moralscope.studies.choices.derived import CourseChoice, TargetedChoice
from moralscope.studies.choices.evaluation import EvaluationChoice
from moralscope.studies.choices.interactions import InteractionChoice
from moralscope.studies.choices.representations import RepresentationChoice
from moralscope.studies.choices.weights import WeightChoice
from moralscope.studies.study import (
    AgentEntry,
    EvidenceChoice,
    MechanismChoice,
    PromptChoice,
    Study,
)
from moralscope.training.agent_file import AgentFile, flattened
from moralscope.training.config import LoraSettings, SamplingSettings, TrainingConfig
from moralscope.training.presets import PRESETS

TABLES, COMMANDS, STUDY = "<!-- tables -->", "<!-- commands -->", "<!-- study -->"
AGENT = "<!-- agent -->"
STRATEGIES, FAMILY_TEXTS = "<!-- strategies -->", "<!-- families -->"
CONTRASTS, QUANTITIES = "<!-- contrasts -->", "<!-- quantities -->"
PLACES: dict[str, type[BaseModel]] = {
    "The file": Study,
    "agents.NAME": AgentEntry,
    "training": TrainingConfig,
    "training.lora": LoraSettings,
    "prompts": PromptChoice,
    "evaluation": EvaluationChoice,
    "mechanisms": MechanismChoice,
    "mechanisms.attention": AttentionChoice,
    "mechanisms.interactions": InteractionChoice,
    "mechanisms.weights": WeightChoice,
    "mechanisms.representations": RepresentationChoice,
    "course": CourseChoice,
    "targeted": TargetedChoice,
    "controls": ControlChoice,
    "evidence": EvidenceChoice,
}
FROM_THE_AGENT = {"reward", "opponent", "seed"}
"""Settings of a training that its agent gives."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the generated parts of a page; called by MkDocs for each page."""
    if TABLES in markdown:
        markdown = markdown.replace(TABLES, "\n".join(_all_tables()))
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, _commands())
    if STUDY in markdown:
        markdown = markdown.replace(STUDY, "\n".join(_study()))
    if AGENT in markdown:
        markdown = markdown.replace(AGENT, "\n".join(_agent()))
    if STRATEGIES in markdown:
        markdown = markdown.replace(STRATEGIES, "\n".join(_strategies()))
    if FAMILY_TEXTS in markdown:
        markdown = markdown.replace(FAMILY_TEXTS, "\n".join(_families()))
    if CONTRASTS in markdown:
        markdown = markdown.replace(CONTRASTS, "\n".join(_contrasts()))
    if QUANTITIES in markdown:
        markdown = markdown.replace(QUANTITIES, "\n".join(_quantities()))
    return markdown


def _all_tables() -> Iterator[str]:
    for name in SCHEMAS:
        yield from _table(schema_of(name))


def _table(schema: Schema) -> Iterator[str]:
    yield f"## {schema.name}\n"
    key = ", ".join(f"`{column}`" for column in schema.key)
    yield f"A row is {schema.row}. Unique by {key}.\n"
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in schema.columns:
        kind = f"{column.kind}, may be null" if column.nullable else column.kind
        cells = (f"`{column.name}`", kind, column.unit, column.meaning.replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _commands() -> str:
    text = app.generate_docs(output_format="markdown")
    return text[text.index("**Commands**") :]  # the page has its own title and contents


def _study() -> Iterator[str]:
    names = {
        "reward": REWARDS,
        "opponent": OPPONENTS,
        "game": GAMES,
        "games of the clusters": CLUSTER_GAMES,
        "wording": ("structured (training only)", *WORDINGS),
        "mirrored wording": MIRRORED,
        "table order": TABLE_ORDERS,
        "prompt family": tuple(FAMILIES),
        "classical strategy": tuple(CLASSICAL),
    }
    yield "### Names\n"
    yield "| what | names |"
    yield "|---|---|"
    for what, known in names.items():
        yield f"| {what} | {', '.join(known)} |"
    yield ""
    for place, model in PLACES.items():
        title = place if place == "The file" else f"`{place}`"
        yield f"### {title}\n"
        told = _meanings(model)
        first = inspect.getdoc(model) or ""
        yield first.splitlines()[0].replace("``", "`") + "\n"
        yield "| key | default | meaning |"
        yield "|---|---|---|"
        for name, field in model.model_fields.items():
            if model is TrainingConfig and name in FROM_THE_AGENT:
                continue
            default = "needed" if field.is_required() else f"`{_plain(field.get_default())}`"
            if field.default_factory is not None or isinstance(field.default, BaseModel):
                below = {place.rpartition(".")[2] for place in PLACES}
                default = "see below" if name in below else "none"
            yield f"| `{name}` | {default} | {told[name].replace('see their types', 'see below')} |"
        yield ""


AGENT_PLACES: dict[str, type[BaseModel]] = {
    "The agent": AgentFile,
    "The training": TrainingConfig,
    "sampling": SamplingSettings,
    "lora": LoraSettings,
}


def _agent() -> Iterator[str]:
    for place, model in AGENT_PLACES.items():
        yield f"### {place if ' ' in place else f'`{place}`'}\n"
        yield "| key | default | meaning |"
        yield "|---|---|---|"
        told = _meanings(model)
        for name in told:
            field = model.model_fields[name]
            default = "needed" if field.is_required() else f"`{_plain(field.get_default())}`"
            if isinstance(field.default, BaseModel):
                default = "see below"
            yield f"| `{name}` | {default} | {told[name]} |"
        yield ""
    yield "### Presets\n"
    yield "| preset | what it sets |"
    yield "|---|---|"
    for name, settings in PRESETS.items():
        changes = ", ".join(f"`{key}: {_plain(v)}`" for key, v in flattened(settings).items())
        yield f"| `{name}` | {changes or 'nothing: the defaults above'} |"
    yield ""


def _strategies() -> Iterator[str]:
    yield "| strategy | remembers | chance | source |"
    yield "|---|---|---|---|"
    for each in CLASSICAL.values():
        chance = "no" if each.deterministic else "yes"
        yield f"| `{each.name}` | {_remembered(each.memory)} | {chance} | {each.source} |"
    yield ""


def _remembered(memory: float) -> str:
    if math.isinf(memory):
        return "the whole game"
    return {0: "nothing", 1: "1 round"}.get(int(memory), f"{memory:g} rounds")


def _families() -> Iterator[str]:
    yield "| family | texts | does not tell | prompts |"
    yield "|---|---|---|---|"
    for name, texts in FAMILIES.items():
        told = ", ".join(f"`{text.name}`" for text in texts)
        yield f"| `{name}` | {told} | {_omitted(texts)} | {len(families(names=[name]))} |"
    yield ""
    yield "| frame | what stands around the structured text |"
    yield "|---|---|"
    for each in FRAMINGS:
        yield f"| `{each.name}` | {_frame(each.opening, each.system, each.chat_template)} |"
    yield ""


def _omitted(texts: Sequence[Wording]) -> str:
    """What texts of a family leave out; what some of them tell is marked."""
    words = {
        "payoffs": "points",
        "own": "the own last move",
        "other": "the other's last move",
        "goal": "a goal",
    }
    counts = {part: sum(part in text.omits for text in texts) for part in words}
    left_out = [
        words[part] + (" (some texts do)" if count < len(texts) else "")
        for part, count in counts.items()
        if count
    ]
    return ", ".join(left_out) or "nothing"


def _frame(opening: str, system: str, chat_template: bool) -> str:
    if not chat_template:
        return "no chat template: the text, the beginning of the answer on the next line"
    if system:
        return f'the system message "{system}"'
    return f'an answer that begins "{opening}"' if opening else "an answer that nobody began"


def _contrasts() -> Iterator[str]:
    for title, contrasts in (
        ("Between what was played last", OF_STATES),
        ("Between the five situations", OF_SITUATIONS),
    ):
        yield f"### {title}\n"
        yield "| contrast | definition | does it cooperate |"
        yield "|---|---|---|"
        for each in contrasts:
            asked = each.words[0] if each.is_level else "more {} than {}".format(*each.words)
            yield f"| `{each.name}` | {_definition(each)} | {asked}? |"
        yield ""


def _definition(contrast: Contrast) -> str:
    """A weighted sum in words: each side is a mean of P(C) over its cells."""
    cells = tuple(zip(contrast.cells, contrast.weights, strict=True))
    more = [cell for cell, weight in cells if weight > 0]
    less = [cell for cell, weight in cells if weight < 0]
    sides = [f"P({', '.join(f'`{cell}`' for cell in side)})" for side in (more, less) if side]
    return " - ".join(sides)


def _quantities() -> Iterator[str]:
    yield "### Keys\n"
    yield "| key | meaning |"
    yield "|---|---|"
    for name, meaning in _meanings(Hypothesis).items():
        yield f"| `{name}` | {meaning} |"
    yield "\n### Quantities\n"
    yield "| quantity | the number | unit | names | also takes | expectation |"
    yield "|---|---|---|---|---|---|"
    for name, form in FORMS.items():
        cells = (form.meaning, form.unit, _named(form), _also(form), _expected(form))
        yield f"| `{name}` | {' | '.join(cells)} |"
    yield ""


def _named(form: Form) -> str:
    listed = (("agents", form.agents), ("rewards", form.rewards), ("sites", form.sites))
    return ", ".join(f"{_many(count)} `{key}`" for key, count in listed if count[1]) or "nothing"


def _many(count: Count) -> str:
    low, high = count
    if low == high:
        return str(low)
    return f"{low} or {high}" if high == low + 1 else f"{low} or more"


def _also(form: Form) -> str:
    needed = [f"`{key}` (needed)" for key in form.required]
    return ", ".join([*needed, *(f"`{key}`" for key in form.optional)]) or "nothing"


def _expected(form: Form) -> str:
    said = [*(f"`{direction}`" for direction in form.directions), *(["`margin`"] * form.margin)]
    if form.published:
        said.append("`published`")
    return ", ".join(dict.fromkeys(said)) or "none"


def _plain(default: object) -> str:
    """A default as it would stand in a study file."""
    if isinstance(default, tuple):
        return f"[{', '.join(_plain(part) for part in default)}]"
    written = {True: "true", False: "false", None: "null"}
    return written[default] if default is None or isinstance(default, bool) else str(default)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What a docstring says of each attribute; several may share one entry."""
    _, _, listed = (inspect.getdoc(model) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {
        name: " ".join(text.replace("``", "`").split()).replace("|", "\\|")
        for names, text in entries
        for name in names.split(", ")
    }
