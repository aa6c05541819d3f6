"""Words to a study: what each kind of reference becomes, and one clear error for each bad word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError
from moralscope.studies import Study
from moralscope.studies.compose import compose_study
from moralscope.studies.study import base_name, patched_pairs

WORDS: dict[str, object] = {
    "methods": "lens,patching",
    "sites": "head,mlp",
    "positions": "answer_span",
    "write": "write",
    "scenarios": 20,
    "memory_gib": 2.0,
    "dtype": "float32",
    "device": "cpu",
}
"""What the command says where nothing else is asked for."""


def compose(*agents: str, **wanted: object) -> Study:
    return compose_study(agents, WORDS | wanted)


def entries(study: Study) -> dict[str, dict[str, object]]:
    return {name: entry.model_dump(exclude_unset=True) for name, entry in study.agents.items()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with agents of each kind, as far as their files tell what they are."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    adapter("mild", "models/one")
    adapter("wild", "models/one")
    adapter("stray", "models/two")
    adapter("silent", None)
    (tmp_path / "notes").mkdir()
    return tmp_path


def adapter(name: str, base: str | None) -> None:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    told = {"peft_type": "LORA", "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "config.json").write_text("{}")  # as some tools leave beside an adapter


@pytest.mark.parametrize(
    ("words", "model", "others"),
    [
        (["base"], "default", {}),
        (["base=models/one"], "models/one", {}),
        (["models/one"], "models/one", {}),
        (["models/one", "models/two"], "models/one", {"two": {"checkpoint": "models/two"}}),
        (["base", "models/one", "next=models/two"], "models/one",
         {"next": {"checkpoint": "models/two"}}),
        (["base=models/two", "models/one"], "models/two", {"one": {"checkpoint": "models/one"}}),
        (["runs/mild"], "models/one", {"mild": {"adapter": "runs/mild"}}),
        (["base", "first=runs/mild", "runs/wild"], "models/one",
         {"first": {"adapter": "runs/mild"}, "wild": {"adapter": "runs/wild"}}),
        (["runs/mild", "runs/silent"], "models/one",
         {"mild": {"adapter": "runs/mild"}, "silent": {"adapter": "runs/silent"}}),
        (["runs/mild", "models/two"], "models/one",
         {"mild": {"adapter": "runs/mild"}, "two": {"checkpoint": "models/two"}}),
        (["base=models/two", "runs/mild"], "models/two", {"mild": {"adapter": "runs/mild"}}),
        (["runs/silent"], "default", {"silent": {"adapter": "runs/silent"}}),
        (["org/some-model"], "org/some-model", {}),
        (["org/some-model", "org/tuned"], "org/some-model", {"tuned": {"checkpoint": "org/tuned"}}),
        (["base", "a=org/some.model", "runs/mild"], "models/one",
         {"a": {"checkpoint": "org/some.model"}, "mild": {"adapter": "runs/mild"}}),
    ],
)  # fmt: skip
def test_references_become_a_base_and_agents(
    words: list[str], model: str, others: dict[str, object]
) -> None:
    study = compose(*words)
    assert study.model == model
    assert base_name(study) == "base"
    assert entries(study) == {"base": {}, **others}
    assert patched_pairs(study) == tuple(("base", name) for name in others)


def test_a_base_that_is_asked_for_goes_before_what_adapters_name() -> None:
    assert compose("runs/mild", base="models/two").model == "models/two"
    assert compose("runs/mild", "runs/stray", base="models/one").model == "models/one"
    study = compose("models/one", base="models/two")
    assert (study.model, entries(study)["one"]) == ("models/two", {"checkpoint": "models/one"})
    assert compose("base", base="models/two").model == "models/two"


def test_a_folder_is_named_as_it_is_called_wherever_it_is_seen_from(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here / "runs" / "mild")
    assert entries(compose(".", "../wild/", str(here / "runs" / "silent"))) == {
        "base": {},
        "mild": {"adapter": "."},
        "wild": {"adapter": "../wild/"},
        "silent": {"adapter": str(here / "runs" / "silent")},
    }


def test_dots_in_the_names_of_models_become_dashes() -> None:
    Path("runs/mild").rename("runs/mild.v2")
    study = compose("runs/mild.v2", "org/Llama-3.2-1B")
    assert list(study.agents) == ["base", "mild-v2", "Llama-3-2-1B"]


def test_settings_are_the_words() -> None:
    study = compose(
        "runs/mild", "runs/wild", methods="lens, patching,paths", sites="attn,mlp",
        positions="all,answer_span", pairs="base>mild, mild > wild", changes="labels,payoffs",
        write="z", scenarios=3, memory_gib=0.5, dtype="bfloat16", device="cuda:1",
    )  # fmt: skip
    chosen = study.mechanisms
    assert (study.dtype, study.device) == ("bfloat16", "cuda:1")
    assert chosen.methods == ("lens", "patching", "paths")
    assert chosen.sites == ("attn", "mlp")
    assert chosen.positions == ("all", "answer_span")
    assert chosen.pairs == (("base", "mild"), ("mild", "wild"))
    assert chosen.changes == ("labels", "payoffs")
    assert (chosen.write, chosen.scenarios, chosen.memory_mib) == ("z", 3, 512)
    assert compose("base").mechanisms.pairs is None


def test_prompts_are_the_games_or_the_files_given() -> None:
    games = compose("runs/mild").prompts
    assert games.games == Study.model_validate({"agents": {"base": {}}}).prompts.games
    assert games.files == ()
    own = compose("runs/mild", prompts=[Path("mine.yaml"), Path("more.jsonl")]).prompts
    assert (own.games, own.files) == ((), ("mine.yaml", "more.jsonl"))
    for prompts in (games, own):
        assert (prompts.wordings, prompts.scenarios) == ((), False)
    # Beside games the structured text gives a policy; beside one's own prompts it says nothing.
    assert (games.table_orders, own.table_orders) == (("original",), ())


@pytest.mark.parametrize(
    ("words", "wanted", "said"),
    [
        (["./nowhere"], {}, r"There is no such agent. Seen: \./nowhere.*check the path"),
        (["/no/where"], {}, "There is no such agent. Seen: /no/where"),
        (["a/b/c"], {}, "There is no such agent. Seen: a/b/c"),
        (["old=./nowhere"], {}, "There is no such agent. Seen: old=./nowhere"),
        (["=runs/mild"], {}, "There is no such agent. Seen: =runs/mild"),
        (["old="], {}, "There is no such agent. Seen: old="),
        ([""], {}, "There is no such agent"),
        (["notes"], {}, "holds neither a model nor an adapter. Seen: notes.*save_pretrained"),
        (["policy:tit-for-tat"], {}, "A scripted policy has nothing inside.*models and adapters"),
        (["tft=policy:tit-for-tat"], {}, "A scripted policy has nothing inside to explain"),
        (["runs/mild", "mild=runs/wild"], {}, "Two agents are called 'mild'.*NAME=PATH"),
        (["base=models/one", "base=runs/mild"], {}, "Two agents are called 'base'"),
        (["runs/mild", "runs/stray"], {},
         "trained on different bases. Seen: models/one, models/two.*name the base with --base"),
        (["run 1=runs/mild"], {}, "cannot be the name of an agent. Seen: 'run 1'"),
        (["runs/mild"], {"pairs": "base-mild"}, "not a pair of agents. Seen: 'base-mild'"),
        (["runs/mild"], {"pairs": "base>"}, "not a pair of agents. Seen: 'base>'"),
        (["runs/mild"], {"pairs": "base>mlid"},
         "pair names an agent that the study does not have. Seen: base into mlid.*'mild'"),
        (["base"], {"methods": "lense"},
         "value of 'mechanisms.methods.0' in the command.*Seen: 'lense'"),
        (["base"], {"sites": "head,hed"}, "value of 'mechanisms.sites.1'.*Seen: 'hed'"),
        (["base"], {"sites": " , "}, "value of 'mechanisms.sites'"),
        (["base"], {"positions": ""}, "value of 'mechanisms.positions'"),
        (["base"], {"write": "zz"}, "value of 'mechanisms.write'.*Seen: 'zz'"),
        (["base"], {"scenarios": 0}, "value of 'mechanisms.scenarios'.*Seen: 0"),
        (["base"], {"dtype": "float16"}, "value of 'dtype'.*Seen: 'float16'"),
        (["base=models/one"], {"base": "models/two"},
         "base is given twice. Seen: base=models/one and --base models/two"),
        (["base"], {"memory_gib": 0.0}, "not an amount of memory. Seen: 0.0"),
        (["base"], {"memory_gib": -1.0}, "not an amount of memory. Seen: -1.0"),
        (["base"], {"memory_gib": float("nan")}, "not an amount of memory. Seen: nan"),
        (["base"], {"memory_gib": float("inf")}, "not an amount of memory. Seen: inf"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(words: list[str], wanted: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*words, **wanted)
    assert re.search(said, str(caught.value)), caught.value


def test_an_adapter_that_cannot_be_read_is_left_to_the_loader() -> None:
    for text in ("{", "[]", '{"base_model_name_or_path": 3}', '{"base_model_name_or_path": ""}'):
        Path("runs/mild/adapter_config.json").write_text(text)
        assert compose("runs/mild").model == "default"
