"""CTC prefix scores against every path there is, and against PyTorch's CTC loss."""

from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.generation.ctc_prefix import start, without_silence

CLASSES = 4
TEXTS = st.lists(st.integers(1, CLASSES - 1), min_size=1, max_size=4)


def frames(length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(length, CLASSES, generator=generator)).log_softmax(-1)


def by_paths(log_probs_TC: torch.Tensor, text: list[int]) -> tuple[float, float]:
    """Log-probabilities that what is said begins with a text, and that it is the text."""
    begins = whole = 0.0
    for path in product(range(CLASSES), repeat=len(log_probs_TC)):
        spelled = [c for c, _ in groupby(path) if c]
        likelihood = float(log_probs_TC[range(len(path)), path].sum().exp())
        begins += likelihood * (spelled[: len(text)] == text)
        whole += likelihood * (spelled == text)
    return begins, whole


@given(length=st.integers(1, 5), seed=st.integers(0, 99), text=TEXTS)
def test_prefixes_and_whole_texts_have_the_probability_of_all_their_paths(length, seed, text):
    log_probs_TC = frames(length, seed)
    scored = start([log_probs_TC]).extend([text])
    begins, whole = by_paths(log_probs_TC, text)
    assert float(scored.prefix_N.exp()) == pytest.approx(begins, abs=1e-6)
    assert float(scored.whole_N.exp()) == pytest.approx(whole, abs=1e-6)


@given(text=TEXTS, cut=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_text_may_grow_in_steps_beside_others_in_recordings_of_any_length(text, cut, seed):
    recordings = [frames(40, seed), frames(9, seed + 1)]
    texts = start(recordings).select(torch.tensor([1, 0, 1]))
    grown = texts.extend([text[:cut], [2], []]).extend([text[cut:], [], [3]])
    wanted = -F.ctc_loss(
        recordings[1][:, None], torch.tensor([text]), torch.tensor([9]), torch.tensor([len(text)]), reduction="sum"
    )
    if torch.isfinite(wanted):
        assert float(grown.whole_N[0]) == pytest.approx(float(wanted), abs=1e-3)
    alone = start(recordings[:1]).extend([[2]])
    torch.testing.assert_close(grown.prefix_N[1:2], alone.prefix_N)


def test_the_empty_text_is_silence():
    log_probs_TC = frames(6, 0)
    assert float(start([log_probs_TC]).whole_N) == pytest.approx(float(log_probs_TC[:, 0].sum()))
    assert float(start([log_probs_TC]).prefix_N) == 0


def test_frames_of_silence_are_joined_and_texts_keep_their_probability():
    silence = torch.tensor([0.997, 0.001, 0.001, 0.001]).log()
    spoken = frames(5, 3)
    long_TC = torch.cat([silence.expand(20, -1), spoken[:2], silence.expand(9, -1), spoken[2:], silence.expand(1, -1)])
    short_TC = without_silence(long_TC)
    assert len(short_TC) == 1 + 2 + 1 + 3 + 1
    for text in ([1], [2, 2], [3, 1]):
        whole, joined = (float(start([frames_TC]).extend([text]).whole_N) for frames_TC in (long_TC, short_TC))
        assert joined == pytest.approx(whole, abs=0.2)
