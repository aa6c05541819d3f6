"""Agents on one base: switching, and every kind of adapter that must not slip in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.core.hashing import sha256_file
from moralscope.models.libraries import renamed_properties_tolerated
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster, find_adapter
from moralscope.models.scoring import score

TOKENS = torch.tensor([tiny.token_prompts()[0].tokens])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def roster(folder: Path) -> Roster:
    made = Roster(load_model(locate_model(str(folder))))
    made.add(AgentSpec(name="base", base=str(folder)))
    return made


def same_base() -> Any:
    """The model of ``folder``, as it is saved there."""
    return tiny.tiny_model("llama", dtype=torch.float32)


def spec(name: str, adapter: Path) -> AgentSpec:
    return AgentSpec(name=name, base="tiny", adapter=str(adapter))


def test_speaking_switches_the_weights_in_force(roster: Roster, tmp_path: Path):
    before = logits(roster.base.model)
    for seed, name in enumerate(("game", "moral"), start=1):
        roster.add(spec(name, tiny.save_adapter(tmp_path / name, same_base(), seed=seed)))
    heard: dict[str, torch.Tensor] = {}
    for name in ("base", "game", "moral", "game", "base"):
        with roster.speaking(name) as model:
            found = logits(model)
        assert torch.equal(heard.setdefault(name, found), found)
    assert torch.equal(heard["base"], before)
    for one, other in (("base", "game"), ("game", "moral"), ("base", "moral")):
        assert (heard[one] - heard[other]).abs().max() > 0.05


@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
def test_un_merged_equals_what_peft_itself_merges(roster: Roster, tmp_path: Path, rslora: bool):
    place = tiny.save_adapter(tmp_path / "a", same_base(), use_rslora=rslora)
    roster.add(spec("game", place))
    with renamed_properties_tolerated():
        merged = PeftModel.from_pretrained(same_base(), str(place)).merge_and_unload()
    with roster.speaking("game") as model:
        gap = (logits(model) - logits(merged)).abs().max()
    assert gap <= 1e-5 * max(1.0, float(logits(merged).abs().max()))


def test_rslora_is_scaled_by_the_root_of_its_rank(folder: Path, tmp_path: Path):
    found: list[torch.Tensor] = []
    for rslora in (False, True):
        fresh = Roster(load_model(locate_model(str(folder))))
        place = tiny.save_adapter(tmp_path / str(rslora), same_base(), rank=4, use_rslora=rslora)
        fresh.add(spec("game", place))
        with fresh.speaking("game") as model:
            layer = model.model.layers[0].mlp.down_proj
            x = torch.eye(48)
            with torch.no_grad():
                found.append(layer(x) - layer.base_layer(x))
    assert torch.allclose(found[1], 2.0 * found[0], atol=1e-5)
    assert found[0].abs().max() > 0.1


def test_the_base_stays_itself_while_adapters_come(roster: Roster, tmp_path: Path):
    before = {k: v.clone() for k, v in roster.base.model.state_dict().items()}
    roster.add(spec("game", tiny.save_adapter(tmp_path / "a", same_base())))
    after = {
        k.replace(".base_layer", ""): v
        for k, v in roster.base.model.state_dict().items()
        if ".lora_" not in k
    }
    assert set(after) == set(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert not any(p.requires_grad for p in roster.base.model.parameters())


def test_hashes_are_those_of_the_files(roster: Roster, tmp_path: Path):
    place = tiny.save_adapter(tmp_path / "a", same_base())
    roster.add(spec("game", place))
    assert roster.weights_sha256("base") is None
    assert roster.weights_sha256("game") == sha256_file(place / "adapter_model.safetensors")


def test_an_agent_that_is_not_there_is_named_with_the_nearest(roster: Roster):
    with pytest.raises(AgentError, match="There is no agent 'bsae'") as e, roster.speaking("bsae"):
        pass
    assert e.value.remedy == "did you mean 'base'"
    with pytest.raises(AgentError, match="There is no agent 'x'"):
        roster.weights_sha256("x")


def test_a_name_is_given_once(roster: Roster):
    with pytest.raises(AgentError, match="Two agents are called 'base'"):
        roster.add(AgentSpec(name="base", base="tiny"))


Change = Callable[[Path], None]


def edit_config(**changes: Any) -> Change:
    def change(place: Path) -> None:
        path = place / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def edit_weights(how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def change(place: Path) -> None:
        path = place / "adapter_model.safetensors"
        save_file(how(load_file(str(path))), str(path))

    return change


def first_half(place: Path) -> None:
    path = place / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled_only(place: Path) -> None:
    path = place / "adapter_model.safetensors"
    torch.save(load_file(str(path)), place / "adapter_model.bin")
    path.unlink()


def fewer(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in found.items() if "layers.1.mlp.up_proj" not in k}


def more(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    head = {"A": torch.ones(3, 32), "B": torch.ones(tiny.VOCABULARY, 3)}
    prefix = "base_model.model.lm_head.lora_"
    return {**found, **{f"{prefix}{side}.weight": value for side, value in head.items()}}


def elsewhere(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.replace("layers.2", "layers.7"): v for k, v in found.items()}


def dead(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v * 0.0 if "lora_B" in k else v for k, v in found.items()}


REFUSED: dict[str, tuple[Change, str]] = {
    "missing keys": (edit_weights(fewer), "of agent 'bad' did not land whole. Seen: 2 keys unm"),
    "extra keys": (edit_weights(more), "of agent 'bad' did not land whole. Seen: 2 keys unmatch"),
    "other layers": (edit_weights(elsewhere), "made for another base.*no such layer"),
    "zero lora_B": (edit_weights(dead), "of agent 'bad' changes nothing. Seen: 21 lora_B"),
    "dora": (edit_config(use_dora=True), "not handled exactly.*set: use_dora"),
    "modules_to_save": (edit_config(modules_to_save=["lm_head"]), "set: modules_to_save"),
    "bias": (edit_config(bias="all"), "not handled exactly. Seen: peft_type LORA, bias all"),
    "other kind": (edit_config(peft_type="LOHA"), "not handled exactly. Seen: peft_type LOHA"),
    "fewer targets": (edit_config(target_modules=["q_proj"]), "did not land whole"),
    "other rank": (edit_config(r=5), "does not fit its own configuration.*size mismatch"),
    "rank in words": (edit_config(r="three"), "does not fit its own configuration"),
    "no such layers": (edit_config(target_modules=["nothing"]), "does not fit.*nothing"),
    "truncated": (first_half, "The weights of agent 'bad' cannot be read.*copy the adapter folde"),
    "pickled": (pickled_only, "is not a PEFT adapter.*without adapter_model.safetensors.*pickled"),
    "not JSON": (
        lambda place: (place / "adapter_config.json").write_text("{") and None,
        "The adapter configuration of agent 'bad' is not JSON",
    ),
    "no configuration": (
        lambda place: (place / "adapter_config.json").unlink(),
        "is not a PEFT adapter.*without adapter_config.json",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_adapter_that_is_not_whole_is_refused_by_name(roster: Roster, tmp_path: Path, what: str):
    change, message = REFUSED[what]
    place = tiny.save_adapter(tmp_path / "bad", same_base())
    change(place)
    with pytest.raises(AgentError, match=message) as e:
        roster.add(spec("bad", place))
    assert "'bad'" in e.value.problem
    assert "bad" not in roster.specs
    with roster.speaking("base") as model:
        assert torch.equal(logits(model), logits(same_base()))
    place = tiny.save_adapter(tmp_path / "whole", same_base())
    roster.add(spec("bad", place))
    assert list(roster.specs) == ["base", "bad"]


def test_after_a_refusal_the_others_speak_as_before(roster: Roster, tmp_path: Path):
    good = tiny.save_adapter(tmp_path / "good", same_base(), seed=2)
    roster.add(spec("good", good))
    heard = {}
    for name in ("base", "good"):
        with roster.speaking(name) as model:
            heard[name] = logits(model)
    place = tiny.save_adapter(tmp_path / "bad", same_base())
    edit_weights(dead)(place)
    with pytest.raises(AgentError, match="changes nothing"):
        roster.add(spec("bad", place))
    tiny.save_adapter(place, same_base())
    for name in ("base", "good"):
        with roster.speaking(name) as model:
            assert torch.equal(logits(model), heard[name])
    roster.add(spec("bad", place))
    with roster.speaking("bad") as model:
        assert (logits(model) - heard["base"]).abs().max() > 0.05


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"hidden_size": 64}),
        ("llama", {"intermediate_size": 40}),
        ("llama", {"num_hidden_layers": 5}),
        ("gpt2", {"target_modules": ["c_proj"], "fan_in_fan_out": True}),
    ],
)
def test_an_adapter_for_another_base_is_refused(
    roster: Roster, tmp_path: Path, family: str, changes: dict[str, Any]
):
    settings = {k: v for k, v in changes.items() if k in ("target_modules", "fan_in_fan_out")}
    sizes = {k: v for k, v in changes.items() if k not in settings}
    other = tiny.tiny_model(family, dtype=torch.float32, **sizes)
    place = tiny.save_adapter(tmp_path / "bad", other, **settings)
    with pytest.raises(AgentError, match="agent 'bad' was made for another base") as e:
        roster.add(spec("bad", place))
    assert "give the base" in e.value.remedy


def test_an_adapter_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AgentError, match="The adapter of agent 'far' was not found"):
        find_adapter("far", "nobody/no-such-adapter")
    with pytest.raises(AgentError, match="The adapter of agent 'far' was not found"):
        find_adapter("far", str(tmp_path / "absent"))


def test_checkpoints_are_agents_of_their_own(roster: Roster, tmp_path: Path):
    place = tiny.save_base(tmp_path / "full", seed=4)
    roster.add(spec("game", tiny.save_adapter(tmp_path / "a", same_base())))
    roster.add(AgentSpec(name="full", base="tiny", checkpoint=str(place)))
    own = logits(tiny.tiny_model("llama", dtype=torch.float32, seed=4))
    with roster.speaking("full") as model:
        assert torch.equal(logits(model), own)
        assert roster.anatomy("full").unembed is model.lm_head
    with roster.speaking("base") as model:
        assert torch.equal(logits(model), logits(same_base()))
    assert roster.weights_sha256("full") == locate_model(str(place)).sha256


def test_a_checkpoint_of_another_anatomy_is_refused(roster: Roster, tmp_path: Path):
    place = tiny.save_base(tmp_path / "full", num_hidden_layers=2)
    with pytest.raises(AgentError, match="Agent 'full' cannot be compared.*the anatomy differs"):
        roster.add(AgentSpec(name="full", base="tiny", checkpoint=str(place)))
    assert list(roster.specs) == ["base"]


def test_a_checkpoint_with_another_tokenizer_is_refused(roster: Roster, tmp_path: Path):
    place = tiny.save_base(tmp_path / "full", chat=False)
    with pytest.raises(AgentError, match="the tokenizer or chat template differs") as e:
        roster.add(AgentSpec(name="full", base="tiny", checkpoint=str(place)))
    assert e.value.remedy == "name the base that it was trained from"


def test_float64_bases_take_adapters_in_float64(tmp_path: Path):
    made = tiny.tiny_roster(tmp_path)
    prompts = tiny.token_prompts()
    with made.speaking("game") as model:
        found = score(model, prompts).log_odds
        single = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
    assert found == pytest.approx(single, abs=1e-10)
