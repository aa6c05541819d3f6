"""Which study shows everything? The demo: five agents, every method, in minutes."""

from __future__ import annotations

from moralscope.studies.study import AgentEntry, MechanismChoice, Study


def demo_study() -> Study:
    """The main job on the small default model: five agents, every method, in minutes.

    Agents are trained under both label assignments: with fixed labels a small model learns to
    say a label.
    """
    return Study(
        name="demo",
        agents={
            "base": AgentEntry(),
            "game": AgentEntry(reward="game"),
            "deontological": AgentEntry(reward="deontological"),
            "utilitarian": AgentEntry(reward="utilitarian"),
            "hybrid": AgentEntry(reward="hybrid"),
        },
        training={"steps": 25, "labels": "both", "compute_dtype": "bfloat16"},
        mechanisms=MechanismChoice(
            pairs=(
                ("base", "game"),
                ("base", "deontological"),
                ("base", "utilitarian"),
                ("base", "hybrid"),
                ("game", "utilitarian"),
                ("utilitarian", "game"),
            )
        ),
    )
