"""The card of a trained agent: what the hub reads, what a person reads, and that it is true."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from moralscope.core.errors import AgentError
from moralscope.core.tables import from_rows, write_table
from moralscope.games import HELD_OUT, structured, wordings
from moralscope.reports.cards import (
    base_label,
    behaviour,
    reward_words,
    without_folders,
    write_card,
)
from moralscope.training.config import TrainingConfig
from moralscope.training.diagnostics import before_training, diagnostics_table
from moralscope.training.finished import adapter_size, missing_files, read_finished

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that was really trained, on a tiny base in a folder of its own."""
    from tiny_base import save_tiny  # noqa: PLC0415 - only these tests need the model stack

    from moralscope.models.loading import load_model, locate_model  # noqa: PLC0415
    from moralscope.training.agent_file import held_back_prompts  # noqa: PLC0415
    from moralscope.training.loop import train_agent  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("card")
    base = load_model(locate_model(str(save_tiny(folder / "some-base"))))
    config = TrainingConfig.model_validate(
        {"reward": "game + 0.5*deontological", "labels": "same", "steps": 2, "seed": 3,
         "prompts_per_step": 8, "learning_rate": 0.02, "lora": {"rank": 4, "alpha": 8}}
    )  # fmt: skip
    train_agent(
        "one_agent",
        config,
        base,
        out=folder / "out",
        work=folder / "work",
        fingerprint_prompts=held_back_prompts(config),
    )
    found = diagnostics_table("one_agent", 3, before_training(config))
    write_table("diagnostics", found, folder / "out")
    write_card(folder / "out")
    return folder / "out"


@pytest.fixture
def copied(agent: Path, tmp_path: Path) -> Path:
    return shutil.copytree(agent, tmp_path / "agent")


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def front(text: str) -> dict[str, object]:
    _, header, _ = text.split("---\n", 2)
    return yaml.safe_load(header)


def test_the_front_matter_is_what_the_hub_reads(agent: Path, copied: Path):
    found = front(card(agent))
    assert found["library_name"] == "peft"
    assert {"lora", "moralscope", "game:IPD"} <= set(found["tags"])
    assert "base_model" not in found  # a folder of this machine is no hub id
    rewrite(copied / "adapter_config.json", base_model_name_or_path="owner/some-model")
    write_card(copied)
    assert front(card(copied))["base_model"] == "owner/some-model"
    assert 'from_pretrained("owner/some-model")' in card(copied)


def test_the_hub_library_accepts_it(agent: Path):
    from huggingface_hub import ModelCard  # noqa: PLC0415 - part of the model stack

    read = ModelCard.load(agent / "README.md")
    assert read.data.library_name == "peft"
    assert read.text.lstrip().startswith("# one\\_agent")


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_person_reads_how_it_was_trained(agent: Path):
    text = " ".join(card(agent).split())
    for said in (
        "for the reward `game + 0.5*deontological`",
        "- `game`: Own points: `x_0`. In the IPD from 0 to 4.",
        "- `deontological`: Has the agent broken a norm?",
        "Unless given: `norm=previous, penalty=3.0`.",
        "earns -6 points under every reward",
        "against `tit-for-tat`",
        "| method | `exact`, preset `exact` |",
        "| steps | 2 |",
        "| seed | 3 |",
        "| labels | `same`; cooperate/defect: `action1/action2` |",
        "| `learning_rate` | `0.0001` | `0.02` |",
        "| `lora.rank` | `64` | `4` |",
        "Step 0, `fixed-labels`: With labels: same, defecting is always called",
        "One seed is one seed",
        "## Licence Not stated",
    ):
        assert said in text
    twin = json.loads((agent / "card.json").read_text())
    assert set(twin["deviations"]) == {
        "labels", "steps", "prompts_per_step", "learning_rate", "lora.rank", "lora.alpha",
    }  # fmt: skip


def test_figures_are_those_of_the_files(agent: Path):
    tensors = load_file(agent / "adapter_model.safetensors")
    size = adapter_size(agent)
    assert size.parameters == sum(tensor.size for tensor in tensors.values())
    assert size.bytes == (agent / "adapter_model.safetensors").stat().st_size
    assert f"| trainable parameters | {size.parameters:,} |" in card(agent)
    twin = json.loads((agent / "card.json").read_text())
    stored = json.loads((agent / "fingerprint.json").read_text())
    for what in ("base", "tokenizer", "chat_template", "adapter"):
        assert twin["fingerprint"][what] == stored[what]
        assert f"`{stored[what]}`" in card(agent)
    last = pl.read_parquet(agent / "training.parquet").filter(pl.col("step") == 2)
    assert twin["last_step"]["cooperation"] == last["cooperation"].item()


def test_behaviour_is_averaged_by_wording_and_labels(agent: Path):
    stored = json.loads((agent / "fingerprint.json").read_text())["prompts"]
    rows = json.loads((agent / "card.json").read_text())["behaviour"]
    found = {(row["template"], row["labels"]): row for row in rows}
    assert set(found) == {
        (template, labels)
        for template in ("structured", *HELD_OUT)
        for labels in ("action1/action2", "action2/action1")
    }
    for prompts in (structured(), wordings(names=HELD_OUT)):
        for template, labels in {(p.template, p.labels) for p in prompts}:
            chosen = [p for p in prompts if (p.template, p.labels) == (template, labels)]
            odds = [stored[p.name]["log_odds"] for p in chosen]
            row = found[template, labels]
            assert row["prompts"] == len(chosen)
            assert row["p_defect"] == pytest.approx(
                sum(1 / (1 + math.exp(-x)) for x in odds) / len(odds)
            )
            assert row["trained"] == ((template, labels) == ("structured", "action1/action2"))
            assert f"| `{template}` | `{labels}` |" in card(agent)


def test_extreme_odds_do_not_overflow():
    config = TrainingConfig(reward="game")
    names = [p.name for p in structured()]
    found = behaviour(config, {names[0]: {"log_odds": 2000.0}, names[1]: {"log_odds": -2000.0}})
    assert [row["p_defect"] for row in found] == [0.5]


def test_the_code_that_it_shows_loads_the_adapter(agent: Path):
    (code,) = re.findall(r"```python\n(.*?)```", card(agent), re.DOTALL)
    code = code.replace("FOLDER_OR_ID_OF_THIS_ADAPTER", str(agent))
    code = code.replace("FOLDER_OF_THE_BASE", str(agent.parent / "some-base"))
    from moralscope.models.libraries import renamed_properties_tolerated  # noqa: PLC0415

    found: dict[str, object] = {}
    with renamed_properties_tolerated():
        exec(compile(code, "card", "exec"), found)  # noqa: S102
    trained = load_file(agent / "adapter_model.safetensors")
    live = {
        name.replace(".default", ""): value.detach().numpy()
        for name, value in found["model"].named_parameters()
        if ".lora_" in name
    }
    assert set(live) == set(trained)
    assert all((live[name] == trained[name]).all() for name in trained)
    assert any(trained[name].any() for name in trained if "lora_B" in name)


def test_no_folder_of_this_machine_is_told(agent: Path, copied: Path):
    rewrite(copied / "training.json", opponent="agent(deep/down/earlier)")
    write_card(copied)
    for folder in (agent, copied):
        said = card(folder) + (folder / "card.json").read_text()
        assert str(agent.parent) not in said
        assert "/some-base" not in said
    assert "`agent(earlier)`" in card(copied)
    assert "deep/down" not in card(copied) + (copied / "card.json").read_text()


def test_the_same_folder_gives_the_same_bytes(copied: Path):
    before = [(copied / name).read_bytes() for name in ("README.md", "card.json")]
    write_card(copied)
    assert [(copied / name).read_bytes() for name in ("README.md", "card.json")] == before


def test_texts_of_the_user_open_nothing(copied: Path):
    rewrite(copied / "training.json", words=["a`c", "<b>d"], opponent="a|b")
    write_card(copied)
    (line,) = [line for line in card(copied).splitlines() if line.startswith("| labels |")]
    assert line.endswith("cooperate/defect: `a'c/<b>d` |")
    assert "against `a\\|b` for" in card(copied)


def test_without_diagnoses_it_says_so(copied: Path):
    write_table("diagnostics", from_rows("diagnostics", []), copied)
    write_card(copied)
    assert "No diagnosis of training was raised." in card(copied)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("game then deontological", ["game", "deontological"]),
        ("0.5*virtue-kindness(bonus=2) - 0.1*spite", ["virtue-kindness", "spite"]),
        ("of-my-own-game", []),
    ],
)
def test_every_term_of_a_reward_is_explained(expression: str, names: list[str]):
    found = reward_words(expression)
    assert list(found) == names
    assert all(len(words) > 10 for words in found.values())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("owner/model-1.5", "owner/model-1.5"),
        ("gpt2", "gpt2"),
        ("/deep/down/model", "model"),
        ("./model", "model"),
        ("a/b/model", "model"),
    ],
)
def test_a_base_goes_by_its_id_or_last_name(name: str, label: str):
    assert base_label(name) == label


def test_folders_in_expressions_go_by_their_last_names():
    assert without_folders("noisy(agent(/deep/down/one), 0.1)") == "noisy(agent(one), 0.1)"
    assert without_folders("agent(runs/one)") == "agent(one)"
    assert without_folders("noisy(tit-for-tat, 0.1)") == "noisy(tit-for-tat, 0.1)"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "training.parquet"])
def test_a_folder_that_lacks_something_is_no_agent(copied: Path, name: str):
    (copied / name).unlink()
    assert missing_files(copied) == (name,)
    with pytest.raises(AgentError, match=f"without {name}"):
        write_card(copied)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("adapter_model.safetensors", b"\x10" + bytes(40)),
        ("fingerprint.json", b"{"),
        ("training.json", b'{"reward": "game", "stepz": 3}'),
        ("adapter_config.json", b"[1]"),
    ],
)
def test_a_damaged_file_is_one_clear_error(copied: Path, name: str, data: bytes):
    (copied / name).write_bytes(data)
    with pytest.raises(AgentError, match=name):
        read_finished(copied)


def test_sizes_count_every_tensor(tmp_path: Path):
    tensors = {"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.float32)}
    save_file(tensors, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    assert adapter_size(tmp_path).parameters == 22
