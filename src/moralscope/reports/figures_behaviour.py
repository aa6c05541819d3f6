"""Which figures show behaviour? Each is drawn where its table is, behind one that it goes on."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_action_types import action_shares, training_actions
from moralscope.reports.figure_contrasts import behaviour_contrasts
from moralscope.reports.figure_drift import policy_drift
from moralscope.reports.figure_exploiting import exploitability, price_of_morality
from moralscope.reports.figure_generalisation import generalisation_grid
from moralscope.reports.figure_learning import learning_curves
from moralscope.reports.figure_play import cooperation_in_play, cross_play, payoffs_in_play
from moralscope.reports.figure_policy import cooperation_by_game, memory_one
from moralscope.reports.figure_populations import fixation, population_dynamics, standings
from moralscope.reports.figure_radar import memory_one_radar
from moralscope.reports.figure_regret import regret_bars
from moralscope.reports.figure_robustness import robustness_grid, variance_split
from moralscope.reports.figure_side_effects import metric_agreement, side_effects
from moralscope.reports.figure_similarity import similarity_matrix
from moralscope.reports.run import Run

Maker = Callable[[Run, dict[str, str]], Figure | Absent]


def _has(table: str) -> Callable[[Run], bool]:
    """Whether a run holds a table, be it empty."""

    def has_table(run: Run) -> bool:
        return table in run.tables

    return has_table


BEHAVIOUR: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (memory_one, _has("nearest"), memory_one_radar),
    (memory_one, _has("contrasts"), behaviour_contrasts),
    (cooperation_by_game, _has("generalisation"), generalisation_grid),
    (cooperation_by_game, _has("regret"), regret_bars),
    (cooperation_by_game, _has("action_shares"), action_shares),
    (cooperation_by_game, _has("robustness"), robustness_grid),
    (cooperation_by_game, _has("variance"), variance_split),
    (cooperation_by_game, _has("play"), cooperation_in_play),
    (cooperation_by_game, _has("play"), payoffs_in_play),
    (cooperation_by_game, _has("play"), cross_play),
    (cooperation_by_game, _has("exploitability"), exploitability),
    (cooperation_by_game, _has("price_of_morality"), price_of_morality),
    (cooperation_by_game, _has("standings"), standings),
    (cooperation_by_game, _has("dynamics"), population_dynamics),
    (cooperation_by_game, _has("fixation"), fixation),
    (cooperation_by_game, _has("similarity"), similarity_matrix),
    (cooperation_by_game, _has("side_effects"), side_effects),
    (cooperation_by_game, _has("metric_agreement"), metric_agreement),
    (learning_curves, _has("plays"), training_actions),
    (learning_curves, _has("plays"), policy_drift),
)
"""After which figure it stands, whether the run asked for it, and how it is drawn."""
