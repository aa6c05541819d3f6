"""Schemas of where agents look: attention by category and by token, and what it is used for.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "attention": (
        "attention mass of a head on a category",
        "agent prompt layer head category",
        """
        agent    | text     | name  | who decides
        prompt   | text     | name  | on what
        layer    | integer  | count | layer
        head     | integer  | count | head
        category | text     | name  | span category, first (the first token, where unused attention goes) or rest
        mass     | number   | share | of the head's attention from the last prompt token; 1 over all categories
        tokens   | integer? | count | tokens of the category in the prompt; 0: named in the prompt, found nowhere; null: not recorded
        """,
    ),
    "attention_tokens": (
        "attention weight of a head on a token of a prompt",
        "agent prompt layer head position",
        """
        agent       | text    | name  | who decides
        prompt      | text    | name  | on what
        layer       | integer | count | layer
        head        | integer | count | head
        position    | integer | count | index of the token in the prompt, from 0
        token       | text    | text  | the characters that it covers; empty for marks that cover none
        category    | text    | name  | as in the table attention
        weight      | number  | share | of the head's attention from the last prompt token; 1 over all tokens
        base_weight | number? | share | the same in the agent's base; null: the agent is the base
        """,
    ),
    "attention_edits": (
        "a decision with attention to some tokens altered",
        "agent prompt category how layers draw",
        """
        agent             | text    | name   | who decides
        prompt            | text    | name   | on what
        category          | text    | name   | span category that the edit is about
        how               | text    | one of | mask (no attention to the tokens) or amplify
        factor            | number  | ratio  | what their weights are multiplied by before all sum to 1 again; 0 for mask
        layers            | text    | list   | at which layers, joined by +, at all their heads; all: every layer
        draw              | integer | count  | -1: the category's own tokens; from 0: as many tokens drawn from the rest
        tokens            | integer | count  | how many tokens the edit is about
        baseline_log_odds | number  | nats   | unaltered
        edited_log_odds   | number  | nats   | with attention from the answer span altered
        effect            | number  | nats   | edited minus baseline
        """,
    ),
}  # fmt: skip
