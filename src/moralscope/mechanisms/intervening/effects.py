"""How much does the decision need each site? Effects of ablations, as a table.

With ``f`` the log-odds of the decision on a prompt,

    effect(s) = f(a(s) := v) - f        v = 0, mean(s) or a_p'(s)        (Chan et al. 2022)

Each site is ablated on its own, with one tree forward a site and pack under ``ablation.ablate``:
simple, and the same for every decoder. Exhaustive sweeps at the answer span, where rows share their
prefix, are the business of ``patching.sweeps``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError, ConfigError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.intervening.ablation import How, ablatable, ablate
from moralscope.mechanisms.intervening.placements import check_anatomy
from moralscope.mechanisms.intervening.values import (
    SiteValues,
    draw_other,
    mean_activations,
    prompt_activations,
)
from moralscope.models.anatomy import Anatomy
from moralscope.models.scoring import Pack, make_packs, option_log_probabilities

Where = Literal["all", "answer_span"]

_TOLERANCE = 1e-2
"""How far a model's log-odds may be from its clean run's: far above rounding."""


@torch.no_grad()
def ablation_table(
    model: nn.Module,
    anatomy: Anatomy,
    run: CleanRun,
    sites: Site | str | Iterable[Site | str],
    how: How,
    *,
    values: SiteValues | None = None,
    positions: Where = "all",
    generator: np.random.Generator | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``ablation``: the effect of ablating each site on each prompt.

    One tree forward a site and pack for ``zero`` and ``mean``. With ``resample`` each prompt has a
    donor of its own, the same for every site, so prompts are run apart: sites x prompts forwards.

    Args:
        model: the agent, its weights in force.
        anatomy: its parts.
        run: its clean run.
        sites: which, each on its own.
        how: ``zero``, ``mean`` or ``resample``.
        values: what goes in for ``mean``; the means of ``run`` unless given.
        positions: ``all`` tokens, or the ``answer_span`` alone.
        generator: for ``resample``, of the draw of donors.
        progress: called after each site.

    Raises:
        AgentError: the model does not decide as its clean run did; a donor cannot be drawn.
        ConfigError: ``how`` or ``positions`` is not understood; a generator is given for another
            ``how`` than ``resample`` or lacking there; values are given for another than ``mean``.
        SiteError, ModelError: as ``ablate``.
    """
    _check_wanted(how, values, positions, generator)
    check_anatomy(model, anatomy)
    chosen = ablatable(anatomy, sites)
    _refuse_other_agent(model, run)
    put, donors = _donors(anatomy, run, how, values, generator)
    packs = _packs(run, apart=how == "resample" or (positions == "answer_span" and _nested(run)))
    baseline = _log_odds(model, packs, len(run.prompts))
    rows: list[dict[str, object]] = []
    for done, site in enumerate(chosen, start=1):

        def inside(members: Sequence[int], pack: Pack, site: Site = site) -> Tensor:
            at = "all" if positions == "all" else pack.keep.tolist()
            with ablate(model, anatomy, site, how=how, values=put[members[0]], positions=at):
                return option_log_probabilities(model, pack)

        ablated = _log_odds(model, packs, len(run.prompts), inside)
        rows += [
            {
                "agent": run.agent,
                "prompt": prompt.name,
                "how": how,
                "positions": positions,
                "donor": donors[index],
                **_effect(site, float(baseline[index]), float(ablated[index])),
            }
            for index, prompt in enumerate(run.prompts)
        ]
        progress(ProgressEvent(f"ablate {run.agent}", done, len(chosen)))
    return from_rows("ablation", rows)


def _check_wanted(
    how: str,
    values: SiteValues | None,
    positions: str,
    generator: np.random.Generator | None,
) -> None:
    known = how in get_args(How) and positions in get_args(Where)
    stray = values is not None and how != "mean"
    if not known or stray or (how == "resample") != (generator is not None):
        given = [n for n, x in (("values", values), ("generator", generator)) if x is not None]
        raise ConfigError(
            "An ablation table cannot be made so",
            seen=f"how={how!r}, positions={positions!r}, {' and '.join(given) or 'nothing'} given",
            allowed="how zero, mean or resample; positions all or answer_span; values for mean "
            "alone, a generator for resample alone",
            remedy="give generator=stream(seed, 'ablation') with resample, none otherwise",
        )


def _effect(site: Site, before: float, after: float) -> dict[str, object]:
    """What ablating a site did, in nats towards the positive option."""
    return {
        "site": str(site),
        "layer": site.layer,
        "kind": site.kind,
        "head": site.head,
        "baseline_log_odds": before,
        "ablated_log_odds": after,
        "effect": after - before,
        "flipped": (after > 0) != (before > 0),
    }


def _donors(
    anatomy: Anatomy,
    run: CleanRun,
    how: How,
    values: SiteValues | None,
    generator: np.random.Generator | None,
) -> tuple[list[SiteValues | None], list[str | None]]:
    """What goes in on each prompt, and the prompt that it is from where there is one."""
    n = len(run.prompts)
    if generator is not None:
        by_prompt = prompt_activations(run, anatomy)
        drawn = [by_prompt[draw_other(run, generator, index)] for index in range(n)]
        return list(drawn), [one.origin for one in drawn]
    if how == "mean" and values is None:
        values = mean_activations(run, anatomy)
    return [values] * n, [None] * n


def _packs(run: CleanRun, *, apart: bool) -> list[tuple[tuple[int, ...], Pack]]:
    """Packs to run, with the indices of their prompts."""
    if not apart:
        return [(part.pack.members, part.pack) for part in run.packs]
    return [((i,), make_packs([prompt])[0]) for i, prompt in enumerate(run.prompts)]


def _nested(run: CleanRun) -> bool:
    """Whether an answer span lies inside another prompt of its pack."""
    for part in run.packs:
        pack = part.pack
        for path, option in zip(pack.tree.paths, pack.option, strict=True):
            prompt = run.prompts[pack.members[int(option) // 2]]
            if np.isin(path[: len(prompt.tokens) - 1], pack.keep).any():
                return True
    return False


def _log_odds(
    model: nn.Module,
    packs: Sequence[tuple[tuple[int, ...], Pack]],
    n: int,
    score: Callable[[Sequence[int], Pack], Tensor] | None = None,
) -> Tensor:
    """Log-odds of all prompts, ``(n,)``, float64."""
    result = torch.empty(n, dtype=torch.float64)
    for members, pack in packs:
        found = option_log_probabilities(model, pack) if score is None else score(members, pack)
        result[list(members)] = (found[:, 0] - found[:, 1]).double().cpu()
    return result


def _refuse_other_agent(model: nn.Module, run: CleanRun) -> None:
    """An ablation of one agent with the means of another is easily made and hard to see."""
    found = _log_odds(model, _packs(run, apart=False), len(run.prompts))
    off = (found - run.log_odds.double()).abs()
    if bool((off > _TOLERANCE * run.log_odds.abs().clamp(min=1.0)).any()):
        raise AgentError(
            "The model does not decide as its clean run did",
            seen=f"log-odds {float(off.max()):.3g} nats apart, clean run of {run.agent!r}",
            allowed="the weights that the clean run was made with",
            remedy=f"do this inside roster.speaking({run.agent!r})",
        )
