"""Who decides, and where? Loading, anatomy, the prompt tree, scoring, capture.

Names but those of the libraries are resolved when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# Imported first so that a missing model stack is explained before anything else fails.
from moralscope.models import libraries as libraries

if TYPE_CHECKING:
    from moralscope.models.alignment import Alignment, align
    from moralscope.models.anatomy import Anatomy, Block, dissect
    from moralscope.models.capture import Capture
    from moralscope.models.families import FAMILIES
    from moralscope.models.fingerprint import (
        Fingerprint,
        make_fingerprint,
        read_fingerprint,
        write_fingerprint,
    )
    from moralscope.models.loading import LoadedModel, ModelSource, load_model, locate_model
    from moralscope.models.rendering import EncodedPrompt, encode, encode_all, render, tokens_of
    from moralscope.models.roster import Roster
    from moralscope.models.scoring import Pack, make_packs, score
    from moralscope.models.tables import agents_table, decisions_table, prompts_table
    from moralscope.models.tree import PromptTree
    from moralscope.models.weights import bias_of, effective_weight

_HOMES = {
    "alignment": "Alignment align",
    "anatomy": "Anatomy Block dissect",
    "capture": "Capture",
    "families": "FAMILIES",
    "fingerprint": "Fingerprint make_fingerprint read_fingerprint write_fingerprint",
    "loading": "LoadedModel ModelSource load_model locate_model",
    "rendering": "EncodedPrompt encode encode_all render tokens_of",
    "roster": "Roster",
    "scoring": "Pack make_packs score",
    "tables": "agents_table decisions_table prompts_table",
    "tree": "PromptTree",
    "weights": "bias_of effective_weight",
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "FAMILIES",
    "Alignment",
    "Anatomy",
    "Block",
    "Capture",
    "EncodedPrompt",
    "Fingerprint",
    "LoadedModel",
    "ModelSource",
    "Pack",
    "PromptTree",
    "Roster",
    "agents_table",
    "align",
    "bias_of",
    "decisions_table",
    "dissect",
    "effective_weight",
    "encode",
    "encode_all",
    "load_model",
    "locate_model",
    "make_fingerprint",
    "make_packs",
    "prompts_table",
    "read_fingerprint",
    "render",
    "score",
    "tokens_of",
    "write_fingerprint",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
