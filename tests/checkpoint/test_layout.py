"""Model folders: what is saved loads back identically, official variants load, faults are named."""

import json
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from model_parts import LLM, make_parts
from safetensors.torch import load_file, save_file

from kimi_audio.checkpoint.files import INDEX, SINGLE
from kimi_audio.checkpoint.hub import resolve
from kimi_audio.checkpoint.layout import (
    ACOUSTIC_FOLDER,
    SEMANTIC_FOLDER,
    load_llm,
    load_parts,
    load_whisper,
    save_parts,
)
from kimi_audio.checkpoint.loading import tensors_of
from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.pronunciation import Lexicon


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture
def folder(tmp_path):
    save_parts(tmp_path / "model", make_parts(), shard_bytes=20_000)
    return tmp_path / "model"


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_loads_identically(tmp_path, tied):
    parts = replace(make_parts(tie_word_embeddings=tied), lexicon=Lexicon({"cat": "kQt", "a": "x"}) if tied else None)
    save_parts(tmp_path / "m", parts, shard_bytes=20_000)
    assert (tmp_path / "m" / INDEX).exists()
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 3
    loaded = load_parts(tmp_path / "m")
    for name in ("llm", "acoustic", "semantic"):
        assert_same(tensors_of(getattr(loaded, name)), tensors_of(getattr(parts, name)))
    assert (loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight) == tied
    assert loaded.llm.config.to_dict() == loaded.llm.config.to_dict() | LLM | {"tie_word_embeddings": tied}
    assert loaded.acoustic is not None and loaded.acoustic.clip_silence
    assert loaded.tokenizer.ranks == parts.tokenizer.ranks
    assert (loaded.lexicon and loaded.lexicon.words) == (parts.lexicon and parts.lexicon.words)
    assert loaded.generation_config == parts.generation_config
    save_parts(tmp_path / "again", loaded, shard_bytes=20_000)
    for path in sorted((tmp_path / "again").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "m" / path.relative_to(tmp_path / "again")).read_bytes(), path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype(folder, dtype):
    parts = load_parts(folder, dtype=dtype)
    assert {tensor.dtype for tensor in tensors_of(parts.llm).values()} == {dtype}
    assert_same(tensors_of(parts.llm), {k: v.to(dtype) for k, v in tensors_of(make_parts().llm).items()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_auto_computes_in_what_the_processor_multiplies(folder, monkeypatch, dtype):
    monkeypatch.setattr("kimi_audio.checkpoint.layout.quickest_float", lambda: dtype)
    parts = load_parts(folder, dtype="auto")
    assert {tensor.dtype for tensor in tensors_of(parts.acoustic.encoder).values()} == {dtype}
    assert {tensor.dtype for tensor in tensors_of(parts.semantic).values()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "int4"])
def test_codes_are_the_same_in_every_dtype(folder, dtype):
    samples = torch.randn(64_000, generator=torch.Generator().manual_seed(0)).numpy()
    exact, ours = (load_parts(folder, dtype=name).semantic.encode([samples])[0] for name in ("float32", dtype))
    assert len(exact.unique()) > 1 and torch.equal(ours, exact)


def test_unknown_dtype(folder):
    with pytest.raises(ConfigError, match="'int3'; accepted are float32"):
        load_parts(folder, dtype="int3")


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
def test_both_whisper_prefixes(tmp_path, prefix):
    save_parts(tmp_path / "m", make_parts())
    whisper = tmp_path / "m" / ACOUSTIC_FOLDER
    bare = {name.removeprefix("model.encoder."): value for name, value in load_file(whisper / SINGLE).items()}
    decoder = {"model.decoder.layer_norm.weight": torch.ones(4), "proj_out.weight": torch.ones(4)}
    save_file({prefix + name: value for name, value in bare.items()} | decoder, whisper / SINGLE)
    assert_same(tensors_of(load_whisper(whisper)), bare)


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.weight"), "lm_head.weight is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "extra has no place"),
        (lambda t: t.update({"lm_head.weight": torch.ones(368, 31)}), r"\[368, 31\].*asks for \[368, 32\]"),
        (lambda t: t.update({"lm_head.weight": torch.ones(368, 32).long()}), "dtype torch.int64"),
    ],
)
def test_wrong_tensors(tmp_path, change, message):
    save_parts(tmp_path / "m", make_parts())
    rewrite(tmp_path / "m" / SINGLE, change)
    with pytest.raises(CheckpointError, match=message):
        load_llm(tmp_path / "m")


def test_missing_shard_is_named(folder):
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load_parts(folder)


def test_config_faults(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    with pytest.raises(CheckpointError, match=r"config\.json: field 'hidden_size' is missing"):
        load_parts(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_parts(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="not a model folder"):
        load_parts(folder)


def test_names_that_are_no_model(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(tmp_path / "file")
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(tmp_path / "absent")
    monkeypatch.setenv("KIMI_AUDIO_MODEL", str(tmp_path))
    assert resolve() == tmp_path
    monkeypatch.setenv("KIMI_AUDIO_MODEL", str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve()


def test_offline_hub_id_is_one_sentence(tmp_path):
    code = (
        "from kimi_audio.checkpoint.hub import resolve\n"
        "from kimi_audio.errors import CheckpointError, ConfigError\n"
        "try: resolve('nobody/no-such-model')\n"
        "except CheckpointError as error: print(error)\n"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nobody/no-such-model: is no folder here, and cannot be fetched")


def test_saving_replaces_a_model_and_keeps_its_readme(folder):
    (folder / "README.md").write_text("about")
    (folder / "model-00099-of-00099.safetensors").write_text("stale")
    save_parts(folder, make_parts(kimia_mimo_layers=0))
    assert (folder / "README.md").read_text() == "about"
    assert [path.name for path in folder.glob("model*")] == [SINGLE]
    assert load_parts(folder).llm.config.kimia_mimo_layers == 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_saving_spares_other_folders(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not overwritten"):
        save_parts(tmp_path, make_parts())


def test_full_disk_leaves_the_old_model(folder):
    """A limit on file size stands in for a full disk: the write fails in the middle."""
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_parts(folder, make_parts())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


PEAK = """
import resource, sys
from kimi_audio.checkpoint.layout import load_llm
warm = load_llm(sys.argv[1], dtype=sys.argv[3])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
big = load_llm(sys.argv[2], dtype=sys.argv[3])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
print(peak * (1 if sys.platform == "darwin" else 1024))
"""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1 + 2 / 1024, "int4": 0.5 + 4 / 32}
"""A weight and its share of the scales, in the kernels' packing."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "wanted"),
    [("float16", "float32"), ("float32", "bfloat16"), ("float16", "float16"), ("float32", "int8"), ("float32", "int4")],
)
def test_peak_memory(tmp_path, folder, stored, wanted):
    big = make_parts(vocab_size=12_000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=6)
    big.llm.to(getattr(torch, stored))
    save_parts(tmp_path / "big", big)
    command = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / "big"), wanted]
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    # Embeddings have 8 bits also where the rest has 4.
    embedded = big.llm.model.embed_tokens.weight.numel()
    size = sum(parameter.numel() for parameter in big.llm.parameters()) * BYTES[wanted]
    size += embedded * (BYTES["int8"] - BYTES["int4"]) if wanted == "int4" else 0
    assert int(done.stdout) <= 1.1 * size, int(done.stdout) / size


def test_semantic_tokenizer_is_looked_up_on_the_hub_when_absent(folder, monkeypatch):
    (folder / SEMANTIC_FOLDER).rename(folder.parent / "elsewhere")
    asked = []

    def snapshot_download(repo_id, allow_patterns):
        asked.append(repo_id)
        return str(folder.parent / "elsewhere")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert_same(tensors_of(load_parts(folder).semantic), tensors_of(make_parts().semantic))
    assert asked == ["THUDM/glm-4-voice-tokenizer"]
