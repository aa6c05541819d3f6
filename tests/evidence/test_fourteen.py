"""Fourteen ways in which findings of this kind went wrong: each planted, each caught.

And the same tables without the plant: two hundred sound studies without any effect, in which no
gate may fail, no statement may be called what a plant makes of it, and claims may be supported no
more often than their level allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import fourteen
import numpy as np
import polars as pl
import pytest
import synthetic
from fourteen import SITES

from moralscope.evidence.claims import FINDERS, judge_findings, setting_of
from moralscope.evidence.findings.rewards import reward_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Hypothesis, not_registered
from moralscope.evidence.hypotheses.judging import hypothesis_findings
from moralscope.evidence.judged import claim_rows

Tables = synthetic.Tables
PAIR = ["game", "utilitarian"]
LEVEL = 0.05
RUNS = 200
ALLOWED = LEVEL + 3.0 * (LEVEL * (1.0 - LEVEL) / RUNS) ** 0.5
ARTEFACT, NOT_IDENTIFIED = "artefact", "not identified by this design"

STATEMENTS: dict[str, dict[str, object]] = {
    "pathway": {"quantity": "pathway_difference", "sites": ["L0.h0", "L0.h1"], "tables": ["norms"],
                "published": 0.5},
    "printed": {"quantity": "pathway_difference", "sites": ["L0.h0", "L0.h1"],
                "tables": ["interactions"], "published": 0.5, "n": 20},
    "count": {"quantity": "significant_count", "tables": ["patching"], "published": 3},
    "alike": {"quantity": "similarity", "tables": ["decisions"], "published": 0.9999},
    "opposite": {"quantity": "asymmetry_share", "published": 0.78},
    "zero": {"quantity": "zero_flips", "published": 0},
    "together": {"quantity": "analyses_correlation", "tables": ["attribution", "patching"],
                 "published": 0.8},
}  # fmt: skip


LOOKED_FOR = ("behaviour", "patching", "attribution", "wiring")
"""What the plants show in; rewards have tables of their own."""


def change(tables: Tables, table: str, where: pl.Expr, **values: pl.Expr) -> Tables:
    return synthetic.set_values(tables, table, where, **values)


def dead_adapter(tables: Tables) -> Tables:
    """Both adapters do a two-hundredth of what they did when they were trained."""
    return synthetic.kill(synthetic.kill(tables, "game"), "utilitarian")


def cloned_components(tables: Tables) -> Tables:
    """One effective site is counted under five names."""
    loud = _shifted(tables, "game", {"L1.mlp": -1.0})
    return synthetic.copy_site(loud, "patching", "L1.mlp", list(SITES[:4]))


def cloned_prompts(tables: Tables) -> Tables:
    """The second wording of every scenario is the text of the first."""
    first = tables["prompts"].filter(pl.col("template") == "w0")
    text = first.select("scenario", same_text="text", same_sha="sha256")
    cloned = tables["prompts"].join(text, on="scenario", how="left", maintain_order="left")
    return {
        **tables,
        "prompts": cloned.with_columns(text="same_text", sha256="same_sha").drop(
            "same_text", "same_sha"
        ),
    }


def rounded_norms(tables: Tables) -> Tables:
    """Stored in bfloat16, two components take two values, apart in one prompt only."""
    values = pl.when(pl.col("prompt") == "s3w0").then(12.0625).otherwise(12.0)
    where = (pl.col("agent") == "game") & pl.col("site").is_in(["L0.h0", "L0.h1"])
    return change(tables, "norms", where, norm=values)


def undefined_as_zero(tables: Tables) -> Tables:
    """A component that does not vary has no correlations, and they were stored as 0."""
    where = (pl.col("agent") == "game") & (pl.col("site") == "L0.h0")
    flat = change(tables, "norms", where, norm=pl.lit(12.0))
    printed = fourteen.interactions(flat["norms"]).with_columns(pl.col("value").fill_null(0.0))
    return {**flat, "interactions": printed}


def degenerate_correlation(tables: Tables) -> Tables:
    """Two components of two values each correlate perfectly."""
    high = pl.col("prompt").str.ends_with("w1")
    where = pl.col("agent") == "game"
    for site, low, step in (("L0.h0", 12.0, 0.7), ("L0.h1", 9.0, 0.4)):
        values = low + pl.when(high).then(step).otherwise(0.0)
        tables = change(tables, "norms", where & (pl.col("site") == site), norm=values)
    return {**tables, "interactions": fourteen.interactions(tables["norms"])}


def one_seed(tables: Tables) -> Tables:
    """One training run per reward stands for the reward."""
    kept = tables["agents"].filter((pl.col("kind") == "base") | (pl.col("training_seed") == 0))
    return {name: frame.join(kept.select("agent"), on="agent", how="semi")
            if "agent" in frame.columns else frame for name, frame in tables.items()}  # fmt: skip


def five_scenarios(tables: Tables) -> Tables:
    """Too few scenarios for any p below .05."""
    kept = tables["prompts"].filter(pl.col("scenario").is_in([f"s{i}" for i in range(5)]))
    return {name: frame.join(kept.select("prompt"), on="prompt", how="semi")
            if "prompt" in frame.columns else frame for name, frame in tables.items()}  # fmt: skip


def magnitude_as_asymmetry(tables: Tables) -> Tables:
    """A symmetric model: equal and opposite effects at every site."""
    sizes = dict(zip(SITES, (0.6, -0.5, 0.7, -0.8, 0.5, -0.6), strict=True))
    ahead = _shifted(tables, "game", sizes)
    return _shifted(ahead, "utilitarian", {site: -size for site, size in sizes.items()})


def zero_flips(tables: Tables) -> Tables:
    """The prompts are so clear that swapping everything flips nothing."""
    rows = tables["patching"].select("source", "target", "prompt", "site", "effect")
    far = fourteen.patched(rows).with_columns(
        baseline_log_odds=pl.lit(9.0), patched_log_odds=9.0 + pl.col("effect"),
        margin=9.0 + pl.col("effect"), flipped=pl.lit(value=False),
    )  # fmt: skip
    return {**tables, "patching": far}


def dead_detector(tables: Tables) -> Tables:
    """A category of attention that is exactly zero in every row."""
    return change(tables, "attention", pl.col("category") == "payoffs", mass=pl.lit(0.0))


def wrong_position(tables: Tables) -> Tables:
    """The last position of prompt and answer together is patched."""
    return change(tables, "patching", pl.lit(value=True), first_patched=pl.lit(43, pl.Int64))


def parts_that_do_not_sum(tables: Tables) -> Tables:
    """Normalised part by part, the contributions miss the logit difference."""
    return change(tables, "completeness", pl.col("agent") == "game", error=pl.lit(-1.3))


def wrong_metric(tables: Tables) -> Tables:
    """Sampled answers are not what the log-odds state."""
    where = pl.col("agent") == "game"
    return change(tables, "metric_agreement", where, observed=pl.lit(0.15), low=pl.lit(-0.5),
                  high=pl.lit(-0.4), p=pl.lit(1e-12))  # fmt: skip


def _shifted(tables: Tables, source: str, sizes: dict[str, float]) -> Tables:
    """Effects of single sites out of one agent, moved by these amounts."""
    rows = tables["patching"]
    wanted = pl.col("site").replace_strict(sizes, default=0.0, return_dtype=pl.Float64)
    moved = rows.select(
        "source", "target", "prompt", "site",
        effect=pl.col("effect") + pl.when(pl.col("source") == source).then(wanted).otherwise(0.0),
    )  # fmt: skip
    return {**tables, "patching": fourteen.patched(moved)}


@dataclass(frozen=True)
class Plant:
    """A fault, and where it must show.

    Attributes:
        plant: what it makes of sound tables.
        gates: (gate, subject, part of its advice) that must fail.
        claims: (id, verdict, part of its reason) that must come out.
        said: changes to the statements that are re-tested.
    """

    plant: Callable[[Tables], Tables]
    gates: tuple[tuple[str, str, str], ...] = ()
    claims: tuple[tuple[str, str, str], ...] = ()
    said: tuple[tuple[str, str, object], ...] = ()


FLOOR = "with 5 scenarios no data can give a p below 0.0625"
SWEEP = "patching game>utilitarian"
PLANTS = {
    "dead adapter": Plant(
        dead_adapter,
        (("liveness", "game", "does only 0.5% of what it did"),),
        (("change:game", ARTEFACT, "liveness (game)"),
         ("hypothesis:alike", ARTEFACT, "ad the adapter un-merged")),
    ),
    "cloned components": Plant(
        cloned_components,
        (("duplicates", SWEEP, "5 sites are clones"),),
        (("patching:game>utilitarian", ARTEFACT, "no single one of them is located"),
         ("hypothesis:count", ARTEFACT, "4 are copies of another measurement")),
        (("count", "published", 5),),
    ),
    "cloned prompts": Plant(
        cloned_prompts,
        (("duplicates", "prompts", "10 of 20 prompts repeat the text of another"),),
    ),
    "resolution": Plant(
        rounded_norms,
        (("resolution", "norms game", "Rounding: 2 of 6 sites"),),
        (("hypothesis:pathway", ARTEFACT, "L0.h0 varies by no more than rounding"),),
    ),
    "undefined as zero": Plant(
        undefined_as_zero,
        (("undefined values", "interactions game", "which is not available and never 0"),),
    ),
    "degenerate correlation": Plant(
        degenerate_correlation,
        (("degenerate correlations", "interactions game", "have |r| above 0.999"),),
        (("hypothesis:printed", ARTEFACT, "degenerate correlations (game): |r| of L0.h0"),),
    ),
    "unreachable p": Plant(
        five_scenarios, (), (("difference:game:utilitarian", NOT_IDENTIFIED, FLOOR),)
    ),
    "magnitude as asymmetry": Plant(
        magnitude_as_asymmetry, (),
        (("hypothesis:opposite", ARTEFACT, "opposite signs are symmetry, not asymmetry"),),
    ),
    "zero flips": Plant(
        zero_flips, (),
        (("flips:game>utilitarian", NOT_IDENTIFIED, "swapping everything flips nothing either"),
         ("hypothesis:zero", NOT_IDENTIFIED, "swapping everything flips nothing either")),
    ),
    "dead detector": Plant(
        dead_detector, (("dead channel", "game", "No head ever attends to payoffs"),)
    ),
    "wrong position": Plant(
        wrong_position,
        (("position", SWEEP, "start at or after the first scored token"),),
        (("patching:game>utilitarian", ARTEFACT, "cannot act on what predicts it"),
         ("hypothesis:count", ARTEFACT, "position")),
    ),
    "parts that do not sum": Plant(
        parts_that_do_not_sum,
        (("completeness", "game", "The parts miss the logit difference"),),
        (("attribution:game", ARTEFACT, "no share of it can be trusted"),
         ("hypothesis:together", ARTEFACT, "no share of it can be trusted")),
    ),
    "wrong metric": Plant(
        wrong_metric,
        (("metric agreement", "game structured strict", "Sampled answers refute the log-odds"),),
        (("change:game", ARTEFACT, "no claim about log-odds"),),
    ),
}  # fmt: skip
"""All but the wrong n, which needs training seeds: see below."""


def judged(
    tables: Tables, said: tuple[tuple[str, str, object], ...] = ()
) -> tuple[pl.DataFrame, dict[str, dict[str, object]]]:
    """Gates, and claims with the published statements among them, by id."""
    statements = {name: {"agents": PAIR, **fields} for name, fields in STATEMENTS.items()}
    for name, field, value in said:
        statements[name][field] = value
    hypotheses = [Hypothesis.model_validate({"id": n, **f}) for n, f in statements.items()]
    gates = judge_gates(tables)
    setting = setting_of({**tables, "gates": gates}, draws=199)
    findings = hypothesis_findings(setting, not_registered(hypotheses, "published"))
    claims = judge_findings(
        setting, [*findings, *(f for k in LOOKED_FOR for f in FINDERS[k](setting))]
    )
    return gates, {row["id"]: row for row in claims.iter_rows(named=True)}


def advice(gates: pl.DataFrame, gate: str, subject: str) -> tuple[bool | None, str]:
    row = gates.filter((pl.col("gate") == gate) & (pl.col("subject") == subject))
    assert row.height == 1, (gate, subject)
    return row["passed"][0], row["advice"][0]


@pytest.fixture(scope="module")
def sound() -> Tables:
    return fourteen.study(3)


@pytest.mark.parametrize("name", PLANTS)
def test_the_plant_is_caught_with_its_own_message(sound: Tables, name: str) -> None:
    plant = PLANTS[name]
    gates, claims = judged(plant.plant(sound), plant.said)
    for gate, subject, message in plant.gates:
        passed, words = advice(gates, gate, subject)
        assert passed is False
        assert message in words
    for claim, verdict, message in plant.claims:
        assert claims[claim]["verdict"] == verdict, claims[claim]["statement"]
        assert message in str(claims[claim]["reason"])


def test_without_a_plant_nothing_is_blamed(sound: Tables) -> None:
    gates, claims = judged(sound)
    assert gates.filter(~pl.col("passed")).is_empty()
    for name, plant in PLANTS.items():
        assert not caught(plant, claims), name


def caught(plant: Plant, claims: dict[str, dict[str, object]]) -> bool:
    """Whether any claim says what a plant makes it say."""
    return any(
        claims[claim]["verdict"] == verdict and message in str(claims[claim]["reason"])
        for claim, verdict, message in plant.claims
    )


def test_every_plant_has_a_message_of_its_own() -> None:
    messages = {(p.gates[0] if p.gates else p.claims[0])[2] for p in PLANTS.values()}
    assert len(messages) == len(PLANTS) == 13
    assert not any(a != b and a in b for a in messages for b in messages)


def rewarded(seed: int, seeds: int = 7) -> Tables:
    """Two rewards without effect on average, each trained with several seeds."""
    rng = np.random.default_rng(seed)
    study = fourteen.study(seed)
    names = [(r, s) for r in PAIR for s in range(seeds)]
    who = [{"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"}]
    who += [{"agent": f"{r}-{s}", "base": "tiny", "kind": "adapter", "reward": r,
             "training_seed": s, "dtype": "float32"} for r, s in names]  # fmt: skip
    base = study["decisions"].filter(pl.col("agent") == "base")
    frames = [base]
    for reward, training_seed in names:
        moved = rng.normal(0.0, 0.8) + fourteen.noise(rng, 1, 0.4, 0.1)[:, 0]
        x = base["log_odds"] + pl.Series(moved)
        frames.append(
            base.with_columns(
                agent=pl.lit(f"{reward}-{training_seed}"), log_odds=x, fingerprint_log_odds=x + 1e-6
            )
        )
    agents = pl.DataFrame(who, infer_schema_length=None).with_columns(
        opponent=pl.lit("random"), adapter_sha256=pl.lit(None, pl.String)
    )
    return {"agents": agents, "prompts": study["prompts"], "decisions": pl.concat(frames)}


def rewards(tables: Tables, gates: pl.DataFrame | None = None) -> dict[str, dict[str, object]]:
    gates = judge_gates(tables) if gates is None else gates
    setting = setting_of({**tables, "gates": gates}, draws=199)
    rows = claim_rows(setting, list(reward_findings(setting)))
    return {str(row["id"]): row for row in rows}


def test_one_seed_per_reward_is_the_wrong_n() -> None:
    """The fourteenth: however many prompts, one training run says nothing of the reward."""
    claims = rewards(one_seed(rewarded(3)))
    for claim in ("reward:game", "reward:utilitarian", "rewards:game:utilitarian"):
        assert claims[claim]["verdict"] == NOT_IDENTIFIED
        assert "replicated over training seeds" in str(claims[claim]["reason"])


@pytest.mark.slow
def test_sound_studies_raise_no_alarm() -> None:
    """Two hundred of them: no gate fails, no statement is blamed, claims keep their level."""
    rejected: Counter[str] = Counter()
    blamed: Counter[str] = Counter()
    for seed in range(RUNS):
        gates, claims = judged(fourteen.study(1000 + seed))
        failed = gates.filter(~pl.col("passed")).select("gate", "subject").rows()
        assert not failed, (seed, failed)
        for name, plant in PLANTS.items():
            blamed[name] += caught(plant, claims)
        for claim in claims.values():
            # Counts of flips rest on no p; that agents differ by more than a margin is true here.
            if claim["p_adjusted"] is not None and claim["id"] != "hypothesis:alike":
                rejected[str(claim["id"])] += claim["p_adjusted"] < LEVEL
                assert claim["verdict"] != "supported" or claim["p_adjusted"] < LEVEL
    assert all(times <= RUNS * ALLOWED for times in blamed.values()), blamed
    assert all(times <= RUNS * ALLOWED for times in rejected.values()), rejected
    assert len(rejected) > 10


@pytest.mark.slow
def test_rewards_without_effect_raise_no_alarm() -> None:
    """Two hundred of them: identified every time, supported no more often than allowed."""
    supported: Counter[str] = Counter()
    gates = judge_gates(rewarded(5000))
    assert gates.filter(~pl.col("passed")).is_empty()
    for seed in range(RUNS):
        for name, claim in rewards(rewarded(5000 + seed), gates).items():
            assert claim["verdict"] != NOT_IDENTIFIED
            supported[name] += claim["verdict"] == "supported"
    assert all(times <= RUNS * ALLOWED for times in supported.values()), supported
