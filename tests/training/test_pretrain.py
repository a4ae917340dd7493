"""Each task on a document written out by hand: three segments, codes and text small enough to check by eye.

A code is said as it is heard, plus 20.
"""

from itertools import islice

import pytest
import torch
from tiny_model import LLM

from kimi_audio.prompt import Heard
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objectives import pretrain
from kimi_audio.training.objectives.language import LanguageObjective
from kimi_audio.training.objectives.pretrain import TASKS, Segment, pretraining_mixture
from kimi_audio.training.packing import PackedRow

WIDTH = LLM.kimia_adaptor_input_dim
FEATURES = [torch.full((1, n, WIDTH), float(n)) for n in (2, 1, 2)]
SEGMENTS = [
    Segment([10, 11], Heard([1, 2], FEATURES[0]), said=[21, 22]),
    Segment([20, 21, 22, 23, 24, 25, 26, 27, 28], Heard([3], FEATURES[1]), said=[23]),
    Segment([30], Heard([4, 5], FEATURES[2]), said=[24, 25]),
]
FOURTH = Segment([40], Heard([6, 7, 8], torch.full((1, 3, WIDTH), 9.0)), said=[26, 27, 28])


def laid_out(prompt, vocab):
    """Columns as short words: `_` blank, `<` media_begin, `>` media_end, `.` text_eos, `c3` code 3, `*` a target."""
    names = {vocab.text_blank: "_", vocab.media_begin: "<", vocab.media_end: ">", vocab.text_eos: "."}
    word = lambda i: names.get(i) or (f"c{i - vocab.token_offset}" if i >= vocab.token_offset else str(i))  # noqa: E731
    audio = " ".join(word(i) + "*" * m for i, m in zip(prompt.audio_ids, prompt.audio_loss_mask, strict=True))
    text = " ".join(word(i) + "*" * m for i, m in zip(prompt.text_ids, prompt.text_loss_mask, strict=True))
    return audio, text, "".join("01"[m] for m in prompt.continuous_mask)


EXPECTED = {
    "text_only": ("_ _ _", "10* 11* .*", "000"),
    "audio_only": ("< c21* c22* c23* c24* c25* >*", "_ _ _ _ _ _ _", "0000000"),
    "audio_to_text": (
        "< c1 c2 > _ _ _ < c3 > _ _ _ _ _ _ _ _ _ _ < c4 c5 > _ _",
        "_ _ _ _ 10* 11* .* _ _ _ 20* 21* 22* 23* 24* 25* 26* 27* 28* .* _ _ _ _ 30* .*",
        "01100000100000000000011000",
    ),
    "text_to_audio": (
        "_ _ _ < c21* c22* >* _ _ _ _ _ _ _ _ _ _ < c23* >* _ _ < c24* c25* >*",
        "10 11 . _ _ _ _ 20 21 22 23 24 25 26 27 28 . _ _ _ 30 . _ _ _ _",
        "0" * 26,
    ),
    "audio_to_semantic": ("< c1 c2 > < c23* >*", "_ _ _ _ _ _ _", "0110000"),
    "audio_then_text": (
        "< c1 c2 > _ _ _ _ _ _ _ _ _ _",
        "_ _ _ _ 20* 21* 22* 23* 24* 25* 26* 27* 28* .*",
        "01100000000000",
    ),
    # the text of segment 2 outlasts its sound, that of segment 4 does not
    "audio_to_both": (
        "< c1 c2 > _ _ _ _ _ _ c23* >* _ _ < c4 c5 > _ _ _ _ _ _ c26* c27* c28* >*",
        "_ _ _ _ 20* 21* 22* 23* 24* 25* 26* 27* 28* .* _ _ _ _ 40* .* _ _ _ _ _ _ _ _",
        "0110000000000001100000000000",
    ),
}
HEARD = {"audio_to_text": [0, 1, 2], "audio_to_semantic": [0], "audio_then_text": [0], "audio_to_both": [0, 2]}


@pytest.mark.parametrize("name", TASKS)
def test_layout(name, vocab):
    segments = {"text_only": SEGMENTS[:1], "audio_to_both": [*SEGMENTS, FOURTH]}.get(name, SEGMENTS)
    prompt = TASKS[name].layout(segments, vocab)
    audio, text, mask = EXPECTED[name]
    assert laid_out(prompt, vocab) == (audio, text, mask)
    assert [id(feature) for feature in prompt.features] == [id(FEATURES[i]) for i in HEARD.get(name, [])]


def test_weights_are_the_report_s():
    assert [task.weight for task in TASKS.values()] == [7, 1, 1, 1, 1, 1, 2]


def documents(vocab, segments_each):
    return [lambda rng, n=n: [*SEGMENTS, FOURTH][:n] for n in segments_each]


def test_mixture_holds_every_task_in_its_share(vocab):
    counts = [1, 2, 3, 4] * 5
    mixture = pretraining_mixture(
        documents(vocab, [1] * 10), documents(vocab, counts), vocab, 128, segments=counts, seed=1
    )
    assert [len(source) for source in mixture.sources] == [10, 20, 20, 20, 15, 15, 15]
    prompts = [prompt for row in islice(mixture.rows(), 200) for prompt in row]
    text_only = sum(not any(prompt.continuous_mask) and not any(prompt.audio_loss_mask) for prompt in prompts)
    assert text_only / len(prompts) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_learns(name, vocab, llm):
    torch.manual_seed(0)
    counts = [4] * 3
    mixture = pretraining_mixture(
        documents(vocab, counts), documents(vocab, counts), vocab, 64, segments=counts, tasks=[name]
    )
    assert isinstance(mixture, Mixture)
    objective = LanguageObjective(llm, mixture, vocab)
    optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-2)
    losses = []
    for row in islice(objective.batches(0), 25):
        loss, metrics = objective.loss(row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    text = name in ("text_only", "audio_to_text", "audio_then_text", "audio_to_both")
    audio = name in ("audio_only", "text_to_audio", "audio_to_semantic", "audio_to_both")
    assert ("text_loss" in metrics, "audio_loss" in metrics) == (text, audio)


def test_labels_are_the_next_ids_of_their_own_stream(vocab):
    row = PackedRow.of([pretrain.audio_to_both([*SEGMENTS, FOURTH], vocab)])
    assert row.text_labels.tolist() == [20, 21, 22, 23, 24, 25, 26, 27, 28, vocab.text_eos, 40, vocab.text_eos]
    codes = [vocab.token_offset + c for c in (23, 26, 27, 28)]
    assert row.audio_labels.tolist() == [codes[0], vocab.media_end, *codes[1:], vocab.media_end]
