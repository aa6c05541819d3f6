"""What could a study find, before it is run? Its design, judged as that of finished tables is.

The agents, prompts and measures of the study are written as the tables that it would fill, with
nothing measured in them, and asked what their units can identify (``evidence.designing``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.designing.table import design_table
from moralscope.studies.catalogue import inference_prompts
from moralscope.studies.comparing import members
from moralscope.studies.doctor import Finding
from moralscope.studies.study import Study, agent_spec, base_name, trained_for, training_config

ASKED = ("checkpoints", "reward", "pair of rewards", "seeds")
"""Questions of a design that are told before a study is run."""

Row = dict[str, object]


def design_findings(study: Study) -> Iterator[Finding]:
    """Which claims the study's units can identify, and how many more would be needed.

    A question that cannot be identified keeps no study from running; one that a hypothesis of the
    study asks does, because it would be asked in vain.
    """
    design = planned_design(study)
    asked = [hypothesis.rewards for hypothesis in study.hypotheses if hypothesis.rewards]
    compared = _compared_rewards(study)
    for row in design.filter(pl.col("question").is_in(ASKED)).iter_rows(named=True):
        pair = frozenset(str(row["subject"]).split(" against "))
        if row["question"] == "pair of rewards" and compared and pair not in compared:
            continue
        named = any(_is_asked(row, rewards) for rewards in asked)
        wrong = False if named else None
        units = f"{row['n']} {row['unit']}{'' if row['n'] == 1 else 's'}"
        said = "identified" if row["identified"] else "not identified"
        ok = True if row["identified"] else wrong
        yield Finding(
            _what(row["question"], row["subject"]), f"{said}: {units}", ok, _would_do(row)
        )


def _is_asked(row: Row, rewards: Sequence[str]) -> bool:
    """Whether a question is the one that a hypothesis about these rewards asks."""
    if row["question"] not in ("reward", "pair of rewards"):
        return False
    # Where there are several bases, each reward has its base in brackets behind it.
    named = [one.partition(" (")[0] for one in str(row["subject"]).split(" against ")]
    return sorted(named) == sorted(rewards)


def _would_do(row: Mapping[str, object]) -> str:
    """How many units would identify it, or find an effect of one standard deviation."""
    strong, needed = row["needed_for_power"], row["needed"]
    power = "" if strong is None else f"{strong} to find one standard deviation with 80% power"
    if row["identified"]:
        return power
    if needed is None:
        return str(row["sentence"])
    each = " of each reward" if row["question"] in ("pair of rewards", "seeds") else ""
    return f"{needed} {row['unit']}s{each} would do{f'; {power}' if power else ''}"


def _compared_rewards(study: Study) -> set[frozenset[str]]:
    """Pairs of rewards that the study's comparisons are about; none where it names none."""
    return {
        frozenset(
            str(trained_for(study, next(iter(members(side, study.agents))))) for side in sides
        )
        for sides in study.comparisons.values()
    }


def _what(question: str, subject: str) -> str:
    about = {
        "checkpoints": "claims about these agents",
        "reward": f"claims about the reward {subject}",
        "pair of rewards": f"claims about {subject}",
        "seeds": "whether rewards matter more than seeds",
    }
    return about[question]


def planned_design(study: Study) -> pl.DataFrame:
    """The table ``design`` of a study that has not been run."""
    tables = planned_tables(study)
    return design_table(tables, alpha=study.evidence.alpha, draws=study.evidence.draws)


def planned_tables(study: Study) -> dict[str, pl.DataFrame]:
    """Agents, prompts and measures as the study would have them; every number in them is 0."""
    prompts = list(inference_prompts(study))
    decided: list[Row] = [
        {"agent": agent, "prompt": p.name, "game": p.game, "scenario": p.scenario,
         "log_odds": 0.0, "p_positive": 0.5, "p_negative": 0.5, "legal_mass": 1.0}
        for agent in study.agents for p in prompts
    ]  # fmt: skip
    tables = {
        "agents": from_rows("agents", [_agent(study, name) for name in study.agents]),
        "prompts": from_rows(
            "prompts",
            [
                {"prompt": p.name, "game": p.game, "scenario": p.scenario, "family": p.family,
                 "template": p.template, "labels": p.labels, "option_order": 0, "answer_order": 0,
                 "table_order": "none", "stem": "", "system": "", "chat_template": True,
                 "text": p.name, "sha256": p.name, "positive": "", "negative": ""}
                for p in prompts
            ],
        ),
        "decisions": from_rows("decisions", decided),
    }  # fmt: skip
    if "attribution" in study.mechanisms.methods:
        rows = [
            {"agent": row["agent"], "prompt": row["prompt"], "token": -1, "site": "L0.mlp",
             "layer": 0, "kind": "mlp", "head": None, "contribution": 0.0, "part": "whole"}
            for row in decided
        ]  # fmt: skip
        tables["attribution"] = from_rows("attribution", rows)
    return tables


def _agent(study: Study, name: str) -> Row:
    entry = study.agents[name]
    trained = training_config(study, name)
    kind = (
        "policy" if entry.policy is not None
        else "checkpoint" if entry.checkpoint is not None
        else "base" if name == base_name(study)
        else "adapter"
    )  # fmt: skip
    seed = agent_spec(study, name).training_seed
    return {
        "agent": name, "base": study.model, "kind": kind, "reward": trained_for(study, name),
        "opponent": None, "training_seed": seed if trained is None else trained.seed,
        "adapter_sha256": None, "dtype": study.dtype,
    }  # fmt: skip
