"""The detokenizer's folders: official pickles read safely, ours read back identically, faults in a sentence."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_model import FLOW, VOCODER, tiny_model

from kimi_audio.checkpoint.files import write_json
from kimi_audio.checkpoint.info import describe
from kimi_audio.checkpoint.layout import Storage, load_parts, save_parts
from kimi_audio.checkpoint.speaking import load_detokenizer
from kimi_audio.detokenizer.streaming import StreamConfig
from kimi_audio.detokenizer.vocoder import unfolded
from kimi_audio.errors import CheckpointError
from kimi_audio.model import KimiAudio

CODES = list(range(20))


@pytest.fixture(scope="module")
def model() -> KimiAudio:
    return tiny_model(speaks=True)


def sound(detokenizer) -> torch.Tensor:
    torch.manual_seed(0)
    return detokenizer(CODES)


def write_official(folder: Path, model: KimiAudio) -> Path:
    """The two folders as they are released."""
    speaker = model.detokenizer
    assert speaker is not None
    for name in ("audio_detokenizer", "vocoder"):
        (folder / name).mkdir(parents=True)
    (folder / "audio_detokenizer" / "config.yaml").write_text(yaml.safe_dump(FLOW.to_dict()))
    state = {f"prefix.speech_model.{name}": tensor for name, tensor in speaker.flow.state_dict().items()}
    torch.save({"state_dict": {**state, "resampler.kernel": torch.ones(3)}}, folder / "audio_detokenizer" / "model.pt")
    write_json(folder / "vocoder" / "config.json", VOCODER.to_dict())
    torch.save({"generator": unfolded(speaker.vocoder.state_dict())}, folder / "vocoder" / "model.pt")
    return folder


@pytest.mark.parametrize(
    ("part", "damage", "named"),
    [
        ("vocoder", lambda state: state.pop("conv_pre.weight_g"), "conv_pre.weight_v and conv_pre.weight_g"),
        ("vocoder", lambda state: state.update({"conv_pre.weight_g": torch.ones(3)}), "conv_pre.weight_v"),
        ("vocoder", lambda state: state.update({"conv_pre.bias": torch.ones(16).int()}), "dtype torch.int32"),
        ("audio_detokenizer", lambda state: state.update({key: state[key].long() for key in state}), "torch.int64"),
    ],
)
def test_official_files_of_another_kind(part: str, damage, named: str, model: KimiAudio, tmp_path: Path) -> None:
    path = write_official(tmp_path, model) / part / "model.pt"
    content = torch.load(path)
    damage(next(iter(content.values())))
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=named):
        load_detokenizer(tmp_path, StreamConfig())


def test_official_files_sound_the_same(model: KimiAudio, tmp_path: Path) -> None:
    loaded = load_detokenizer(write_official(tmp_path, model), model.detokenizer.config)
    assert torch.allclose(sound(loaded), sound(model.detokenizer), atol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_both_kinds_are_mapped_or_read(legacy: bool, model: KimiAudio, tmp_path: Path) -> None:
    folder = write_official(tmp_path, model)
    path = folder / "vocoder" / "model.pt"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=not legacy)
    assert load_detokenizer(folder, StreamConfig()) is not None


def test_a_saved_model_speaks_the_same(model: KimiAudio, tmp_path: Path) -> None:
    model.save(tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("*.pt"))
    copy = load_parts(tmp_path / "copy").detokenizer
    assert copy is not None
    for ours, theirs in ((copy.flow, model.detokenizer.flow), (copy.vocoder, model.detokenizer.vocoder)):
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    assert load_parts(tmp_path / "copy", with_detokenizer=False).detokenizer is None


def test_a_quantised_flow_is_close(model: KimiAudio, tmp_path: Path) -> None:
    save_parts(tmp_path / "small", model.parts, Storage(flow=8, floats=torch.float16))
    small = load_parts(tmp_path / "small").detokenizer
    assert small is not None
    for name, weight in model.detokenizer.flow.state_dict().items():
        assert torch.allclose(small.flow.state_dict()[name], weight, atol=0.02 * float(weight.abs().max()) + 1e-3)


def test_info_counts_both_kinds(model: KimiAudio, tmp_path: Path) -> None:
    model.save(tmp_path / "ours")
    ours = describe(tmp_path / "ours").parameters
    parts = (model.detokenizer.flow, model.detokenizer.vocoder)
    expected = [sum(tensor.numel() for tensor in part.state_dict().values()) for part in parts]
    assert [ours["flow matching"], ours["vocoder"]] == expected
    listener = tiny_model()
    listener.save(tmp_path / "official")
    write_official(tmp_path / "official", model)
    assert describe(tmp_path / "official").parameters == ours


def broken(folder: Path, what: str) -> None:
    flow, vocoder = folder / "audio_detokenizer", folder / "vocoder"
    config = yaml.safe_load((flow / "config.yaml").read_text())
    if what == "no config":
        (flow / "config.yaml").unlink()
    elif what == "not yaml":
        (flow / "config.yaml").write_text("a: [")
    elif what == "a field missing":
        del config["model"]["dit"]["depth"]
    elif what == "another kind":
        config["model"]["dit"]["ffn_type"] = "conv"
    elif what == "another shape":
        config["model"]["dit"]["hidden_size"] = 32
    elif what == "mels differ":
        config["model"]["dit"]["input_size"] = 9
    elif what == "a tensor missing":
        state = torch.load(flow / "model.pt")
        state["state_dict"].popitem()
        state["state_dict"].pop("prefix.speech_model.final_layer.linear.bias")
        torch.save(state, flow / "model.pt")
    elif what == "no weights":
        torch.save({"other": {}}, vocoder / "model.pt")
    elif what == "pickled code":
        torch.save({"generator": print}, vocoder / "model.pt")
    elif what == "cut short":
        (vocoder / "model.pt").write_bytes((vocoder / "model.pt").read_bytes()[:900])
    elif what == "no file":
        (vocoder / "model.pt").unlink()
    if what in ("a field missing", "another kind", "another shape", "mels differ"):
        (flow / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("no config", r"config\.yaml: cannot be read"),
        ("not yaml", r"config\.yaml: is not YAML"),
        ("a field missing", r"config\.yaml: field 'depth' is missing"),
        ("another kind", r"config\.yaml: ffn_type is 'conv'; accepted is 'vanilla_mlp'"),
        ("another shape", r"model\.pt: tensor \S+ has shape"),
        ("mels differ", "makes 9 mel bins; vocoder reads 8"),
        ("a tensor missing", r"model\.pt: tensor final_layer\S+ is missing"),
        ("no weights", r"model\.pt: the entry 'generator' with the weights is missing"),
        ("pickled code", r"model\.pt: holds pickled code"),
        ("cut short", r"model\.pt: damaged"),
        ("no file", "holds neither"),
    ],
)
def test_faults_get_one_sentence(what: str, sentence: str, model: KimiAudio, tmp_path: Path) -> None:
    folder = write_official(tmp_path, model)
    broken(folder, what)
    with pytest.raises(CheckpointError, match=sentence):
        load_detokenizer(folder, StreamConfig())


def test_the_way_to_speak_is_in_the_generation_config(model: KimiAudio, tmp_path: Path) -> None:
    model.save(tmp_path)
    write_json(tmp_path / "generation_config.json", {"speech": {"chunk_codes": 9, "look_ahead_codes": 3, "steps": 4}})
    detokenizer = load_parts(tmp_path).detokenizer
    assert detokenizer is not None
    config = detokenizer.config
    assert (config.chunk_codes, config.look_ahead_codes, len(config.schedule)) == (9, 3, 4)
    for wrong, message in (({"chunks": 9}, "unexpected keyword .* 'chunks'"), ({"look_ahead_codes": 40}, "0 to 29")):
        write_json(tmp_path / "generation_config.json", {"speech": wrong})
        with pytest.raises(CheckpointError, match=f"generation_config.json: speech: .*{message}"):
            load_parts(tmp_path)
