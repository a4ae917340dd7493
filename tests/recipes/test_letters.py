"""Embeddings that tell their letters: the codes can be read, and lie where they matter least."""

import sys
from pathlib import Path

import pytest
import torch

from kimi_audio.text import TextTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from letters import CODE_SIZE, END, PLACES, STRENGTH, lettered, letters_of, spread_codes

WORDS = ["ribbon", "a", "strawberries", "pocket"]
SIZE = 160


@pytest.fixture(scope="module")
def embeddings_VD() -> torch.Tensor:
    return torch.randn(20, SIZE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def written_VD(embeddings_VD) -> torch.Tensor:
    matters_DD = torch.diag(torch.cat([torch.ones(PLACES * CODE_SIZE), torch.full((SIZE - 100,), 50.0)]))
    return lettered(embeddings_VD, [(token, word) for token, word in enumerate(WORDS)], matters_DD)


def test_codes_are_far_apart():
    codes = spread_codes(END + 1, CODE_SIZE, torch.Generator().manual_seed(1))
    likeness = codes @ codes.T - 2 * torch.eye(END + 1)
    assert torch.allclose(codes.norm(dim=1), torch.ones(END + 1))
    assert likeness.max() < 0.3


def test_only_what_matters_least_of_these_tokens_changes(embeddings_VD, written_VD):
    changed_VD = written_VD - embeddings_VD
    assert torch.equal(written_VD[len(WORDS) :], embeddings_VD[len(WORDS) :])
    assert changed_VD[:, PLACES * CODE_SIZE :].abs().max() < 1e-4
    assert (changed_VD[: len(WORDS), : PLACES * CODE_SIZE].norm(dim=1) > STRENGTH).all()


def test_tokens_differ_there_by_their_letters_alone(embeddings_VD):
    """Whatever they were before: letters that two words share, at the same places, have the same codes."""
    matters_DD = torch.diag(torch.cat([torch.ones(PLACES * CODE_SIZE), torch.full((SIZE - 100,), 50.0)]))
    words = ["pocket", "packet", "ribbon", "pocket"]
    told = lettered(embeddings_VD, list(enumerate(words)), matters_DD)[:4, : PLACES * CODE_SIZE]
    one_letter, all_letters, none = ((told[0] - told[other]).norm() for other in (1, 2, 3))
    assert none < 1e-3
    assert STRENGTH < one_letter < 2 * STRENGTH < all_letters


@pytest.mark.parametrize(
    ("token", "letters"), [(" Ribbon", "ribbon"), ("ribbon", "ribbon"), ("'s", ""), ("12", ""), (" ", "")]
)
def test_letters_of_a_token(token, letters):
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks.setdefault(token.encode(), 256)
    assert letters_of(TextTokenizer(ranks), ranks[token.encode()]) == letters
