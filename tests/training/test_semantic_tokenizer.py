import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from kimi_audio.data.augment import AugmentConfig, Augmenter
from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.errors import CheckpointError, DataError
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.training.code_readers import IGNORED, DecoderReader, LetterReader, teacher_forcing
from kimi_audio.training.objectives.semantic_tokenizer import SemanticTokenizerObjective, TokenizerTraining
from kimi_audio.training.trainer import TrainConfig, Trainer
from kimi_audio.training.whisper_decoder import WhisperDecoder, WhisperDecoderConfig

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
    return TokenizerTraining(SemanticTokenizer(CONFIG), LetterReader(CONFIG.d_model, CONFIG.num_mel_bins))


def test_the_reader_reads_what_is_near():
    """A code more than half a second away changes nothing, so a stream can be spoken from the codes around."""
    torch.manual_seed(0)
    reader, states, mean = LetterReader(16, 80, width=8), torch.randn(1, 20, 16), torch.zeros(1, 80)
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
            assert torch.equal(batch.log_mel, expected.log_mel) and batch.targets.letters == expected.targets.letters


def test_a_spectrum_is_that_of_its_recording_alone(training, store):
    """Padding changes neither the mean nor what is to be read."""
    objective = SemanticTokenizerObjective(training, store, batch_seconds=2.0)
    alone, beside = objective._batch(store, [0]), objective._batch(store, [0, 11])
    frames = int(alone.valid.sum()) // 2
    assert torch.equal(alone.targets.mean[0], beside.targets.mean[0])
    assert torch.equal(alone.targets.spectrum[0, :frames], beside.targets.spectrum[0, :frames])
    assert abs(float(alone.targets.spectrum[0, :frames].mean())) < 0.05


def test_an_augmented_batch_is_heard_masked_and_read_whole(training, store):
    plain = AugmentConfig(noise=0.0, room=0.0, speed=(1.0, 1.0), gain_db=(0.0, 0.0))
    objective = SemanticTokenizerObjective(training, store, augment=Augmenter(plain), batch_seconds=2.0)
    whole, masked = objective._batch(store, [11]), objective._batch(store, [11], number=0)
    assert torch.equal(masked.targets.spectrum, whole.targets.spectrum)
    assert not torch.equal(masked.log_mel, whole.log_mel) and torch.equal(masked.valid, whole.valid)
    assert torch.equal(masked.log_mel, objective._batch(store, [11], number=0).log_mel)


def test_transcripts_too_long_for_their_recordings_are_left_out(training, store):
    store.rows[3]["text"], store.rows[4]["text"] = "a" * 200, "?!"
    assert 3 not in (usable := SemanticTokenizerObjective(training, store).usable) and 4 not in usable
    for row in store.rows:
        row["text"] = ""
    with pytest.raises(DataError, match="no recording has a transcript that fits"):
        SemanticTokenizerObjective(training, store)


WHISPER = {
    "d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 40, "num_mel_bins": 80,
    "max_source_positions": 1500, "max_target_positions": 32,
}  # fmt: skip


@pytest.fixture
def whisper(tmp_path) -> Path:
    """A random Whisper folder, written by the reference implementation, whose words are single letters."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(**WHISPER, **marks)
    transformers.WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "whisper")
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>", "a", "b", "c"]
    words = tokenizers.models.WordLevel({name: number for number, name in enumerate(names)}, "a")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "whisper" / "tokenizer.json"))
    return tmp_path / "whisper"


def test_the_decoder_equals_the_reference(whisper):
    transformers = pytest.importorskip("transformers")
    reference = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    decoder = WhisperDecoder(WhisperDecoderConfig.from_dict(WHISPER))
    decoder.load_state_dict(reference.model.decoder.state_dict())
    ids, memory, valid = torch.randint(40, (2, 7)), torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        states = decoder(ids, memory, valid)
        expected = reference.model.decoder(ids, encoder_hidden_states=memory).last_hidden_state
        torch.testing.assert_close(decoder.logits(states), reference.proj_out(expected), atol=1e-5, rtol=1e-5)
    valid[:, 6:] = False
    other = memory.clone()
    other[:, 6:] += 5.0
    assert torch.equal(decoder(ids, memory, valid), decoder(ids, other, valid))  # padding of the sound is not heard


def test_labels_begin_after_the_start_marks():
    targets = teacher_forcing([[30, 31, 5, 6, 32], [30, 31, 32]], prompt=2, end=32)
    assert targets.token_ids.tolist() == [[30, 31, 5, 6], [30, 31, 32, 32]]
    assert targets.labels.tolist() == [[IGNORED, 5, 6, 32], [IGNORED, 32, IGNORED, IGNORED]]


def test_it_learns_to_recognise_through_a_whisper_s_decoder(whisper, store, tmp_path):
    torch.manual_seed(1)
    tokenizer = SemanticTokenizer(CONFIG)
    model = TokenizerTraining(tokenizer, DecoderReader(tokenizer, whisper))
    store.rows[3]["text"] = "a " * 40  # more than the decoder has positions for
    objective = SemanticTokenizerObjective(model, store, batch_seconds=2.0)
    assert 3 not in objective.usable
    store.rows[3]["text"] = "a"
    objective.dev = {"tones": store}
    before = objective.evaluate()["recognition_tones"]
    config = TrainConfig(steps=60, learning_rate=5e-3, final_learning_rate=1e-3, weight_decay=0.0, evaluate_steps=60)
    result = Trainer(objective, config, tmp_path / "run").fit()
    assert result.dev["recognition_tones"] < before / 3
    assert result.dev["codes_used"] >= 3 / CODES


def test_a_whisper_of_another_width_is_refused(whisper):
    tokenizer = SemanticTokenizer(CONFIG)
    (whisper / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        DecoderReader(tokenizer, whisper)
    (whisper / "config.json").write_text(json.dumps(WHISPER | {"d_model": 8}))
    with pytest.raises(CheckpointError, match="d_model is 8; the tokenizer needs 16"):
        DecoderReader(tokenizer, whisper)
