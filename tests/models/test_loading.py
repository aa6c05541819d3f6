"""From an id or folder to a decoder, and everything that is refused on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from moralscope.core.errors import ModelError
from moralscope.models import loading
from moralscope.models.loading import load_model, locate_model, tokenizer_hashes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_base(tmp_path / "model", "gemma2")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and nothing of it cached."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tiny.token_prompts()[0].tokens])).logits


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_folder_loads_as_it_was_saved(tmp_path: Path, family: str):
    place = tiny.save_base(tmp_path / "model", family)
    source = locate_model(str(place))
    found = load_model(source)
    assert (source.origin, source.folder, source.dropped_keys) == ("folder", place, ())
    assert torch.equal(logits(found.model), logits(tiny.tiny_model(family, dtype=torch.float32)))
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())


def test_the_tokenizer_is_the_one_in_the_folder(folder: Path):
    found = load_model(locate_model(str(folder))).tokenizer
    assert tokenizer_hashes(found) == tokenizer_hashes(tiny.tiny_tokenizer())


@pytest.mark.parametrize("dtype", loading.DTYPES)
def test_weights_are_loaded_in_the_dtype_asked_for(folder: Path, dtype: Any):
    found = load_model(locate_model(str(folder)), dtype=dtype)
    assert found.dtype == dtype
    assert {p.dtype for p in found.model.parameters()} == {loading.DTYPES[dtype]}


def test_a_dtype_that_is_not_there_is_refused(folder: Path):
    wrong: Any = "float8"
    with pytest.raises(ModelError, match="There is no such dtype. Seen: float8") as e:
        load_model(locate_model(str(folder)), dtype=wrong)
    assert e.value.allowed == "float32, bfloat16, float16, float64, nf4"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_decide_nearly_as_wide_ones(tmp_path: Path, dtype: Any):
    place = tiny.save_base(tmp_path / "model")
    wide, narrow = (load_model(locate_model(str(place)), dtype=d) for d in ("float32", dtype))
    found, exact = logits(narrow.model), logits(wide.model)
    assert found.dtype == loading.DTYPES[dtype]
    assert 1e-5 < (found.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"bits": 4}, "of no named method"),
        ("awq", "of no named method"),
    ],
)
def test_weights_that_are_stored_quantised_are_refused(folder: Path, stored: object, seen: str):
    edit(folder, quantization_config=stored)
    with pytest.raises(ModelError, match="are stored quantised") as e:
        locate_model(str(folder))
    assert e.value.seen == f"quantization_config: {seen}"
    edit(folder, quantization_config=None)
    assert locate_model(str(folder)).folder == folder


def test_the_hash_follows_every_file_that_matters(tmp_path: Path):
    def hashed(name: str, change: Any = None, **settings: Any) -> str:
        place = tiny.save_base(tmp_path / name, **settings)
        if change is not None:
            change(place)
        return locate_model(str(place)).sha256

    whole = hashed("a")
    assert hashed("b") == whole
    assert hashed("c", seed=3) != whole
    assert hashed("d", chat=False) != whole
    assert hashed("e", lambda p: edit(p, rms_norm_eps=0.5)) != whole
    assert hashed("f", lambda p: (p / "notes.txt").write_text("x")) == whole


def test_tokenizer_hashes_tell_vocabulary_and_template_apart():
    chatty, plain = (
        tokenizer_hashes(tiny.tiny_tokenizer()),
        tokenizer_hashes(tiny.tiny_tokenizer(chat=False)),
    )
    assert chatty["tokenizer"] == plain["tokenizer"]
    assert chatty["chat_template"] != plain["chat_template"]


def test_unknown_keys_are_dropped_and_recorded(folder: Path):
    edit(folder, telemetry="on", rope_speed=3)
    source = locate_model(str(folder))
    assert source.dropped_keys == ("rope_speed", "telemetry")
    config: Any = load_model(source).model.config
    assert not hasattr(config, "telemetry")
    assert not hasattr(config, "rope_speed")


def test_settings_of_the_architecture_are_kept(folder: Path):
    config: Any = load_model(locate_model(str(folder))).model.config
    assert (config.sliding_window, config.attn_logit_softcapping) == (tiny.WINDOW, 5.0)
    assert config.query_pre_attn_scalar == 16


@pytest.mark.parametrize("name", ["absent/model/here", "nobody/no-such-model"])
@pytest.mark.usefixtures("offline")
def test_an_unknown_id_offline_is_refused(name: str):
    with pytest.raises(ModelError, match=f"The model '{name}' was not found") as e:
        locate_model(name)
    assert "check the spelling and the connection" in e.value.remedy


@pytest.mark.parametrize("name", ["./absent", "/absent/model"])
def test_a_path_that_is_not_there_is_never_looked_for_in_the_hub(name: str):
    with pytest.raises(ModelError, match="This is not a model folder") as e:
        locate_model(name)
    assert e.value.seen == name


def test_a_file_is_not_a_model(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="This is not a model folder"):
        locate_model(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json: FileNotFoundError"),
        ("{", "config.json: JSONDecodeError"),
        ("[1]", "config.json: TypeError"),
        ('"x"', "config.json: ValueError"),
    ],
)
def test_a_folder_that_is_not_a_model_is_refused(tmp_path: Path, content: str | None, message: str):
    (tmp_path / "README.md").write_text("hello")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message) as e:
        locate_model(str(tmp_path))
    assert "save_pretrained" in e.value.remedy


def test_an_adapter_folder_is_not_a_model(tmp_path: Path):
    place = tiny.save_adapter(tmp_path / "a", tiny.tiny_model(dtype=torch.float32))
    with pytest.raises(ModelError, match="is not a model") as e:
        locate_model(str(place))
    assert "an adapter folder goes under adapter" in e.value.remedy


@pytest.mark.parametrize("kind", ["quantum_llama", None, 3])
def test_an_architecture_unknown_to_the_library_is_refused(folder: Path, kind: object):
    edit(folder, model_type=kind)
    with pytest.raises(ModelError, match="an architecture that transformers does not know") as e:
        locate_model(str(folder))
    assert e.value.seen == kind


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModelForCausalLM": "evil.Model"}),
        ("_attn_implementation", "someone/kernel"),
        ("_attn_implementation_internal", "someone/kernel"),
        ("attn_implementation", "someone/kernel:main"),
        ("trust_remote_code", True),
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(folder: Path, key: str, value: object):
    edit(folder, **{key: value})
    with pytest.raises(ModelError, match="asks to run code of its own") as e:
        locate_model(str(folder))
    assert str(e.value.seen).startswith(f"{key}=")


def test_code_hidden_in_a_part_of_the_configuration_is_refused(folder: Path):
    edit(folder, text_config={"_attn_implementation": "someone/kernel"})
    with pytest.raises(ModelError, match="asks to run code of its own"):
        locate_model(str(folder))


def test_a_plain_choice_of_attention_is_not_passed_on(folder: Path):
    edit(folder, _attn_implementation="flash_attention_2")
    config: Any = load_model(locate_model(str(folder))).model.config
    assert config._attn_implementation == "eager"


@pytest.mark.parametrize("kept", ["pytorch_model.bin", None])
def test_pickled_weights_are_not_read(folder: Path, kept: str | None):
    weights = folder / "model.safetensors"
    if kept:
        torch.save(load_file(str(weights)), folder / kept)
    weights.unlink()
    with pytest.raises(ModelError, match="has no safetensors weights") as e:
        locate_model(str(folder))
    assert "pickled weights can run code" in e.value.allowed
    if kept:
        assert kept in str(e.value.seen)


def test_missing_parameters_are_refused(folder: Path):
    path = folder / "model.safetensors"
    whole = load_file(str(path))
    absent = "model.layers.1.mlp.up_proj.weight"
    kept = {k: v for k, v in whole.items() if k != absent}
    save_file(kept, str(path), metadata={"format": "pt"})
    with pytest.raises(ModelError, match="are incomplete") as e:
        load_model(locate_model(str(folder)))
    assert e.value.seen == f"1 parameters missing, the first {absent}"


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"vocab_size": 100}])
def test_weights_that_do_not_fit_the_configuration_are_refused(
    folder: Path, changes: dict[str, int]
):
    edit(folder, **changes)
    with pytest.raises(ModelError, match="cannot be loaded|are incomplete"):
        load_model(locate_model(str(folder)))


def test_damaged_weights_are_refused(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(locate_model(str(folder)))


def test_a_model_without_a_tokenizer_is_refused(folder: Path):
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer") as e:
        load_model(locate_model(str(folder)))
    assert "tokenizer.json" in e.value.allowed


def test_without_the_package_the_default_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def fetch(name: str, **_: object) -> str:
        asked.append(name)
        raise OSError("not reached in a test")

    monkeypatch.setattr(loading, "PACKAGE", "no-such-distribution")
    monkeypatch.setattr(loading.huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ModelError, match="The model 'HuggingFaceTB/SmolLM2-135M-Instruct' was"):
        loading.locate_model()
    assert asked == ["HuggingFaceTB/SmolLM2-135M-Instruct"]


def test_a_fetched_model_is_described_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def fetch(_: str, *, allow_patterns: list[str]) -> str:
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(loading.huggingface_hub, "snapshot_download", fetch)
    source = locate_model("someone/tiny")
    assert (source.name, source.origin, source.folder) == ("someone/tiny", "hub", folder)
    assert source.sha256 == locate_model(str(folder)).sha256
