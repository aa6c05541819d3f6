"""The generated pages hold all that the code holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from moralscope.core.documents import parse_yaml, validate
from moralscope.core.hashing import LAYERS
from moralscope.core.schemas import SCHEMAS
from moralscope.core.schemas_behaviour import SCHEMAS as BEHAVIOUR
from moralscope.core.tables import schema_of
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.contrasts import OF_SITUATIONS, OF_STATES
from moralscope.evidence.hypotheses.forms import FORMS
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.verdicts import VERDICTS
from moralscope.games import CLUSTER_GAMES, OPPONENTS, REWARDS, WORDINGS
from moralscope.games.asking.family_sets import FAMILIES
from moralscope.games.asking.framing import FRAMINGS
from moralscope.games.asking.robustness import robustness_prompts
from moralscope.games.play.classical import CLASSICAL
from moralscope.studies import Study
from moralscope.studies.choices.evaluation import PARTS
from moralscope.training.agent_file import OWN_KEYS
from moralscope.training.config import LoraSettings, SamplingSettings, TrainingConfig
from moralscope.training.diagnostics import KINDS
from moralscope.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "tools/mkdocs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(hooks: ModuleType, name: str) -> str:
    return hooks.on_page_markdown((ROOT / "docs" / name).read_text(), page=None)


def test_every_column_of_every_table_is_documented(hooks: ModuleType):
    sections = re.split(r"^## ", page(hooks, "tables.md"), flags=re.MULTILINE)[1:]
    told = {section.splitlines()[0]: section for section in sections}
    assert list(told) == list(SCHEMAS)
    for name, section in told.items():
        rows = re.findall(r"^\| `(\w+)` \| (.*)$", section, re.MULTILINE)
        columns = schema_of(name).columns
        assert [row[0] for row in rows] == [column.name for column in columns]
        for (_, rest), column in zip(rows, columns, strict=True):
            assert rest.startswith(column.kind)
            assert ("may be null" in rest.split(" | ")[0]) == column.nullable
            # A bar inside a cell would open another one.
            assert len(re.findall(r"(?<!\\)\|", rest)) == 3


@pytest.mark.parametrize(
    "command", ["demo", "run", "explain", "evaluate", "train", "push", "report", "doctor"]
)
def test_every_command_is_documented(hooks: ModuleType, command: str):
    assert f"## moralscope {command}\n" in page(hooks, "cli.md")


def test_every_key_of_a_study_is_documented(hooks: ModuleType):
    sections = dict(
        re.findall(r"^### `?([\w.]+|The file)`?\n(.*?)(?=^### |\Z)", page(hooks, "studies.md"),
                   re.MULTILINE | re.DOTALL)
    )  # fmt: skip
    for place, model in hooks.PLACES.items():
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", sections[place], re.MULTILINE)
        given = hooks.FROM_THE_AGENT if place == "training" else set()
        assert [row[0] for row in rows] == [n for n in model.model_fields if n not in given]
        assert all(len(meaning) > 5 for _, _, meaning in rows)
    defaults = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", sections["prompts"], re.MULTILINE))
    assert defaults["games"] == f"[{', '.join(CLUSTER_GAMES)}]"
    assert defaults["scenarios"] == "true"
    assert "evaluation" in sections
    for name in (*REWARDS, *OPPONENTS, *WORDINGS, *FAMILIES, *CLASSICAL):
        assert re.search(rf"[|,] {name}[ ,]", sections["Names"])


def table_rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of the table under a heading row, by the first of them."""
    (body,) = re.findall(rf"^\| {title} \|.*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [line.strip("|").split(" | ") for line in body.splitlines()]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in cells}


def test_every_classical_strategy_is_documented_with_its_source(hooks: ModuleType):
    told = table_rows(page(hooks, "opponents.md"), "strategy")
    assert list(told) == list(CLASSICAL)
    assert all(re.search(r"\(?\b(19|20)\d\d\)?", source) for _, _, source in told.values())
    assert told["always-defect"][:2] == ["nothing", "no"]
    assert told["tit-for-two-tats"][:2] == ["2 rounds", "no"]
    assert told["grim"][:2] == ["the whole game", "no"]
    assert told["joss"][:2] == ["1 round", "yes"]


def test_every_prompt_family_and_frame_is_documented(hooks: ModuleType):
    text = page(hooks, "behaviour.md")
    told = table_rows(text, "family")
    assert list(told) == list(FAMILIES)
    asked = [prompt.family for prompt in robustness_prompts()]
    for name, (texts, _, count) in told.items():
        assert re.findall(r"`([\w:]+)`", texts) == [wording.name for wording in FAMILIES[name]]
        assert int(count) == asked.count(name)
    assert told["unstructured"][1] == "nothing"
    assert told["poetic"][1] == "points, a goal"
    assert "the other's last move (some texts do)" in told["unrelated"][1]
    frames = table_rows(text, "frame")
    assert list(frames) == [frame.name for frame in FRAMINGS]
    assert "terse" not in frames["plain"][0]
    assert "as few words" in frames["system:terse"][0]


def test_every_contrast_is_documented(hooks: ModuleType):
    _, states, situations = re.split(
        r"^### Between .*$", page(hooks, "behaviour.md"), flags=re.MULTILINE
    )
    for told, known in ((states, OF_STATES), (situations, OF_SITUATIONS)):
        assert list(table_rows(told, "contrast")) == [contrast.name for contrast in known]
    told = table_rows(states, "contrast")
    assert told["guilt_effect"][0] == "P(`DC`) - P(`CC`, `CD`, `DD`)"
    assert told["response_to_other"] == [
        "P(`CC`, `DC`) - P(`CD`, `DD`)",
        "more after the other cooperated than after the other defected?",
    ]


def test_every_key_and_quantity_of_a_hypothesis_is_documented(hooks: ModuleType):
    text = page(hooks, "hypotheses.md")
    assert list(table_rows(text, "key")) == list(Hypothesis.model_fields)
    told = table_rows(text, "quantity")
    assert list(told) == list(FORMS)
    assert told["patch_effect"][2] == "2 `agents`, 1 or more `sites`"
    assert told["patch_effect"][4] == "`above`, `below`, `differs`, `zero`, `margin`"
    assert told["contrast"][2:4] == ["1 or 2 `agents`", "`contrast` (needed), `family`, `game`"]
    assert told["learned"][4] == "none"
    assert told["zero_flips"][4] == "`zero`, `published`"


def test_the_hypotheses_that_are_shown_can_be_asked(hooks: ModuleType):
    blocks = re.findall(r"```yaml\n(.*?)```", page(hooks, "hypotheses.md"), re.DOTALL)
    shown, published = blocks
    audit = validate(AuditSettings, parse_yaml(published, "hypotheses.md"), "hypotheses.md")
    assert {h.quantity for h in audit.hypotheses} <= set(FORMS)
    assert all(h.published is not None for h in audit.hypotheses)
    study = validate(Study, parse_yaml(shown, "hypotheses.md"), "hypotheses.md")
    assert [h.quantity for h in study.hypotheses] == ["change", "patch_effect", "difference"]


def test_every_part_and_every_table_of_the_evaluation_is_told_of(hooks: ModuleType):
    text = page(hooks, "behaviour.md")
    told = table_rows(text, "part")
    assert list(told) == list(PARTS)
    for name in BEHAVIOUR:
        assert f"`{name}`" in text


def test_every_key_of_an_agent_and_every_preset_is_documented(hooks: ModuleType):
    told = page(hooks, "training.md").partition("## Keys")[2]
    sections = dict(
        re.findall(r"^### `?([\w ]+)`?\n(.*?)(?=^### |\Z)", told, re.MULTILINE | re.DOTALL)
    )
    found = {
        place: re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \|$", text, re.MULTILINE)
        for place, text in sections.items()
    }
    keys = {place: [row[0] for row in rows] for place, rows in found.items()}
    assert keys["The agent"] == list(OWN_KEYS)
    assert keys["The training"] == list(TrainingConfig.model_fields)
    assert set(keys["sampling"]) == set(SamplingSettings.model_fields)
    assert keys["lora"] == list(LoraSettings.model_fields)
    assert dict(row[:2] for row in found["The agent"])["model"] == "`default`"
    presets = re.findall(r"^\| `(\w+)` \| (.*) \|$", sections["Presets"], re.MULTILINE)
    assert [name for name, _ in presets] == list(PRESETS)
    assert "`sampling.score_clip: null`" in dict(presets)["paper"]


def test_every_diagnosis_is_documented():
    text = (ROOT / "docs/training.md").read_text()
    assert set(re.findall(r"^\| `(\w+-\w+)` \|", text, re.MULTILINE)) == set(KINDS)
    column = next(c for c in schema_of("diagnostics").columns if c.name == "diagnosis")
    assert set(re.findall(r"\w+-\w+", column.meaning)) == set(KINDS)


def test_every_comparison_is_documented():
    source = (ROOT / "benchmarks/run.py").read_text()
    keys = re.findall(r'"(\w+)"', source.partition("KEYS = (")[2].partition(")")[0])
    told = (ROOT / "docs/benchmarks.md").read_text()
    assert len(keys) == 11
    for key in keys:
        assert f"`{key}`" in told


def test_other_pages_are_left_alone(hooks: ModuleType):
    text = (ROOT / "docs/index.md").read_text()
    assert hooks.on_page_markdown(text, page=None) == text


def test_the_layers_are_drawn_as_they_are():
    drawn = " < ".join(" | ".join(layer) for layer in LAYERS)
    for document in ("docs/architecture.md", "CONTRIBUTING.md"):
        assert drawn in (ROOT / document).read_text()


def test_the_verdicts_are_those_of_the_code():
    for document, mark in (("docs/verdicts.md", "*"), ("README.md", "")):
        text = (ROOT / document).read_text()
        for verdict in VERDICTS:
            assert f"| {mark}{verdict}{mark} |" in text
