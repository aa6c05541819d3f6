"""Which stages measure attention? One per agent."""

from __future__ import annotations

from collections.abc import Mapping

from moralscope.core.errors import ConfigError, SiteError
from moralscope.core.site import Site, parse_site
from moralscope.models.loading import ModelSource
from moralscope.studies.catalogue import digest, mechanism_prompts
from moralscope.studies.estimating.shape import shape_of
from moralscope.studies.planning.planner import Inputs, Planner
from moralscope.studies.steps import attention
from moralscope.studies.study import Study, base_name, inside


def add_attention(plan: Planner, agents: Mapping[str, Inputs]) -> list[str]:
    """A stage for each agent that is looked inside.

    Raises:
        ConfigError: a head or layer that is named does not exist.
    """
    study = plan.study
    if "attention" not in study.mechanisms.methods:
        return []
    check_attention(study, plan.source)
    base = base_name(study)
    added: list[str] = []
    for name in inside(study):
        inputs: dict[str, object] = {
            "prompts": digest(mechanism_prompts(study)),
            **plan.compute,
            **agents[name],
            "base": agents[base],
            "attention": study.mechanisms.attention.model_dump(mode="json"),
        }
        step = attention.attend(name)
        needs = plan.trained(name)
        added.append(plan.add(f"attend-{name}", ("mechanisms", "attend"), inputs, needs, step))
    return added


def check_attention(study: Study, source: ModelSource) -> None:
    """Refuse heads and layers that the model does not have.

    Raises:
        ConfigError: names the first of them.
    """
    chosen = study.mechanisms.attention
    heads = () if isinstance(chosen.heads, int) else chosen.heads
    layers = chosen.layers or ()
    if not heads and not layers:
        return
    sizes = shape_of(study, source).sizes
    last = f"layers 0 to {sizes.n_layers - 1}, heads 0 to {sizes.n_heads - 1}"
    known = {
        Site("head", at, head) for at in range(sizes.n_layers) for head in range(sizes.n_heads)
    }
    wrong = [f"heads: {head}" for head in heads if _site(head) not in known]
    wrong += [f"layers: {at}" for at in layers if at >= sizes.n_layers]
    if wrong:
        raise ConfigError(
            "Attention is asked for where the model has none",
            seen=wrong[0],
            allowed=f"heads such as L0.h0, and layers by number: {last}",
            remedy="correct mechanisms: attention in the study file",
        )


def _site(name: str) -> Site | None:
    try:
        return parse_site(name)
    except SiteError:
        return None
