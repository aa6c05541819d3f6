"""What was done? The methods of this run in words, from its settings and tables.

Each passage is there because the run did what it says: its numbers are counted in the tables, its
settings read from the resolved study file, and each method names its source. ``methods.md`` holds
the same text with citations as Pandoc reads them, ``references.bib`` the works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import polars as pl
import yaml

from moralscope.reports.figure import listing
from moralscope.reports.inner_passages import inner_passages
from moralscope.reports.run import Run
from moralscope.reports.words import Passage, counted

__all__ = ["Passage", "passages_of", "settings_of"]


@dataclass(frozen=True)
class _Told:
    """A run and the settings in its study file."""

    run: Run
    settings: Mapping[str, object]

    def section(self, name: str) -> Mapping[str, object]:
        """A part of the settings; empty where it is absent or no mapping."""
        value = self.settings.get(name)
        return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def passages_of(run: Run) -> tuple[Passage, ...]:
    """The methods of a run; an audit has those of its judging alone."""
    told = _Told(run, settings_of(run))
    makers: tuple[Callable[[_Told], Passage | None], ...] = (
        _agents,
        _training,
        _prompts,
        _decision,
        _behaviour,
    )
    outside = [passage for make in makers if (passage := make(told)) is not None]
    after = (_comparisons(told), _statistics(told), _controls(told), _software(told))
    inside = inner_passages(run)
    return (*outside, *inside, *(passage for passage in after if passage is not None))


def settings_of(run: Run) -> Mapping[str, object]:
    """The resolved study file as a mapping; empty where it is missing or cannot be read."""
    try:
        value: object = yaml.safe_load(run.config or "")
    except yaml.YAMLError:
        return {}
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _agents(told: _Told) -> Passage | None:
    run = told.run
    if not run.agents:
        return None
    trained = [a for a in run.agents if a.kind in ("adapter", "checkpoint")]
    model = run.manifest.model if run.manifest else {}
    named = model.get("id") or told.settings.get("model")
    sentences = [f"The base model was {named}." if named else "One base model was studied."]
    rewards = dict.fromkeys(a.reward for a in trained if a.reward)
    if trained:
        seeds = {
            reward: len({a.training_seed for a in trained if a.reward == reward})
            for reward in rewards
        }
        each = listing([f"{reward} ({counted(n, 'seed')})" for reward, n in seeds.items()])
        sentences.append(
            f"{counted(len(trained), 'fine-tune')} of it {'was' if len(trained) == 1 else 'were'} "
            f"compared with it" + (f", by reward: {each}." if each else ".")
        )
    if any(a.kind == "adapter" for a in trained):
        sentences.append(
            "Adapters are low-rank updates [@hu2022], run on one copy of the base weights and "
            "never merged into them."
        )
    if {"game", "deontological", "utilitarian", "hybrid"} & {*rewards}:
        sentences.append("Rewards are those of the published moral fine-tunes [@tennant2025].")
    scripted = [a.name for a in run.agents if a.kind == "policy"]
    if scripted:
        sentences.append(f"Scripted policies stood beside them: {listing(scripted)}.")
    return Passage("Agents", " ".join(sentences))


def _training(told: _Told) -> Passage | None:
    table = told.run.tables.get("training")
    if table is None or table.is_empty():
        return None
    own = {key: value for key, value in told.section("training").items() if value is not None}
    settings = listing([f"{key} {_shown(value)}" for key, value in own.items()], 20)
    agents = table.get_column("agent").n_unique()
    return Passage(
        "Training",
        f"{counted(agents, 'agent')} {'was' if agents == 1 else 'were'} trained for this study on "
        "the payoffs of an iterated game against a fixed opponent."
        + (f" Settings that differ from the package's defaults: {settings}." if settings else "")
        + " The table training has loss, reward, illegal answers and divergence from the base at "
        "every step.",
    )


def _prompts(told: _Told) -> Passage | None:
    table = told.run.tables.get("prompts")
    if table is None or table.is_empty():
        return None
    families = table.group_by("family", maintain_order=True).len()
    parts = listing([f"{name} ({n:,})" for name, n in families.iter_rows()])
    games = listing(table.get_column("game").unique(maintain_order=True).to_list())
    return Passage(
        "Prompts",
        f"{table.height:,} prompts in {table.get_column('scenario').n_unique():,} scenarios, "
        f"{table.get_column('template').n_unique()} wordings and "
        f"{counted(table.get_column('labels').n_unique(), 'assignment')} of labels to options were "
        f"asked; by family: {parts}. Games: {games}. Prompts of one scenario are averaged before "
        "any test, so that scenarios, not prompts, are counted.",
    )


def _decision(told: _Told) -> Passage | None:
    run = told.run
    if run.lacks("decisions"):
        return None
    positive, negative = run.option_words
    mass = run.tables["decisions"].get_column("legal_mass").quantile(0.5, "linear")
    typical = f" (median {mass:.3f} over all decisions)" if mass is not None else ""
    return Passage(
        "Decision",
        "No answer was sampled to measure a decision. The probability of each option is that of "
        "its whole text, summed over its surface forms; log-odds are "
        f"log P({positive}) - log P({negative}) in nats. The legal mass is the probability that "
        f"either is answered{typical}.",
    )


def _behaviour(told: _Told) -> Passage | None:
    names = ("policy", "generalisation", "regret", "robustness", "play", "answers", "learned")
    there = [name for name in names if name in told.run.tables]
    if not there:
        return None
    sentences = ["Cooperation is P(cooperate | legal), exact, after each pair of last moves."]
    if "learned" in there:
        sentences.append(
            "Whether an agent learned the move, or a label, layout or order, was told apart by "
            "swapping labels, exchanging rows of the payoff table, changing the wording and "
            "mirroring it."
        )
    if {"regret", "play"} & {*there}:
        sentences.append(
            "Play over many rounds was computed as an exact Markov chain; regrets are those of "
            "the published evaluation [@tennant2025]."
        )
    if "answers" in there:
        sentences.append("Sampled answers were compared with the scored probabilities.")
    return Passage("Behaviour", " ".join(sentences))


def _comparisons(told: _Told) -> Passage | None:
    table = told.run.tables.get("comparisons")
    if table is None or table.is_empty():
        return None
    kinds = dict(table.group_by("kind").len().iter_rows())
    named = table.filter(pl.col("kind") == "named").get_column("comparison").unique().sort()
    return Passage(
        "Comparisons",
        f"{kinds.get('named', 0)} pairs of agents were compared by name"
        + (f" ({listing(named.to_list())})" if len(named) else "")
        + f", {kinds.get('replicate', 0)} pairs of one reward and different training seeds gave "
        f"the noise floor, and {kinds.get('base', 0)} pairs of the base and an agent the positive "
        "control. No other pair was tested.",
    )


def _statistics(told: _Told) -> Passage | None:
    claims = told.run.tables.get("claims")
    if claims is None or claims.is_empty():
        return None
    settings = told.section("evidence") or told.settings
    alpha, draws = settings.get("alpha"), settings.get("draws")
    drawn = f" ({draws} draws where not exact)" if isinstance(draws, int) else ""
    level = f" at the level {alpha}" if isinstance(alpha, float) else ""
    text = (
        "Claims about these checkpoints rest on scenarios: signs of the scenario means are "
        f"flipped{drawn}, with p values that are never zero [@phipson2010]. Over the sites of a "
        "sweep and the members of a family p is adjusted by the largest statistic "
        "[@westfall1993]. Claims about a reward rest on training seeds: rewards are reassigned to "
        "seeds. Beside each p stands the smallest that its design can reach. Exploratory claims "
        f"are screened over the whole study{level} [@benjamini1995]; hypotheses that were named "
        "beforehand are corrected among themselves [@holm1979]."
    )
    if claims.get_column("verdict").eq("equivalent").any() or "margin" in str(settings):
        text += " Likeness is claimed by two one-sided tests against a margin [@schuirmann1987]."
    return Passage("Statistics", text)


def _controls(told: _Told) -> Passage | None:
    run = told.run
    if run.lacks("gates"):
        return None
    gates = run.tables["gates"]
    told_first = (
        f"{gates.height} gates came before any inference; a claim whose gate failed is an "
        "artefact whatever its p."
    )
    sentences = [told_first]
    if not run.lacks("control_results"):
        kinds = run.tables["control_results"].get_column("kind")
        sentences.append(
            f"{kinds.eq('negative').sum()} negative controls (nothing may be found) and "
            f"{kinds.eq('positive').sum()} positive ones (what was planted must be found) ran on "
            "the same tests."
        )
    return Passage("Gates and controls", " ".join(sentences))


def _software(told: _Told) -> Passage | None:
    manifest = told.run.manifest
    if manifest is None:
        return None
    wanted = ("python", "torch", "transformers", "peft", "numpy", "polars")
    versions = [f"{n} {manifest.versions[n]}" for n in wanted if manifest.versions.get(n)]
    return Passage(
        "Software",
        f"moralscope {manifest.moralscope or 'of an unknown version'}"
        + (f" with {listing(versions)}" if versions else "")
        + (f", seed {manifest.seed}" if manifest.seed is not None else "")
        + ". The manifest holds the hash of every table, and the study file every setting.",
    )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_items(cast("Mapping[object, object]", value)))
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[object]", value))
    return str(value)


def _items(value: Mapping[object, object]) -> Iterator[str]:
    return (f"{key} {item}" for key, item in value.items())
