"""Study files: what is wrong is said with its place, and what is right reads back equal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from moralscope.core.errors import ConfigError, MoralscopeError
from moralscope.studies import Study, demo_study, make_plan, read_study
from moralscope.studies.study import agent_spec, patched_pairs, study_yaml, training_config

StudyOf = Callable[..., Study]
BASE = "agents:\n  base: {}\n"


def refusal(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_study(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem", "next_step"),
    [
        ("agnets:\n  base: {}\n", "no key 'agnets' in mine.yaml", "did you mean 'agents'"),
        ("agents:\n  base: {}\n  a: {rewrad: game}\n", "no key 'agents.a.rewrad' in mine.yaml",
         "did you mean 'reward'"),
        (BASE + "prompts: {wordngs: []}\n", "no key 'prompts.wordngs'", "did you mean 'wordings'"),
        (BASE + "mechanisms: {scenario: 4}\n", "no key 'mechanisms.scenario'",
         "did you mean 'scenarios'"),
        (BASE + "evidence: {draw: 99}\n", "no key 'evidence.draw'", "did you mean 'draws'"),
        ("agents:\n  base: {}\n  a: {reward: game}\ntraining: {stesp: 3}\n",
         "no key 'stesp' in the training of agent 'a'", "did you mean 'steps'"),
        ("agents:\n  base: {}\n  a: {reward: game, training: {lora: {rnak: 3}}}\n",
         "no key 'lora.rnak' in the training of agent 'a'", "did you mean 'rank'"),
        ("agents:\n  base: {}\n  a: {reward: utilitarain}\n",
         "reward of agent 'a' cannot be used: There is no reward of this name",
         "did you mean 'utilitarian'"),
        ("agents:\n  base: {}\n  a: {reward: game then spite(wieght=2)}\n",
         "reward of agent 'a' cannot be used: The reward 'spite' has no such setting",
         "did you mean 'weight'"),
        ("agents:\n  base: {}\n  a: {reward: game, opponent: tit-for-tot}\n",
         "no opponent of this name", "did you mean 'tit-for-tat'"),
        (BASE + "prompts: {wordings: [markt]}\n", "no such wording", "did you mean 'market'"),
        (BASE + "prompts: {wordings: [market-mirored]}\n", "no such wording",
         "did you mean 'market-mirrored'"),
        ("agents:\n  base: {}\n  a: {reward: game}\nmechanisms: {pairs: [[base, gme]]}\n",
         "pair names an agent that the study does not have. Seen: base into gme", "Next: "),
        ("agents:\n  base: {}\n  a: {reward: game}\nmechanisms: {pairs: [[base, a, a]]}\n",
         "value of 'mechanisms.pairs.0' in mine.yaml cannot be used", "correct the value"),
        ("agents:\n  base: {}\n  other: {}\n", "exactly one base agent. Seen: 2: base, other",
         "remove the others"),
        ("agents:\n  a: {reward: game}\n", "exactly one base agent. Seen: 0: none",
         "add 'base: {}' under agents"),
        ("agents: {}\n", "value of 'agents' in mine.yaml cannot be used", "correct the value"),
        ("name: x\n", "key 'agents' is missing in mine.yaml", "add 'agents'"),
        (BASE + "seed: 1\nseed: 2\n", "key 'seed' is given twice. Seen: .*mine.yaml, line 4",
         "remove one of the two"),
        ("agents:\n  base: {}\n  base: {}\n", "key 'base' is given twice", "remove one"),
        ("agents:\n  base: {}\n  a/b: {reward: game}\n", "name of an agent. Seen: 'a/b'",
         "rename the agent"),
        ("agents:\n  base: {}\n  '..': {reward: game}\n", "cannot be the name of an agent",
         "rename the agent"),
        ("agents:\n  base: {}\n  a: {adapter: x, checkpoint: y}\n",
         "'a' is given in more than one way. Seen: adapter x, checkpoint y", "keep one of"),
        ("agents:\n  base: {}\n  a: {policy: random, reward: game}\n",
         "'a' is scripted and cannot be trained", "remove one of the two keys"),
        ("agents:\n  base: {}\n  a: {policy: tit-for-two-tats}\n",
         "needs more memory than a prompt holds", "choose a policy such as tit-for-tat"),
        ("agents:\n  base: {}\n  a: {policy: random}\nmechanisms: {pairs: [[base, a]]}\n",
         "names a scripted policy, which has nothing inside", "use"),
        (BASE + "evaluation: {games: [IDP]}\n", "no game of this name. Seen: IDP", ""),
        (BASE + "evaluation: {opponents: [tit-for-tot]}\n", "tit-for-tot", "tit-for-tat"),
        (BASE + "evaluation: {parts: [paper], games: [IVD]}\n",
         "None of the games is among those of the published protocol. Seen: IVD", "name one"),
        (BASE + "evaluation: {opponents: [gradual]}\n", "takes part in tournaments only",
         "name it among the strategies"),
        (BASE + "evaluation: {strategies: [tit-for-tot]}\n", "no classical strategy of this name",
         "tit-for-tat"),
        (BASE + "evaluation: {strategies: [grim, Grim]}\n", "A strategy is named twice. Seen: grim",
         "leave one"),
        (BASE + "evaluation: {parts: [regrets]}\n", "value of 'evaluation.parts.0'", "correct"),
        (BASE + "evaluation: {parts: [paper], labels: []}\n",
         "published protocol needs its own labels", "action3"),
        (BASE + "dtype: float16\n", "value of 'dtype'.*'float32', 'bfloat16' or 'nf4'", "correct"),
        (BASE + "mechanisms: {methods: [lense]}\n", "value of 'mechanisms.methods.0'", "correct"),
        (BASE + "evidence: {alpha: 1.5}\n", "value of 'evidence.alpha'.*less than 1", "correct"),
        (BASE + "seed: -1\n", "value of 'seed'.*greater than or equal to 0", "correct"),
        (BASE + "prompts: {games: []}\n", "no prompts that claims could rest on",
         "name a game under prompts.games"),
        (BASE + "prompts: {words: [yes, no]}\n", "value of 'prompts.words.0'", "put quotes around"),
        ("- base\n", "does not hold keys and values", "key: value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_the_nearest_right_word(
    tmp_path: Path, text: str, problem: str, next_step: str
) -> None:
    said = refusal(tmp_path, text)
    assert re.search(problem, said), said
    assert next_step in said


def test_a_study_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read. Seen: .*absent\.yaml"):
        read_study(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompts": {"games": ["IDP"]}}, "no clusters of this game. Seen: IDP.*'IPD'"),
        ({"prompts": {"files": ["absent.yaml"]}}, "cannot be read. Seen: absent.yaml"),
        ({"model": "no/such-model-anywhere"}, "'no/such-model-anywhere' was not found"),
        ({"agents": {"base": {}, "a": {"adapter": "no/such-adapter"}}},
         "adapter of agent 'a' was not found"),
        ({"agents": {"base": {}, "a": {"checkpoint": "no/such-model"}}},
         "'no/such-model' was not found"),
    ],
)  # fmt: skip
def test_what_only_planning_can_see_is_refused(
    study_of: StudyOf, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], problem: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MoralscopeError, match=problem):
        make_plan(study_of(**changes))


def test_the_resolved_study_reads_back_equal(tmp_path: Path, study_of: StudyOf) -> None:
    mirror = study_of(prompts={"wordings": ["log", "log-mirrored"]})
    for study in (demo_study(), study_of(), study_of(name="Ünï: #1", seed=7), mirror):
        path = tmp_path / "study.yaml"
        path.write_text(study_yaml(study))
        assert read_study(path) == study
        said = yaml.safe_load(study_yaml(study))
        assert set(said) == set(Study.model_fields)  # every default is written out


def test_training_settings_are_the_studys_then_the_agents() -> None:
    study = Study.model_validate(
        {
            "seed": 5,
            "agents": {
                "base": {},
                "a": {"reward": "game"},
                "b": {"reward": "hybrid", "opponent": "random", "seed": 3,
                      "training": {"steps": 9}},
                "known": {"reward": "game", "adapter": "somewhere"},
            },
            "training": {"steps": 4, "kl_coefficient": 0.5},
            "prompts": {"words": ["wait", "walk"]},
        }
    )  # fmt: skip
    a, b = training_config(study, "a"), training_config(study, "b")
    assert a is not None
    assert b is not None
    assert (a.steps, a.kl_coefficient, a.seed, a.opponent) == (4, 0.5, 5, "tit-for-tat")
    assert (b.steps, b.kl_coefficient, b.seed, b.opponent) == (9, 0.5, 3, "random")
    assert a.words == b.words == ("wait", "walk")
    assert training_config(study, "base") is None
    assert training_config(study, "known") is None
    assert agent_spec(study, "a", Path("here")).training_seed == 5
    assert agent_spec(study, "known").training_seed is None
    assert agent_spec(study, "base").kind == "base"


def test_a_reward_is_an_expression_with_or_without_phases(study_of: StudyOf) -> None:
    given = "game  then 0.50*care( weight = 1 ) + 2*game"
    study = study_of(agents={"base": {}, "a": {"reward": given}})
    config = training_config(study, "a")
    assert config is not None
    assert config.reward == "game then 0.5*care(weight=1) + 2*game"
    assert agent_spec(study, "a").reward == config.reward
    assert agent_spec(study, "base").reward is None


def test_pairs_are_the_base_into_every_agent_unless_given(study_of: StudyOf) -> None:
    agents = {"base": {}, "a": {"reward": "game"}, "b": {"reward": "hybrid"}}
    assert patched_pairs(study_of(agents=agents)) == (("base", "a"), ("base", "b"))
    given = study_of(agents=agents, mechanisms={"pairs": [["a", "b"]]})
    assert patched_pairs(given) == (("a", "b"),)
    none = study_of(agents=agents, mechanisms={"methods": ["lens"]})
    assert patched_pairs(none) == ()
