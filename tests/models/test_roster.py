"""Agents on one base: switching, un-merged adapters of every kind, full checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.core.hashing import sha256_file
from moralscope.models.libraries import renamed_properties_tolerated
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster
from moralscope.models.scoring import score
from moralscope.models.weights import active_updates, base_weight, effective_weight

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


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {}),
    "rslora": ("llama", {"use_rslora": True}),
    "dora": ("llama", {"use_dora": True}),
    "lora_bias": ("llama_bias", {"lora_bias": True}),
    "patterns": ("llama", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"o_proj": 5}}),
    "dropout": ("llama", {"lora_dropout": 0.5}),
    "conv1d": ("gpt2", {}),
    "conv1d dora": ("gpt2", {"use_dora": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_un_merged_equals_what_peft_itself_merges(tmp_path: Path, kind: str):
    family, settings = KINDS[kind]
    base = tiny.save_base(tmp_path / "base", family)
    roster = Roster(load_model(locate_model(str(base))))
    roster.add(AgentSpec(name="base", base=str(base)))
    fresh, again = (tiny.tiny_model(family, dtype=torch.float32) for _ in range(2))
    place = tiny.save_adapter(tmp_path / "a", fresh, **settings)
    roster.add(spec("game", place))
    with renamed_properties_tolerated():
        merged = PeftModel.from_pretrained(again, str(place)).merge_and_unload()
    with roster.speaking("base") as model:
        before = logits(model)
    with roster.speaking("game") as model:
        gap = (logits(model) - logits(merged)).abs().max()
        assert (logits(model) - before).abs().max() > 0.05
    assert gap <= 1e-5 * max(1.0, float(logits(merged).abs().max()))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_too_small_to_merge_into_narrow_weights_are_heard(
    folder: Path, tmp_path: Path, dtype: Any
):
    place = tiny.save_adapter(tmp_path / "a", same_base(), size=2e-4)
    roster = Roster(load_model(locate_model(str(folder)), dtype=dtype))
    roster.add(AgentSpec(name="base", base="tiny"))
    roster.add(spec("game", place))
    layer = roster.base.model.model.layers[0].mlp.down_proj
    stored = layer.base_layer.weight
    with roster.speaking("game"):
        a, b, scaling = next(active_updates(layer))
        change = effective_weight(layer) - base_weight(layer)
    assert stored.dtype == getattr(torch, dtype)
    assert a.dtype == torch.float32  # as saved: not narrowed with the base
    assert change.norm() > 0.9 * (scaling * b @ a).norm() > 0
    merged = stored + (scaling * b @ a).to(stored.dtype)
    assert (merged == stored).float().mean() > 0.9


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
