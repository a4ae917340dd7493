"""Recipes from the YAML file to the exported model, on a tiny model folder and tiny sounds."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from recipe_folder import write_lines
from tiny_model import WHISPER

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.checkpoint.quantise import quantise
from kimi_audio.data.cache import variant_key
from kimi_audio.errors import AudioError, ConfigError, DataError
from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.phonemes import PhonemeConfig, PhonemeReader
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.tokenizer.whisper import WhisperEncoder
from kimi_audio.training.logs import read_metrics
from kimi_audio.training.recipe import read_recipe, run_recipe
from kimi_audio.training.recipes.ears import CachedEars, Listening

SFT = """
objective: sft
model: init
run: runs/sft
cache: cache
capacity: 256
augment: {variants: 1}
regularisation: {label_smoothing: 0.05, corrupt_text: 0.05, mask_features: 0.1}
rates: {llm.model.vq_adaptor: 2.0, llm.mimo_output: 0}
train: {steps: 6, learning_rate: 5e-3, evaluate_steps: 3, checkpoint_steps: 3}
data:
  - {manifest: tones.jsonl, task: recognition, weight: 3, dev: tones.jsonl, dev_items: 4, spoken: tones.jsonl}
  - manifest: chat.jsonl
    weight: 1
"""


def test_instruction_tuning_from_recipe_to_model(folder):
    (folder / "sft.yaml").write_text(SFT)
    before = load_parts(folder / "init")
    result = run_recipe(folder / "sft.yaml")
    assert result.finished and result.dev["recognition_loss"] > 0
    trained = load_parts(folder / "runs/sft/model")
    assert not torch.equal(trained.llm.model.norm.weight, before.llm.model.norm.weight)
    assert torch.equal(trained.llm.mimo_output.weight, before.llm.mimo_output.weight)
    assert torch.equal(trained.semantic.codebook.weight, before.semantic.codebook.weight)
    with pytest.raises(ConfigError, match="holds a training run already"):
        run_recipe(folder / "sft.yaml")
    (folder / "sft.yaml").write_text(SFT.replace("steps: 6", "steps: 8"))
    assert run_recipe(folder / "sft.yaml", resume=True).step == 8


def test_a_teacher_holds_what_is_trained_to_what_it_says(folder):
    moved = []
    for number, teacher in enumerate(["", "teacher: {model: init, share: 1.0}\n"]):
        recipe = SFT.replace("runs/sft", f"runs/{number}").replace("rates: {", "rates: {llm.lm_head: 0, ")
        (folder / "sft.yaml").write_text(recipe + teacher)
        run_recipe(folder / "sft.yaml")
        before, after = (load_parts(path).llm.model for path in (folder / "init", folder / f"runs/{number}/model"))
        moved.append((after.layers[0].mlp.up_proj.weight - before.layers[0].mlp.up_proj.weight).norm())
    assert moved[1] < 0.7 * moved[0]
    (folder / "sft.yaml").write_text(SFT + "teacher: {model: init, share: 1.5}\n")
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        read_recipe(folder / "sft.yaml")


def test_layers_that_learn_in_few_bits_are_exported_so(folder):
    layer = "llm.model.layers.0.mlp.gate_proj"
    (folder / "sft.yaml").write_text(SFT + f"few_bits: [{layer}]\n")
    assert run_recipe(folder / "sft.yaml").finished
    before, trained = (load_parts(folder / name).llm for name in ("init", "runs/sft/model"))
    gate, up = trained.model.layers[0].mlp.gate_proj.weight, trained.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(gate, before.model.layers[0].mlp.gate_proj.weight)
    torch.testing.assert_close(gate, quantise(gate, 4).dequantise())
    assert not torch.allclose(up, quantise(up, 4).dequantise())


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_losses(folder):
    """`kimi-audio train` on a real recipe, killed while it trains: every later loss is that of an unbroken run."""

    def train(run: str, *more: str) -> subprocess.Popen:
        recipe = folder / f"{run}.yaml"
        recipe.write_text(SFT.replace("runs/sft", run).replace("steps: 6", "steps: 30"))
        command = "from kimi_audio.cli import main; main()"
        return subprocess.Popen([sys.executable, "-c", command, "train", str(recipe), *more], stderr=subprocess.DEVNULL)

    def losses(run: str) -> dict[int, float]:
        lines = read_metrics(folder / run / "metrics.jsonl")
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    assert train("whole").wait() == 0
    killed, end = train("killed"), time.monotonic() + 300
    while len(losses("killed")) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert 10 <= len(losses("killed")) < 30
    assert train("killed", "--resume").wait() == 0
    assert losses("killed") == losses("whole") and len(losses("whole")) == 30


def test_recordings_are_heard_once(folder, monkeypatch):
    (folder / "sft.yaml").write_text(SFT)
    read_recipe(folder / "sft.yaml").build()
    monkeypatch.setattr(SemanticTokenizer, "encode", None)
    objective = read_recipe(folder / "sft.yaml").build()
    row = next(objective.batches(0))
    assert torch.equal(row.audio_ids, next(objective.batches(0)).audio_ids)
    assert len(row.lengths) > 1


def test_variants_alone_are_heard_where_clean_is_not_wanted(folder):
    recipe = SFT.replace("{variants: 1}", "{variants: 1, clean: false}").replace("dev: tones.jsonl, dev_items: 4, ", "")
    (folder / "sft.yaml").write_text(recipe)
    read = read_recipe(folder / "sft.yaml").build().mixture.sources[0].reader
    heard = [variant_key(str(folder / "0.wav"), variant) in read.ears.cache for variant in range(3)]
    assert heard == [False, True, False]
    assert read.listen(str(folder / "0.wav"), np.random.default_rng(0)) is not None


def test_other_features_have_another_cache(folder):
    def name(acoustic: AcousticEncoder | None, bfloat16: bool) -> str:
        parts = replace(load_parts(folder / "init"), acoustic=acoustic)
        ears = CachedEars(folder / "init", parts, folder / "cache", None, Listening(bfloat16=bfloat16))
        return ears.cache.folder.name

    encoder = WhisperEncoder(WHISPER)
    clipped, spare = AcousticEncoder(encoder, clip_silence=True), AcousticEncoder(encoder, True, spare_frames=50)
    heard = [(AcousticEncoder(encoder), False), (clipped, False), (clipped, True), (spare, True), (None, False)]
    assert len({name(*how) for how in heard}) == len(heard)
    assert name(clipped, False).endswith("-float32-clip0") and name(spare, True).endswith("-bfloat16-clip50")


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_hear_the_same_and_an_unreadable_recording_is_named(folder, workers):
    parts = load_parts(folder / "init")
    ears = CachedEars(folder / "init", parts, folder / f"cache-{workers}", None, Listening(workers=workers))
    sound = str(folder / "3.wav")
    ears.hear([sound, str(folder / "4.wav")])
    samples = soundfile.read(sound, dtype="float32")[0]
    assert ears.heard(sound).codes == parts.semantic.encode([samples])[0].tolist()
    torch.testing.assert_close(ears.heard(sound).features.float(), parts.acoustic(samples), atol=2e-3, rtol=2e-3)
    (folder / "noise.wav").write_bytes(b"no sound at all")
    with pytest.raises(AudioError, match=r"noise\.wav") as caught:
        ears.learn_to_say([str(folder / "noise.wav")])
    assert "\n" not in str(caught.value)


def test_the_encoder_can_be_trained_along(folder):
    live = SFT.replace("capacity: 256", "train_encoder: true\nfrozen_until: {encoder: 0.5}")
    live = live.replace("steps: 6", "steps: 4")
    (folder / "sft.yaml").write_text(live)
    with pytest.raises(ConfigError, match="mask_features works on cached features"):
        run_recipe(folder / "sft.yaml")
    (folder / "sft.yaml").write_text(live.replace(", mask_features: 0.1", ""))
    objective = read_recipe(folder / "sft.yaml").build()
    heard, batch = [], next(objective.batches(0))
    objective.encoder.encoder.conv1.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    for training in (True, True, False, False):
        objective.model.train(training)
        objective.loss(batch)
    count = len(batch.features)
    masked, again, whole, twice = (torch.stack([mel.mean() for mel in heard[i * count :][:count]]) for i in range(4))
    assert not torch.equal(masked, again) and not torch.equal(masked, whole) and torch.equal(whole, twice)
    before = load_parts(folder / "init").acoustic.encoder.state_dict()
    assert run_recipe(folder / "sft.yaml").dev["recognition_loss"] > 0
    after = load_parts(folder / "runs/sft/model").acoustic.encoder.state_dict()
    assert not torch.equal(after["conv1.weight"], before["conv1.weight"])


ADAPTOR = """
objective: adaptor
model: init
run: runs/a
cache: cache
recordings: [tones.jsonl]
dev: {tones: tones.jsonl}
augment: {}
frozen_until: {encoder: 0.5}
train: {steps: 4, learning_rate: 0.01, evaluate_steps: 4}
"""


def test_encoder_and_adaptor(folder):
    (folder / "adaptor.yaml").write_text(ADAPTOR)
    result = run_recipe(folder / "adaptor.yaml")
    assert {"wer_tones", "accuracy_tones"} <= result.dev.keys()
    before, after = (load_parts(folder / name) for name in ("init", "runs/a/model"))
    changed = changes(before.llm, after.llm)
    assert changed and all(name.startswith("model.vq_adaptor.") for name in changed)
    changed = changes(before.acoustic.encoder, after.acoustic.encoder)
    assert "conv1.weight" in changed and "embed_positions.weight" not in changed


def test_the_adaptor_alone(folder):
    (folder / "adaptor.yaml").write_text(ADAPTOR.replace("frozen_until: {encoder: 0.5}", "rates: {encoder: 0}"))
    with pytest.raises(ConfigError, match="augment is for an encoder in training"):
        read_recipe(folder / "adaptor.yaml").build()
    (folder / "adaptor.yaml").write_text((folder / "adaptor.yaml").read_text().replace("augment: {}\n", ""))
    assert run_recipe(folder / "adaptor.yaml").finished
    before, after = (load_parts(folder / name) for name in ("init", "runs/a/model"))
    assert changes(before.llm, after.llm) and not changes(before.acoustic.encoder, after.acoustic.encoder)


def test_an_adaptor_like_another(folder):
    """For an encoder that is another, it learns to give what the old one gave of the old, and the labels there are."""
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()]
    write_lines(folder / "tones.jsonl", [row | ({"label": None} if n % 2 else {}) for n, row in enumerate(rows)])
    parts = load_parts(folder / "init")
    torch.nn.init.normal_(parts.acoustic.encoder.conv1.weight, std=0.5)
    save_parts(folder / "other", parts)
    recipe = ADAPTOR.replace("model: init", "model: other\nlike: init").replace("augment: {}\n", "")
    (folder / "adaptor.yaml").write_text(recipe)
    with pytest.raises(ConfigError, match="like is for an encoder that is not trained"):
        read_recipe(folder / "adaptor.yaml").build()
    recipe = recipe.replace("frozen_until: {encoder: 0.5}", "rates: {encoder: 0}").replace("steps: 4,", "steps: 60,")
    (folder / "adaptor.yaml").write_text(recipe)
    assert run_recipe(folder / "adaptor.yaml").finished
    losses = [row["likeness_loss"] for row in read_metrics(folder / "runs/a/metrics.jsonl") if "likeness_loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    before, after = (load_parts(folder / name) for name in ("other", "runs/a/model"))
    assert all(name.startswith("model.vq_adaptor.") for name in changes(before.llm, after.llm))


def test_a_head_for_phonemes(folder):
    recipe = folder / "phonemes.yaml"
    recipe.write_text(
        "objective: phonemes\nmodel: init\nrun: runs/p\ncache: cache\nrecordings: [tones.jsonl]\n"
        "dev: {tones: tones.jsonl}\nhidden: 16\nkernel: 3\nlayers: 1\ndropout: 0\naugment: {variants: 1}\n"
        "train: {steps: 60, learning_rate: 0.02, evaluate_steps: 60}\n"
    )
    with pytest.raises(DataError, match="needs a model with an acoustic encoder and a lexicon"):
        run_recipe(recipe)
    Lexicon({"tea": "ti"}).save(folder / "init" / "pronunciations.txt")
    result = run_recipe(recipe)
    before, after = (load_parts(folder / name) for name in ("init", "runs/p/model"))
    assert result.dev["per_tones"] < 0.6 and after.phonemes is not None and before.phonemes is None
    assert not changes(before.llm, after.llm) and not changes(before.acoustic.encoder, after.acoustic.encoder)


def test_encoder_and_head_learn_together(folder):
    """In noise they are to hear the same words, and the language model what it heard before."""
    recipe = folder / "hearing.yaml"
    recipe.write_text(
        "objective: acoustic\nmodel: start\nrun: runs/h\ncache: cache\nrecordings: [tones.jsonl, quiet.jsonl]\n"
        "dev: {tones: tones.jsonl}\naugment: {settings: {noise: 1.0}}\nrates: {encoder: 0.2}\nbatch_seconds: 20\n"
        "train: {steps: 40, learning_rate: 0.01, evaluate_steps: 40}\n"
    )
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()]
    write_lines(folder / "quiet.jsonl", [row | {"text": ""} for row in rows[:1]])
    save_parts(folder / "start", load_parts(folder / "init"))
    with pytest.raises(DataError, match="no head for phonemes"):
        run_recipe(recipe)
    parts = load_parts(folder / "init")
    parts.lexicon, parts.phonemes = Lexicon({"tea": "ti"}), PhonemeReader(PhonemeConfig(16, 16, 3, 1))
    save_parts(folder / "start", parts)
    result = run_recipe(recipe)
    losses = [row["ctc_loss"] for row in read_metrics(folder / "runs/h/metrics.jsonl") if "ctc_loss" in row]
    assert losses[-1] < 0.7 * losses[0] and set(result.dev) == {"per_tones", "per_tones_noisy"}
    before, after = (load_parts(folder / name) for name in ("start", "runs/h/model"))
    assert not changes(before.llm, after.llm)
    heard = changes(before.acoustic.encoder, after.acoustic.encoder)
    assert "conv1.weight" in heard and "embed_positions.weight" not in heard
    assert changes(before.phonemes, after.phonemes)


def changes(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    after_state = after.state_dict()
    return {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after_state[name])}


def test_pretraining_from_recipe_to_model(folder):
    (folder / "pretrain.yaml").write_text(
        "objective: pretrain\nmodel: init\nrun: runs/pre\ncache: cache\ntexts: texts.txt\nrecordings: tones.jsonl\n"
        "capacity: 128\ntrain: {steps: 4, learning_rate: 0.005}\n"
    )
    assert run_recipe(folder / "pretrain.yaml").finished
    assert load_parts(folder / "runs/pre/model").llm.config.kimia_mimo_layers == 2


@pytest.mark.parametrize("more", ["augment: {variants: 2, clean: false}", "augment: {}\ntrain_encoder: true"])
def test_pretraining_hears_variants_and_says_the_clean_recording(folder, more):
    (folder / "pretrain.yaml").write_text(
        "objective: pretrain\nmodel: init\nrun: runs/pre\ncache: cache\ntexts: texts.txt\nrecordings: tones.jsonl\n"
        f"capacity: 128\n{more}\ntrain: {{steps: 2, learning_rate: 0.005}}\n"
    )
    objective = read_recipe(folder / "pretrain.yaml").build()
    clean = load_parts(folder / "init").semantic.encode([soundfile.read(folder / "7.wav", dtype="float32")[0]])[0]
    document = objective.mixture.sources[1].documents[-1]
    *_, last = document(np.random.default_rng(0))
    assert last.said == clean.tolist()
    assert not np.array_equal(last.heard.features, document(np.random.default_rng(1))[-1].heard.features)
    assert run_recipe(folder / "pretrain.yaml").finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("capacity: 256", "capacity: many"), r"sft.yaml:6: field capacity is 'many'; a whole number is expected"),
        (("cache: cache\n", ""), r"sft.yaml:2: field cache is missing"),
        (("steps: 6", "stepps: 6"), r"sft.yaml:10: field train.stepps is unknown; accepted are steps, learning_rate"),
        (("weight: 1", "weight: 1\n    wait: 2"), r"sft.yaml:15: field data\[1\].wait is unknown"),
        (("objective: sft", "objective: sing"), r"sft.yaml:2: field objective is 'sing'; accepted are pretrain, sft"),
        (("steps: 6", "steps: 0"), r"sft.yaml:10: train: steps is 0; it must be at least 1"),
        (("model: init", "model: [a"), r"sft.yaml:\d+: not valid YAML"),
        (("run: runs/sft", "run: a\nrun: b"), r"sft.yaml:5: field run is given twice"),
    ],
)
def test_a_mistake_is_named_with_its_line(folder, change, message):
    (folder / "sft.yaml").write_text(SFT.replace(*change))
    with pytest.raises(ConfigError, match=message):
        read_recipe(folder / "sft.yaml")


def test_mistakes_in_what_a_recipe_points_to(folder):
    (folder / "sft.yaml").write_text(SFT.replace("task: recognition", "task: telepathy"))
    with pytest.raises(DataError, match="no instructions for the task 'telepathy'; the tasks are caption, digit"):
        read_recipe(folder / "sft.yaml").build()
    (folder / "sft.yaml").write_text(SFT.replace("llm.mimo_output", "llm.mimo_outptu"))
    with pytest.raises(ConfigError, match=r"no parameter's name starts with 'llm.mimo_outptu'"):
        run_recipe(folder / "sft.yaml")
    with pytest.raises(ConfigError, match=r"none.yaml: the file cannot be read"):
        read_recipe(folder / "none.yaml")
    assert replace(read_recipe_of(folder), capacity=5).capacity == 5


def read_recipe_of(folder):
    (folder / "sft.yaml").write_text(SFT)
    return read_recipe(folder / "sft.yaml")
