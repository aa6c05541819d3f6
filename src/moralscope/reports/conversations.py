"""What did an agent say when it was asked why? Conversations as they are read.

Each answer is divided into its tokens with their probabilities (``reports.tokens``), and its mean
token probability is told:

    mean = (1/n) sum_t P(token t | all before it), the token that ends the answer included.

It says how sure the agent was of its words, not whether they are true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import escape
from pydantic import TypeAdapter, ValidationError

from moralscope.core.errors import TableError
from moralscope.reports.fitting import fair_shares
from moralscope.reports.prompts import unseen_characters
from moralscope.reports.run import Run
from moralscope.reports.tokens import Token, placed

CHARACTERS = 1_000_000
"""Of the page that conversations may take."""

_TOKEN, _TURN = 50, 250
"""Characters around a token, and around a turn."""

_LINE = 80
"""Characters of a decision that stand in a heading."""

_PIECES = TypeAdapter(list[str])
_PROBABILITIES = TypeAdapter(list[float])


@dataclass(frozen=True)
class Turn:
    """What was said in one turn.

    Attributes:
        role, topic, text: from the table.
        unseen: names of characters in it that cannot be seen.
        stem: its beginning that was put in the agent's mouth; empty for most.
        tokens: of an answer; empty where the table has none.
        covered: whether the written tokens joined are the text after ``stem``.
        mean_probability: of the tokens, in [0, 1]; None without tokens.
        n_tokens: how many.
    """

    role: str
    topic: str
    text: str
    unseen: tuple[str, ...]
    stem: str
    tokens: tuple[Token, ...]
    covered: bool
    mean_probability: float | None
    n_tokens: int


@dataclass(frozen=True)
class Conversation:
    """A conversation that began with a prompt."""

    prompt: str
    turns: tuple[Turn, ...]

    @property
    def decision(self) -> str:
        """The first thing that the agent said, in one short line; empty where it said nothing."""
        said = next((turn.text for turn in self.turns if turn.role == "assistant"), "")
        line = " ".join(said.split())
        return line if len(line) <= _LINE else f"{line[: _LINE - 1]}\N{HORIZONTAL ELLIPSIS}"

    @property
    def mean_probability(self) -> float | None:
        """Over the tokens of all answers; None without tokens."""
        known = [(t.mean_probability, t.n_tokens) for t in self.turns]
        tokens = sum(n for mean, n in known if mean is not None)
        total = sum(mean * n for mean, n in known if mean is not None)
        return total / tokens if tokens else None


@dataclass(frozen=True)
class AgentConversations:
    """One agent's conversations: those that are shown, and how many there are in all."""

    agent: str
    total: int
    shown: tuple[Conversation, ...]

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.shown)


def agent_conversations(run: Run, characters: int = CHARACTERS) -> tuple[AgentConversations, ...]:
    """Conversations by agent, in the order of the study, then of the table.

    Args:
        run: without the table ``transcripts`` there are none.
        characters: of the page that they may take; one of each agent is shown in any case.

    Raises:
        TableError: tokens or probabilities are not the lists that their column promises.
    """
    table = run.tables.get("transcripts")
    if table is None:
        return ()
    stems = _stems(run)
    rank = {agent.name: i for i, agent in enumerate(run.agents)}
    held = table.sort("turn", maintain_order=True).partition_by(
        "agent", "prompt", maintain_order=True, as_dict=True
    )
    by_agent: dict[str, list[Conversation]] = {}
    # Sorting by turn keeps the first turns, and with them conversations, in the order of the table.
    for (agent, prompt), rows in held.items():
        turns = tuple(_turn(row, stems.get(prompt, "")) for row in rows.iter_rows(named=True))
        by_agent.setdefault(agent, []).append(Conversation(prompt, turns))
    order = sorted(by_agent, key=lambda name: rank.get(name, len(rank)))
    costs = [[_cost(conversation) for conversation in by_agent[name]] for name in order]
    return tuple(
        AgentConversations(name, len(by_agent[name]), tuple(by_agent[name][:count]))
        for name, count in zip(order, fair_shares(costs, characters), strict=True)
    )


def _stems(run: Run) -> dict[str, str]:
    """What was put in the agent's mouth, by prompt."""
    prompts = run.tables.get("prompts")
    return {} if prompts is None else dict(prompts.select("prompt", "stem").iter_rows())


def _turn(row: Mapping[str, str], stem: str) -> Turn:
    text = row["text"]
    begun = row["role"] == "assistant" and row["topic"] == "decision" and text.startswith(stem)
    stem = stem if begun else ""
    pieces, probabilities = _lists(row)
    tokens = placed(text, len(stem), pieces, probabilities) if pieces else ()
    apart = tuple(Token(piece, p) for piece, p in zip(pieces, probabilities, strict=True))
    return Turn(
        role=row["role"],
        topic=row["topic"],
        text=text,
        unseen=unseen_characters(text),
        stem=stem,
        tokens=apart if tokens is None else tokens,
        covered=tokens is not None,
        mean_probability=sum(probabilities) / len(probabilities) if probabilities else None,
        n_tokens=len(pieces),
    )


def _lists(row: Mapping[str, str]) -> tuple[Sequence[str], Sequence[float]]:
    if not row["tokens"] and not row["probabilities"]:
        return (), ()
    try:
        pieces = _PIECES.validate_json(row["tokens"])
        probabilities = _PROBABILITIES.validate_json(row["probabilities"])
    except ValidationError as cause:
        raise _damaged(row, cause.errors()[0]["msg"]) from cause
    if len(pieces) != len(probabilities):
        raise _damaged(row, f"{len(pieces)} tokens, {len(probabilities)} probabilities")
    if not all(0 <= p <= 1 + 1e-6 for p in probabilities):
        raise _damaged(row, "a probability outside [0, 1]")
    return pieces, probabilities


def _damaged(row: Mapping[str, str], seen: str) -> TableError:
    return TableError(
        "A turn of table 'transcripts' does not hold its tokens",
        seen=f"{row['agent']} on {row['prompt']}, turn {row['turn']}: {seen}",
        allowed="two JSON lists of one length, texts and probabilities, or both empty",
        remedy="run the study again; finished stages are kept",
    )


def _cost(conversation: Conversation) -> int:
    """Characters on the page, about."""
    return sum(
        _TURN + len(escape(turn.text)) * (1 if turn.covered else 2) + _TOKEN * turn.n_tokens
        for turn in conversation.turns
    )


def transcript(conversation: Conversation) -> dict[str, object]:
    """A conversation as a JSON value."""
    return {
        "prompt": conversation.prompt,
        "mean_token_probability": conversation.mean_probability,
        "turns": [
            {
                "role": turn.role,
                "topic": turn.topic,
                "text": turn.text,
                "mean_token_probability": turn.mean_probability,
                "tokens": [token.text for token in turn.tokens],
                "probabilities": [token.probability for token in turn.tokens],
            }
            for turn in conversation.turns
        ],
    }
