"""The official fine-tuning loss and its first AdamW steps, from the official code's figures."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.messages import messages_from
from kimi_audio.prompt import Heard, build_prompt
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objectives.language import LanguageObjective
from kimi_audio.training.packing import PackedRow
from kimi_audio.vocab import Vocabulary

SHARED = Path(os.environ.get("KIMI_AUDIO_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden" / "sft_labels"
CASES = ("asr", "asr_audio_first", "text_audio_answer", "multi_turn")


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip("the golden cases are not here")
    return json.loads((GOLDEN / "config.json").read_text()), load_file(GOLDEN / "inputs.safetensors")


@pytest.fixture
def objective(golden):
    config, _ = golden
    llm = AudioLLM(KimiAudioConfig.from_dict(config))
    encoder = AcousticEncoder(WhisperEncoder(WhisperEncoderConfig.from_dict(config["whisper"])))
    weights = load_file(GOLDEN / "weights.safetensors")
    prefix = "whisper_model.speech_encoder."
    encoder.encoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    llm.load_state_dict({k: v for k, v in weights.items() if not k.startswith(prefix)})
    vocab = Vocabulary.from_config(config)

    def prompt_of(case):
        def listen(name):
            wave = golden[1][f"wav16k_int16.{name}"].float() / 32768
            return Heard([c - vocab.token_offset for c in config["codes_with_offset"][name]], wave)

        messages = messages_from(config["cases"][case]["conversation"])
        task = config["cases"][case]["task_type"]
        return build_prompt(
            messages,
            vocab,
            lambda text: list(text.encode()),
            listen,
            output_type="text" if task == "understanding" else "both",
            training=True,
            open_answer=False,
        )

    class Cases:
        def __len__(self):
            return len(CASES)

        def prompt(self, index, rng):
            return prompt_of(CASES[index])

    objective = LanguageObjective(llm, Mixture([Cases()], [1.0], 512), vocab, encoder=encoder)
    objective.prompt_of = prompt_of
    return objective


@pytest.mark.parametrize("case", CASES)
def test_loss_is_the_official_one(golden, objective, case):
    expected = load_file(GOLDEN / "expected.safetensors")
    prompt = objective.prompt_of(case)
    assert prompt.audio_ids == golden[1][f"{case}.audio_ids"][0].tolist()
    assert prompt.text_ids == golden[1][f"{case}.text_ids"][0].tolist()
    loss, metrics = objective.loss(PackedRow.of([prompt]))
    assert loss.item() == pytest.approx(float(expected[f"{case}.loss"]), abs=2e-5)
    assert float(metrics.get("text_loss", 0.0)) == pytest.approx(float(expected[f"{case}.text_loss"]), abs=2e-5)
    assert float(metrics.get("audio_loss", 0.0)) == pytest.approx(float(expected[f"{case}.audio_loss"]), abs=2e-5)


def test_four_optimiser_steps_go_the_official_way(objective):
    expected = load_file(GOLDEN / "expected.safetensors")["asr.adamw_losses"]
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    row, losses = PackedRow.of([objective.prompt_of("asr")]), []
    for _ in range(4):
        loss, _ = objective.loss(row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(expected.tolist(), abs=1e-4)
