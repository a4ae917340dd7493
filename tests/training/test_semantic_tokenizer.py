import json
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import DataError
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.training.objectives.semantic_tokenizer import CodeReader, SemanticTokenizerObjective, TokenizerTraining
from kimi_audio.training.trainer import TrainConfig, Trainer

CODES = 24
CONFIG = SemanticTokenizerConfig(
    d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, pooling_position=1,
    quantize_position=1, quantize_vocab_size=CODES, quantize_loss_scale=1.0,
)  # fmt: skip


@pytest.fixture
def store(tmp_path) -> WaveformStore:
    """Twelve tones of three pitches, each pitch with its letter."""
    rows = []
    for number in range(12):
        tone = 0.5 * np.sin(2 * np.pi * 300 * 2 ** (number % 3) * np.arange(6000 + 500 * number) / 16000)
        soundfile.write(tmp_path / f"{number}.wav", tone, 16000)
        rows.append({"audio": str(tmp_path / f"{number}.wav"), "duration": 0.5, "text": "abc"[number % 3]})
    (tmp_path / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return WaveformStore.build([tmp_path / "tones.jsonl"], tmp_path / "store")


@pytest.fixture
def training() -> TokenizerTraining:
    torch.manual_seed(1)
    return TokenizerTraining(SemanticTokenizer(CONFIG))


def test_the_reader_reads_what_is_near():
    """A code more than half a second away changes nothing, so a stream can be spoken from the codes around."""
    torch.manual_seed(0)
    reader, states, mean = CodeReader(16, 80, width=8), torch.randn(1, 20, 16), torch.zeros(1, 80)
    other = states.clone()
    other[:, 10] += 1.0
    letters, mels = reader(states, mean)
    assert letters.shape == (1, 80, 29) and mels.shape == (1, 80, 80)
    changed = (reader(other, mean)[0] != letters).any(-1)[0].nonzero()
    assert changed.min() >= 40 - 12 and changed.max() < 44 + 12


def test_codes_follow_their_states(training):
    training.train()
    tokenizer = training.tokenizer
    tokenizer.codebook.weight.data.normal_()
    training.ema_weight.copy_(tokenizer.codebook.weight)
    training.ema_count.fill_(1.0)
    hidden = tokenizer.codebook.weight[3].detach()[None, None] + 0.05 * torch.randn(1, 50, 16)
    valid = torch.ones(1, 50, dtype=torch.bool)
    other = tokenizer.codebook.weight[5].clone()
    quantised = training.quantise(hidden, valid)
    assert quantised.codes_BT.unique().tolist() == [3]
    for _ in range(60):
        training.quantise(hidden, valid)
    torch.testing.assert_close(tokenizer.codebook.weight[3], hidden.mean((0, 1)), atol=0.02, rtol=0)
    torch.testing.assert_close(tokenizer.codebook.weight[5], other, atol=0.02, rtol=0)


def test_straight_through_and_commitment(training):
    training.eval()
    hidden = torch.randn(1, 4, 16, requires_grad=True)
    valid = torch.tensor([[True, True, True, False]])
    quantised = training.quantise(hidden, valid)
    nearest = training.tokenizer.codebook(quantised.codes_BT)
    torch.testing.assert_close(quantised.states_BTD, nearest)
    expected = 0.25 * (hidden - nearest)[:, :3].square().mean()
    torch.testing.assert_close(quantised.commitment, expected)
    gradient = torch.autograd.grad(quantised.states_BTD.sum(), hidden)[0]
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert int(training.updates) == 0  # nothing is learnt in evaluation mode


def test_the_first_updates_pass_states_on_unquantised(training):
    training.train()
    training.open_updates = 2
    hidden, valid = torch.randn(1, 4, 16), torch.ones(1, 4, dtype=torch.bool)
    for _ in range(2):
        quantised = training.quantise(hidden, valid)
        assert quantised.states_BTD is hidden and quantised.commitment == 0
    assert int(training.updates) == 2  # the codebook follows all the same
    assert not torch.equal(training.quantise(hidden, valid).states_BTD, hidden)


def test_dead_codes_are_placed_on_states_and_used_again(training):
    training.train()
    tokenizer = training.tokenizer
    generator = torch.Generator().manual_seed(0)
    tokenizer.codebook.weight.data.fill_(50.0)
    tokenizer.codebook.weight.data[0] = 0.0
    training.ema_weight.copy_(tokenizer.codebook.weight)
    training.ema_count.fill_(1.0)
    valid = torch.ones(1, 200, dtype=torch.bool)
    for _ in range(99):
        assert training.quantise(torch.randn(1, 200, 16, generator=generator), valid).codes_BT.unique().tolist() == [0]
    training.quantise(torch.randn(1, 200, 16, generator=generator), valid)  # the hundredth restarts
    used = training.quantise(torch.randn(1, 200, 16, generator=generator), valid).codes_BT.unique()
    assert len(used) > CODES * 0.8


def test_it_learns_to_spell_through_the_codes_and_resumes(training, store, tmp_path):
    def objective(model):
        torch.manual_seed(2)
        return SemanticTokenizerObjective(model, store, dev={"tones": store}, batch_seconds=2.0)

    config = TrainConfig(steps=300, learning_rate=3e-3, final_learning_rate=1e-3, weight_decay=0.0, evaluate_steps=100)
    first = objective(training)
    before = first.evaluate()
    result = Trainer(first, config, tmp_path / "run").fit()
    assert result.dev["cer_tones"] < 0.2 < before["cer_tones"]
    assert result.dev["mel_tones"] < before["mel_tones"] / 2
    assert result.dev["codes_used"] >= 3 / CODES
    codebook = training.tokenizer.codebook.weight.clone()
    again = Trainer(objective(training.requires_grad_(True)), config, tmp_path / "run")
    assert not torch.equal(training.tokenizer.codebook.weight, codebook)  # a new objective placed the codes anew,
    again.fit(resume=True)
    assert torch.equal(training.tokenizer.codebook.weight, codebook)  # the checkpoint brought them back


def test_batches_are_the_same_from_any_start(training, store):
    objective = SemanticTokenizerObjective(training, store, batch_seconds=2.0)
    whole = list(islice(objective.batches(0), 12))
    for start in (1, 7):
        for batch, expected in zip(objective.batches(start), whole[start:], strict=False):
            assert torch.equal(batch.log_mel, expected.log_mel) and batch.letters == expected.letters


def test_a_spectrum_is_that_of_its_recording_alone(training, store):
    """Padding changes neither the mean nor what is to be read."""
    objective = SemanticTokenizerObjective(training, store, batch_seconds=2.0)
    alone, beside = objective._batch(store, [0]), objective._batch(store, [0, 11])
    frames = int(alone.valid.sum()) // 2
    assert torch.equal(alone.mean[0], beside.mean[0])
    assert torch.equal(alone.spectrum[0, :frames], beside.spectrum[0, :frames])
    assert abs(float(alone.spectrum[0, :frames].mean())) < 0.05


def test_transcripts_too_long_for_their_recordings_are_left_out(training, store):
    store.rows[3]["text"], store.rows[4]["text"] = "a" * 200, "?!"
    assert 3 not in (usable := SemanticTokenizerObjective(training, store).usable) and 4 not in usable
    for row in store.rows:
        row["text"] = ""
    with pytest.raises(DataError, match="no recording has a transcript that fits"):
        SemanticTokenizerObjective(training, store)
