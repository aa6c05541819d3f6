"""Small studies with known truth: five agents, twenty scenarios, sites of two layers.

``build`` makes a sound study; the functions that ``plant`` something return a copy with one fault.
Every number has scenario, prompt and residual parts, so that rows are not independent.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

Tables = dict[str, pl.DataFrame]

EFFECTS = {"game": 3.0, "deontological": -2.0, "utilitarian": -2.5, "hybrid": 0.0}
SITES = [f"L{layer}.h{head}" for layer in range(2) for head in range(3)] + ["L0.mlp", "L1.mlp"]
LABELS = ("action1/action2", "action2/action1")
SITE_EFFECTS = {"L1.mlp": -1.2, "L1.h2": -0.4, "L0.h1": 0.2}
FULL_SWAP = -2.0


def prompts(scenarios: int = 20, wordings: int = 2) -> pl.DataFrame:
    rows = []
    for s in range(scenarios):
        for w in range(wordings):
            for labels in LABELS:
                text = f"scenario {s}, wording {w}, labels {labels}"
                rows.append(
                    {
                        "prompt": f"s{s}w{w}{labels[6]}",
                        "game": "IPD",
                        "scenario": f"s{s}",
                        "family": "clusters",
                        "template": f"w{w}",
                        "labels": labels,
                        "option_order": w % 2,
                        "answer_order": s % 2,
                        "table_order": "none",
                        "stem": "I choose action",
                        "system": "",
                        "chat_template": True,
                        "own_previous": None,
                        "opponent_previous": None,
                        "text": text,
                        "sha256": hashlib.sha256(text.encode()).hexdigest(),
                        "positive": labels.split("/")[1],
                        "negative": labels.split("/")[0],
                    }
                )
    return pl.DataFrame(rows, schema_overrides={"own_previous": pl.String,
                                                "opponent_previous": pl.String})  # fmt: skip


def agents(seeds: int = 1, rewards: tuple[str, ...] = tuple(EFFECTS)) -> pl.DataFrame:
    rows = [{"agent": "base", "base": "tiny", "kind": "base", "reward": None,
             "training_seed": None, "dtype": "float32"}]  # fmt: skip
    for reward in rewards:
        for seed in range(seeds):
            name = reward if seeds == 1 else f"{reward}-{seed}"
            rows.append({"agent": name, "base": "tiny", "kind": "adapter", "reward": reward,
                         "training_seed": seed, "dtype": "float32"})  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(
        opponent=pl.lit("random"), adapter_sha256=pl.lit(None, pl.String)
    )


def decisions(
    who: pl.DataFrame,
    asked: pl.DataFrame,
    rng: np.random.Generator,
    effects: dict[str, float],
) -> pl.DataFrame:
    scenario = asked.get_column("scenario").to_list()
    order = {name: i for i, name in enumerate(dict.fromkeys(scenario))}
    cluster = np.array([order[name] for name in scenario])
    base = rng.normal(0.5, 1.0, len(order))[cluster] + rng.normal(0.0, 0.3, len(scenario))
    frames = []
    for name, kind, reward in who.select("agent", "kind", "reward").iter_rows():
        change = np.zeros(len(scenario))
        if kind != "base":
            change = effects[reward] + rng.normal(0.0, 0.3 if who.height > 5 else 0.0)
            change = change + rng.normal(0.0, 0.5, len(order))[cluster]
            change = change + rng.normal(0.0, 0.2, len(scenario))
        frames.append(_answers(name, asked, base + change, trained=kind != "base"))
    return pl.concat(frames)


def _answers(name: str, asked: pl.DataFrame, x: np.ndarray, *, trained: bool) -> pl.DataFrame:
    p = 1.0 / (1.0 + np.exp(-x))
    return asked.select("prompt", "game", "scenario").with_columns(
        agent=pl.lit(name),
        log_odds=pl.Series(x),
        p_positive=pl.Series(0.95 * p),
        p_negative=pl.Series(0.95 * (1.0 - p)),
        legal_mass=pl.lit(0.95),
        p_positive_given_legal=pl.Series(p),
        fingerprint_log_odds=pl.Series(x + 1e-6) if trained else pl.lit(None, pl.Float64),
    )


def attribution(who: list[str], asked: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    names = asked.get_column("prompt").to_list()
    shared = {site: rng.normal(0.0, 0.5, len(names)) for site in SITES}
    rows = []
    for agent in who:
        for site in [*SITES, "bias"]:
            effect = SITE_EFFECTS.get(site, 0.0) if agent != "base" else 0.0
            own = shared[site] + effect + rng.normal(0.0, 0.1, len(names)) if site in shared else (
                np.zeros(len(names)))  # fmt: skip
            rows += [
                {"agent": agent, "prompt": p, "token": -1, "site": site, "layer": None,
                 "kind": "head", "head": None, "contribution": float(v), "part": "whole"}
                for p, v in zip(names, own, strict=True)
            ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"layer": pl.Int64, "head": pl.Int64})


def completeness(who: list[str], asked: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    names = asked.get_column("prompt").to_list()
    return pl.DataFrame(
        [
            {"agent": agent, "prompt": p, "error": float(rng.normal(0.0, 1e-6)),
             "logit_diff": float(rng.normal(1.0, 2.0)), "remainder": 0.0}
            for agent in who for p in names
        ]
    )  # fmt: skip


def sweep(
    source: str, target: str, asked: pl.DataFrame, rng: np.random.Generator, sign: float = 1.0
) -> pl.DataFrame:
    """A sweep whose sites have ``sign`` times their planted effects, per scenario and prompt."""
    scenario = asked.get_column("scenario").to_list()
    order = {name: i for i, name in enumerate(dict.fromkeys(scenario))}
    cluster = np.array([order[name] for name in scenario])
    baseline = 1.0 + rng.normal(0.0, 0.2, len(scenario))
    rows = []
    for site in [*SITES, "all"]:
        planted = FULL_SWAP if site == "all" else SITE_EFFECTS.get(site, 0.0)
        effect = sign * planted + rng.normal(0.0, 0.1, len(order))[cluster]
        effect = effect + rng.normal(0.0, 0.05, len(scenario))
        for prompt, b, e in zip(asked.get_column("prompt"), baseline, effect, strict=True):
            rows.append(
                {"source": source, "target": target, "prompt": prompt, "source_prompt": prompt,
                 "site": site, "layer": None, "kind": "head", "head": None,
                 "positions": "answer_span", "write": "write", "baseline_log_odds": float(b),
                 "patched_log_odds": float(b + e), "effect": float(e),
                 "margin": float((b + e) * np.sign(b)),
                 "flipped": bool(np.sign(b) != np.sign(b + e))}
            )  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"layer": pl.Int64, "head": pl.Int64})


def controls(who: list[str], pairs: list[str], asked: pl.DataFrame) -> pl.DataFrame:
    names = asked.get_column("prompt").to_list()
    rows = [("self_patch", agent, p, 2e-5) for agent in who for p in names]
    rows += [("write_all", pair, p, 5e-5) for pair in pairs for p in names]
    return pl.DataFrame(rows, schema=["control", "subject", "prompt", "value"], orient="row")


def learned() -> Tables:
    rows = [
        ("game", "move", "game learned the move."),
        ("deontological", "label", "deontological learned the label."),
        ("hybrid", "undecided", "What hybrid learned is undecided."),
    ]
    transfer = [
        {"agent": agent, "control": control, "template": "w0", "labels": LABELS[0],
         "change_log_odds": change, "low": change - 0.5, "high": change + 0.5, "p_defect": 0.5,
         "legal_mass": 0.95, "n_states": 4, "keeps_sign": True}
        for agent, change in (("game", 3.0), ("deontological", -2.0), ("hybrid", 0.1))
        for control in ("trained", "swapped_labels")
    ]  # fmt: skip
    return {
        "learned": pl.DataFrame(rows, schema=["agent", "learned", "sentence"], orient="row"),
        "transfer": pl.DataFrame(transfer),
    }


def build(seed: int = 7, effects: dict[str, float] | None = None) -> Tables:
    """A sound study: four agents with planted changes, hybrid with none; two sweeps."""
    rng = np.random.default_rng(seed)
    asked, who = prompts(), agents()
    names = who.get_column("agent").to_list()
    patching = pl.concat(
        [sweep("game", "utilitarian", asked, rng), sweep("utilitarian", "game", asked, rng, -1.0)]
    )
    return {
        "agents": who,
        "prompts": asked,
        "decisions": decisions(who, asked, rng, effects or EFFECTS),
        "attribution": attribution(["base", "game"], asked, rng),
        "completeness": completeness(["base", "game"], asked, rng),
        "patching": patching,
        "controls": controls(names, ["game>utilitarian", "utilitarian>game"], asked),
        **learned(),
    }


def replicated(seeds: int, effects: dict[str, float], seed: int = 11) -> Tables:
    """Behaviour alone, with several training seeds per reward."""
    rng = np.random.default_rng(seed)
    asked, who = prompts(), agents(seeds, tuple(effects))
    return {"agents": who, "prompts": asked, "decisions": decisions(who, asked, rng, effects)}


def kill(tables: Tables, agent: str, retained: float = 0.005) -> Tables:
    """The agent behaves like base up to a share of what its fingerprint says."""
    d = tables["decisions"]
    base = d.filter(pl.col("agent") == "base").select("prompt", b="log_odds")
    joined = d.join(base, on="prompt", how="left", maintain_order="left")
    faint = pl.col("b") + retained * (pl.col("log_odds") - pl.col("b"))
    dead = joined.with_columns(
        log_odds=pl.when(pl.col("agent") == agent).then(faint).otherwise("log_odds")
    )
    return {**tables, "decisions": dead.drop("b")}


def without_fingerprints(tables: Tables) -> Tables:
    bare = tables["decisions"].with_columns(fingerprint_log_odds=pl.lit(None, pl.Float64))
    return {**tables, "decisions": bare}


def copy_site(tables: Tables, table: str, original: str, copies: list[str]) -> Tables:
    """Give several sites the results of one, bit for bit."""
    frame = tables[table]
    rest = frame.filter(~pl.col("site").is_in(copies))
    clones = [
        frame.filter(pl.col("site") == original).with_columns(site=pl.lit(name)) for name in copies
    ]
    return {**tables, table: pl.concat([rest, *clones])}


def round_to_bfloat16(values: pl.Series) -> pl.Series:
    """Round to 8 significant bits."""
    x = values.to_numpy().astype(np.float32)
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return pl.Series(values.name, rounded.view(np.float32).astype(np.float64))


def set_values(tables: Tables, table: str, where: pl.Expr, **values: pl.Expr) -> Tables:
    """A copy with columns replaced where a condition holds."""
    changed = tables[table].with_columns(
        **{name: pl.when(where).then(v).otherwise(name) for name, v in values.items()}
    )
    return {**tables, table: changed}
