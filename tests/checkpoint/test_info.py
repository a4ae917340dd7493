"""What `info` says of a model folder."""

import pytest
from model_parts import make_parts

from kimi_audio.checkpoint.info import describe
from kimi_audio.checkpoint.layout import Storage, save_parts
from kimi_audio.checkpoint.loading import tensors_of
from kimi_audio.errors import CheckpointError

CARD = "---\nlicense: apache-2.0\ndatasets: [kathleen, digits]\n---\n# A model\n"


@pytest.mark.parametrize("storage", [Storage(), Storage(llm=4, embedding=8)])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_counted_once(tmp_path, storage, tied):
    parts = make_parts(tie_word_embeddings=tied)
    save_parts(tmp_path / "m", parts, storage)
    info = describe(tmp_path / "m")
    assert parts.acoustic is not None
    modules = (parts.llm, parts.acoustic.encoder, parts.semantic)
    assert sum(info.parameters.values()) == sum(t.numel() for m in modules for t in tensors_of(m).values())
    assert info.parameters["trunk"] == info.parameters["audio branch"] - 32, "two layers each, and a norm"
    assert ("text head" in info.parameters) != tied
    assert ("4-bit" in info.dtypes) == (storage.llm == 4)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "m").rglob("*.safetensors"))
    assert 0.8 * on_disk < info.num_bytes < on_disk
    assert (info.licence, info.training_data) == ("not stated", "not stated")
    assert all(isinstance(value, str) for _, value in info.items())


def test_model_card(tmp_path):
    save_parts(tmp_path / "m", make_parts())
    card = tmp_path / "m" / "README.md"
    card.write_text(CARD)
    labelled = dict(describe(tmp_path / "m").items())
    assert labelled["licence"] == "apache-2.0"
    assert labelled["training data"] == "kathleen, digits"
    assert labelled["audio codes"] == "320 … 367"
    card.write_text("# No header\n---\nrule\n---\n")
    assert describe(tmp_path / "m").licence == "not stated"
    card.write_text("---\n: [\n---\n")
    with pytest.raises(CheckpointError, match="YAML"):
        describe(tmp_path / "m")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a model folder"):
        describe(tmp_path)
