"""Did a component change, or only what it is fed? The change of attribution, split in two.

The change from base in a component's contribution to the logit difference is the sum of what its
own new weights do on the base's inputs (*weights*) and of the rest (*input*): other inputs, made
by earlier components that changed, and another norm scale. Both are means over prompts, in nats.

Does not test anything: which sites stand out beyond noise is a matter of the claims.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_sites import DRAWN, Panel, contributions_of, heatmaps, largest
from moralscope.reports.numbers import signed
from moralscope.reports.run import Run

_PARTS = {"weights": "own new weights", "input": "other inputs"}
_ROUNDING = 1e-6
"""Nats below which a mean is rounding, not a part of the change."""


def has_parts(run: Run) -> bool:
    """Whether the change of attribution was asked for."""
    table = run.tables.get("attribution")
    return table is not None and not table.filter(pl.col("part").is_in(list(_PARTS))).is_empty()


def attribution_parts(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """What weights and what inputs changed in each head and MLP, two panels per trained agent."""
    name, title = "attribution_parts", "Attribution: did the component change, or what it is fed?"
    if reason := run.lacks("attribution"):
        return Absent(name, title, reason)
    if not has_parts(run):
        return Absent(name, title, "The table attribution has no rows of the part weights.")
    means = parts_of_change(run)
    agents = [a for a in colours if a in set(means.get_column("agent").to_list())]
    maps: list[Panel] = []
    found: list[str] = []
    for agent in agents:
        own = means.filter(pl.col("agent") == agent)
        pair = [_panel(agent, part, own) for part in _PARTS]
        maps += pair
        found.append(f"{agent}: {_where_weights(own)}; largest {_largest(pair)}.")
    positive, negative = run.option_words
    n_prompts = run.tables["attribution"].get_column("prompt").n_unique()
    return Figure(
        name=name,
        title=title,
        shows="Change from base in what each head and MLP adds to the logit difference, left by "
        "its own new weights on the base's inputs, right by other inputs; mean of "
        f"{n_prompts} prompts. Orange pushes towards {positive}, purple towards {negative}. "
        f"{' '.join(found)}",
        does_not_show="Which earlier component changed an input: paths tell that. A component "
        "whose weights changed may still not matter for the decision, which patching tells.",
        chart=heatmaps(maps, "Mean change in contribution (nats)"),
        tables=("attribution",),
    )


def parts_of_change(run: Run) -> pl.DataFrame:
    """Mean over prompts of both parts: columns agent, part, site, layer, kind, head, value."""
    place = ("agent", "part", "site", "layer", "kind", "head")
    return (
        pl.concat(
            contributions_of(run, part).with_columns(part=pl.lit(part)) for part in _PARTS
        )
        .group_by(*place, maintain_order=True)
        .agg(value=pl.col("contribution").mean())
    )  # fmt: skip


def _panel(agent: str, part: str, own: pl.DataFrame) -> Panel:
    rows = own.filter(pl.col("part") == part)
    total = signed(float(rows.get_column("value").sum()))
    return Panel(f"{agent}: {_PARTS[part]}\nall components together {total} nats", rows)


def _largest(pair: list[Panel]) -> str:
    return largest(pair, [f"by {words}" for words in _PARTS.values()])


def _where_weights(own: pl.DataFrame) -> str:
    """In which layers own weights changed anything, in words."""
    drawn = own.filter(pl.col("part") == "weights", pl.col("kind").is_in(DRAWN))
    moved = drawn.filter(pl.col("value").abs() > _ROUNDING)
    layers: list[int] = moved.get_column("layer").unique().sort().to_list()
    if not layers:
        return "own weights change no head and no MLP"
    runs = listing(_runs(layers), at_most=4)
    word = "layer" if len(layers) == 1 else "layers"
    return f"own weights change {moved.height} of {drawn.height} heads and MLPs, in {word} {runs}"


def _runs(layers: list[int]) -> list[str]:
    """Sorted numbers as runs.

    >>> _runs([0, 1, 2, 5])
    ['0 to 2', '5']
    """
    found: list[list[int]] = []
    for layer in layers:
        if found and layer == found[-1][1] + 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return [str(first) if first == last else f"{first} to {last}" for first, last in found]
