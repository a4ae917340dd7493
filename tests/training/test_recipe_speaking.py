"""Recipes of what speaks, flow, vocoder and audio branch, from the YAML file to the exported model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from recipe_folder import write_lines
from tiny_model import tiny_model

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.data.cache import variant_key
from kimi_audio.errors import ConfigError, DataError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.pronunciation import Lexicon
from kimi_audio.training.recipe import read_recipe, run_recipe

SPEAKING = """
objective: {objective}
model: {model}
run: runs/{objective}
cache: cache
recordings: [tones.jsonl]
dev: tones.jsonl
train: {{steps: 2, learning_rate: 1e-3, evaluate_steps: 2}}
"""
FRESH = "fresh: {hidden_size: 16, depth: 1, num_heads: 2, channels: 32, kernels: [3]}\n"


def test_a_detokenizer_from_nothing_to_a_model_that_has_one(folder):
    first = SPEAKING.format(objective="flow", model="init") + FRESH
    (folder / "flow.yaml").write_text(first + "chunk_seconds: [0.1, 0.2]\n")
    assert run_recipe(folder / "flow.yaml").dev["velocity_error"] > 0
    second = SPEAKING.format(objective="vocoder", model="runs/flow/model")
    (folder / "vocoder.yaml").write_text(second + "discriminator_channels: 2\nbatch: 2\nsegment_frames: 8\n")
    assert run_recipe(folder / "vocoder.yaml").dev["mel_loss"] > 0
    one, both = (load_parts(folder / f"runs/{name}/model").detokenizer for name in ("flow", "vocoder"))
    assert one is not None and both is not None
    assert torch.equal(one.flow.input_linear.weight, both.flow.input_linear.weight)
    assert not torch.equal(one.vocoder.conv_pre.weight, both.vocoder.conv_pre.weight)
    assert len(both([1, 2, 3])) == 3 * 1920


def test_a_new_flow_with_a_vocoder_that_is_there(folder):
    first = SPEAKING.format(objective="vocoder", model="init") + FRESH.replace("kernels", "istft_hop: 4, kernels")
    first += "discriminator_channels: 2\nbatch: 2\nsegment_frames: 8\n"
    (folder / "vocoder.yaml").write_text(first.replace("kernels", "upsample_rates: [10, 12], kernels"))
    run_recipe(folder / "vocoder.yaml")
    fresh = FRESH.replace("}", ", vocoder: runs/vocoder/model/vocoder}")
    (folder / "flow.yaml").write_text(SPEAKING.format(objective="flow", model="init") + fresh)
    run_recipe(folder / "flow.yaml")
    one, both = (load_parts(folder / f"runs/{name}/model").detokenizer for name in ("vocoder", "flow"))
    assert one is not None and both is not None and both.vocoder.config == one.vocoder.config
    assert torch.equal(one.vocoder.conv_pre.weight, both.vocoder.conv_pre.weight)
    assert not torch.equal(one.flow.input_linear.weight, both.flow.input_linear.weight)
    assert len(both([1, 2, 3])) == 3 * 1920


def test_a_new_detokenizer_is_asked_for_just_where_there_is_none(folder):
    (folder / "flow.yaml").write_text(SPEAKING.format(objective="flow", model="init"))
    with pytest.raises(ConfigError, match="has no detokenizer; set fresh"):
        run_recipe(folder / "flow.yaml")


SPEAK = """
objective: sft
model: listens
run: runs/speak
cache: cache
capacity: 128
audio_branch: {layers: 1, after: 0}
text_loss: false
augment: {variants: 1, clean: false}
regularisation: {corrupt_codes: 0.1}
rates: {llm: 0, llm.model.mimo_layers: 1, llm.model.mimo_norm: 1, llm.mimo_output: 1}
train: {steps: 3, learning_rate: 5e-3, evaluate_steps: 3}
data:
  - {manifest: tones.jsonl, task: say, weight: 1, dev: tones.jsonl, dev_items: 4}
  - {manifest: others.jsonl, task: say, weight: 1, instructions: texts.txt, dev: others.jsonl}
  - {manifest: talk.jsonl, weight: 1}
"""


def test_a_model_with_a_lexicon_learns_from_phonemes_as_far_as_they_fit(folder, capsys):
    parts = replace(tiny_model(speaks=True).parts, lexicon=Lexicon({"hm": "hxm", "ha": "ha"}))
    save_parts(folder / "listens", parts)
    recording = json.loads((folder / "tones.jsonl").read_text().splitlines()[0])
    write_lines(folder / "tones.jsonl", [recording | {"text": text} for text in ("hm ha", "hm " * 40)])
    answer = {"role": "assistant", "message_type": "audio-text", "content": [recording["audio"], "ha"]}
    write_lines(folder / "talk.jsonl", [{"messages": [answer]}])
    (folder / "others.jsonl").write_text((folder / "tones.jsonl").read_text())
    (folder / "speak.yaml").write_text(SPEAK.replace("audio_branch: {layers: 1, after: 0}\n", ""))
    say, _, talk = read_recipe(folder / "speak.yaml").build().mixture.sources
    assert len(say) == 1 and "tones.jsonl: 1 of 2 left out" in capsys.readouterr().err
    phonemes = parts.tokenizer.spell("hxm ha")
    assert [i for i in say.prompt(0, np.random.default_rng(0)).text_ids if i in phonemes][-6:] == phonemes
    assert parts.tokenizer.spell("ha")[0] in talk.prompt(0, np.random.default_rng(0)).text_ids
    write_lines(folder / "tones.jsonl", [recording | {"text": "hm " * 40}])
    with pytest.raises(DataError, match="every sound is too short for its text"):
        read_recipe(folder / "speak.yaml").build()


def test_an_audio_branch_learns_to_speak_while_the_rest_stands_still(folder):
    parts = tiny_model(seed=2).parts
    parts.llm = AudioLLM(replace(parts.llm.config, kimia_mimo_layers=0)).eval()
    save_parts(folder / "listens", parts)
    question = {"role": "user", "message_type": "audio", "content": "3.wav"}
    answer = {"role": "assistant", "message_type": "audio-text", "content": ["4.wav", "hm"]}
    write_lines(folder / "talk.jsonl", [{"messages": [question, answer]}])
    (folder / "others.jsonl").write_text((folder / "tones.jsonl").read_text())
    (folder / "speak.yaml").write_text(SPEAK)
    recipe = read_recipe(folder / "speak.yaml")
    # Answers are learned from the recording itself, by its codes alone; what is heard is varied and has features.
    ears = recipe.build().mixture.sources[2].reader.ears
    said, heard = (str(folder / name) for name in ("4.wav", "3.wav"))
    assert ears.said(said).features is None and ears.heard(variant_key(heard, 1)).features is not None
    assert said not in ears.cache and heard not in ears.cache
    result = run_recipe(folder / "speak.yaml")
    assert result.finished and result.dev["say_loss"] != result.dev["others_loss"]
    trained = load_parts(folder / "runs/speak/model").llm
    config, before = trained.config, parts.llm.state_dict()
    assert (config.kimia_mimo_layers, config.kimia_mimo_transformer_from_layer_index) == (1, 0)
    assert trained.mimo_output.out_features == config.vocab_size - config.num_base_tokens
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items() if name in before)
    copied = before["model.layers.1.mlp.up_proj.weight"]
    assert not torch.equal(trained.model.mimo_layers[0].mlp.up_proj.weight, copied)

    (folder / "speak.yaml").write_text(SPEAK.replace("after: 0", "after: 2"))
    with pytest.raises(ConfigError, match="needs a trunk of more than 3 layers; this one has 3"):
        read_recipe(folder / "speak.yaml").build()
