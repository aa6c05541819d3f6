"""What is being decided? Payoff matrices, opponents, rewards, wording, prompt sets."""

from moralscope.games.files import read_prompts, write_prompts
from moralscope.games.matrices import GAMES, MOVES, PAIRS, Game, get_game, payoff
from moralscope.games.opponents import OPPONENTS, Opponent, get_opponent, initial_states
from moralscope.games.prompts import (
    ASSIGNMENTS,
    CLUSTER_GAMES,
    HELD_OUT,
    LABELS,
    WORDINGS,
    Assignment,
    balanced,
    clusters,
    scenarios,
    structured,
    wordings,
)
from moralscope.games.rewards import (
    BETRAYAL_PENALTY,
    ILLEGAL_PENALTY,
    REWARDS,
    Reward,
    expected_rewards,
    get_reward,
)
from moralscope.games.states import STATES, State, transition_matrix, visitation
from moralscope.games.wording import (
    CATEGORIES,
    TABLE_ORDERS,
    Scene,
    TableOrder,
    Wording,
    answer_forms,
    render,
)

__all__ = [
    "ASSIGNMENTS",
    "BETRAYAL_PENALTY",
    "CATEGORIES",
    "CLUSTER_GAMES",
    "GAMES",
    "HELD_OUT",
    "ILLEGAL_PENALTY",
    "LABELS",
    "MOVES",
    "OPPONENTS",
    "PAIRS",
    "REWARDS",
    "STATES",
    "TABLE_ORDERS",
    "WORDINGS",
    "Assignment",
    "Game",
    "Opponent",
    "Reward",
    "Scene",
    "State",
    "TableOrder",
    "Wording",
    "answer_forms",
    "balanced",
    "clusters",
    "expected_rewards",
    "get_game",
    "get_opponent",
    "get_reward",
    "initial_states",
    "payoff",
    "read_prompts",
    "render",
    "scenarios",
    "structured",
    "transition_matrix",
    "visitation",
    "wordings",
    "write_prompts",
]
