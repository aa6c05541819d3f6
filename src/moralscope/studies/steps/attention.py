"""How are the stages of attention computed? One agent's masses, tokens and edits.

They take the context of ``steps.context``.
"""

from __future__ import annotations

from moralscope.core.site import Site, parse_site
from moralscope.core.tables import write_table
from moralscope.mechanisms.attention.categories import named_categories
from moralscope.mechanisms.attention.edits import Editing, attention_edits_table
from moralscope.mechanisms.attention.tables import (
    attention_table,
    attention_tokens_table,
    most_moved,
)
from moralscope.mechanisms.attention.weights import Weights, attention_weights
from moralscope.models.roster import Roster
from moralscope.studies.catalogue import mechanism_prompts
from moralscope.studies.steps.context import Context, Step
from moralscope.studies.study import Study, base_name


def editing(study: Study) -> Editing | None:
    """The edits that a study asks for; None for none."""
    chosen = study.mechanisms.attention
    if not chosen.edits:
        return None
    factors = (0.0,) if chosen.amplify is None else (0.0, chosen.amplify)
    # Not the study's seed: the control of one agent must not depend on how another trained.
    return Editing(factors, chosen.draws, chosen.layers, seed=0)


def attend(name: str) -> Step:
    """Where one agent looks, token by token at chosen heads, and what it uses of it."""

    def step(context: Context) -> None:
        bench, study = context.bench, context.bench.study
        named = named_categories(mechanism_prompts(study))
        roster = bench.roster([name], context.trained)
        own = _weights(context, roster, name)
        prompts = bench.clean_run(name, context.trained).prompts
        write_table("attention", attention_table(name, prompts, own, named), context.out)
        base = None
        if name != base_name(study):
            roster = bench.roster([base_name(study)], context.trained)
            base = _weights(context, roster, base_name(study))
        chosen, heads = study.mechanisms.attention.heads, tuple[Site, ...]()
        if not isinstance(chosen, int):
            heads = tuple(parse_site(head) for head in chosen)
        elif base is not None:
            heads = most_moved(prompts, own, base, chosen)
        tokens = attention_tokens_table(name, prompts, own, heads, base)
        write_table("attention_tokens", tokens, context.out)
        wanted = editing(study)
        if wanted is not None:
            with roster.speaking(name) as model:
                edits = attention_edits_table(
                    model,
                    roster.anatomy(name),
                    bench.clean_run(name, context.trained),
                    wanted,
                    named=named,
                    progress=context.progress,
                )
            write_table("attention_edits", edits, context.out)

    return step


def _weights(context: Context, roster: Roster, name: str) -> tuple[Weights, ...]:
    run = context.bench.clean_run(name, context.trained)
    with roster.speaking(name) as model:
        return attention_weights(model, roster.anatomy(name), run)
