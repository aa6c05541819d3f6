"""Every kind of adapter that must not slip in: not whole, made for another base, or not exact."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster, find_adapter

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


def diverged(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        k: v * float("nan") if "layers.1.mlp.up_proj.lora_B" in k else v for k, v in found.items()
    }


def silenced(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v * 0.0 if "lora_A" in k else v for k, v in found.items()}


_DOWN = "base_model.model.model.layers.1.mlp.down_proj.lora_"


def with_magnitudes(size: int) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda found: {**found, f"{_DOWN}magnitude_vector": torch.ones(size)}


def with_bias(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**found, f"{_DOWN}B.bias": torch.ones(31)}


def with_embedding(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    key = "base_model.model.model.embed_tokens.lora_embedding_A"
    return {**found, key: torch.ones(3, tiny.VOCABULARY)}


REFUSED: dict[str, tuple[Change, str]] = {
    "missing keys": (edit_weights(fewer), "of agent 'bad' did not land whole. Seen: 2 keys unm"),
    "extra keys": (edit_weights(more), "of agent 'bad' did not land whole. Seen: 2 keys unmatch"),
    "other layers": (edit_weights(elsewhere), "made for another base.*no such layer"),
    "zero lora_B": (edit_weights(dead), "of agent 'bad' changes nothing. Seen: 21 lora_B"),
    "not finite": (
        edit_weights(diverged),
        "of agent 'bad' has weights that are not finite. Seen: 1 of 42 tensors, first .*up_proj",
    ),
    "zero lora_A": (edit_weights(silenced), "of agent 'bad' changes nothing. Seen: 21 lora_B"),
    "zero alpha": (edit_config(lora_alpha=0), "of agent 'bad' changes nothing. Seen: 21 lora_B"),
    "dora without magnitudes": (
        edit_config(use_dora=True),
        "did not land whole. Seen: 21 keys unmatched, .*lora_magnitude_vector",
    ),
    "magnitudes without dora": (
        edit_weights(with_magnitudes(32)),
        "did not land whole. Seen: 1 keys unmatched, .*lora_magnitude_vector",
    ),
    "magnitudes of another size": (edit_weights(with_magnitudes(33)), "made for another base"),
    "biases of another size": (edit_weights(with_bias), "made for another base"),
    "embedding": (edit_weights(with_embedding), "not handled exactly.*LoRA on an embedding"),
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


NOT_EXACT: dict[str, dict[str, Any]] = {
    "set: use_dora with lora_bias": {"use_dora": True, "lora_bias": True},
    "set: use_xlora": {"use_xlora": 3},
    "set: modules_to_save": {"modules_to_save": ["lm_head"]},
    "set: alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "set: layer_replication": {"layer_replication": [[0, 2]]},
    "set: trainable_token_indices": {"trainable_token_indices": [1]},
    "set: target_parameters": {"target_parameters": ["x"]},
    "set: use_qalora": {"use_qalora": True},
    "bias all, set: bias": {"bias": "all"},
    **{
        f"set: init_lora_weights {start}": {"init_lora_weights": start}
        for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "mica", "lora_ga")
    },
    **{
        f"peft_type {kind}": {"peft_type": kind}
        for kind in (
            *("IA3", "PREFIX_TUNING", "PROMPT_TUNING", "VERA", "OFT"),
            *("ADALORA", "LOKR", "LOHA", "NO_SUCH", None),
        )
    },
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_adapter(tmp_path_factory.mktemp("adapter"), same_base())


@pytest.fixture(scope="module")
def shared(folder: Path) -> Roster:
    return Roster(load_model(locate_model(str(folder))))


@pytest.mark.parametrize("what", NOT_EXACT)
def test_a_kind_that_is_not_handled_exactly_is_refused_by_name(
    shared: Roster, written: Path, tmp_path: Path, what: str
):
    place = Path(shutil.copytree(written, tmp_path / "bad"))
    edit_config(**NOT_EXACT[what])(place)
    with pytest.raises(AgentError, match="'bad' is of a kind that is not handled exactly") as e:
        shared.add(spec("bad", place))
    assert what in str(e.value.seen)
    assert e.value.allowed == "LoRA, rsLoRA or DoRA on linear layers, bias none"
    assert e.value.remedy.startswith("merge it into a full checkpoint")
    assert shared.specs == {}


def test_a_dora_adapter_that_was_never_trained_changes_nothing(roster: Roster, tmp_path: Path):
    place = tiny.save_adapter(tmp_path / "bad", same_base(), use_dora=True)
    model = same_base()

    def untrained(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        norms = {
            f"base_model.model.{name}.lora_magnitude_vector": module.weight.norm(dim=1)
            for name, module in model.named_modules()
            if name.endswith("_proj")
        }
        assert set(norms) < set(found)
        return {**dead(found), **norms}

    edit_weights(untrained)(place)
    with pytest.raises(AgentError, match="of agent 'bad' changes nothing"):
        roster.add(spec("bad", place))
    moved = {f"{_DOWN}magnitude_vector": torch.full((32,), 0.5)}
    edit_weights(lambda found: {**found, **moved})(place)
    roster.add(spec("good", place))
    with roster.speaking("base") as alone:
        before = logits(alone)
    with roster.speaking("good") as speaking:
        assert (logits(speaking) - before).abs().max() > 0.05


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal"])
def test_how_an_adapter_began_does_not_matter_if_the_base_stayed(
    roster: Roster, tmp_path: Path, start: object
):
    place = tiny.save_adapter(tmp_path / "a", same_base())
    edit_config(init_lora_weights=start, eva_config={"rho": 2.0}, peft_version="9.9")(place)
    roster.add(spec("good", place))
    assert list(roster.specs) == ["base", "good"]


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
