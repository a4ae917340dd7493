"""Words that may have been said, and when: a lattice out of phonemes that a CTC head hears.

    tree = PronunciationTree(lexicon)
    lattice = word_lattice(log_probs_TC, tree)               # each word that may be there, from where to where
    tree.words[lattice.words_R[0]], lattice.starts_R[0], lattice.ends_R[0], lattice.sounds_R[0]

One pass of Viterbi over a tree of all pronunciations, with the frequencies of words for a language model (Ney and
Ortmanns 1999, dynamic programming search for large vocabularies). It takes a fraction of the encoder's time, and
`generation.joint` chooses among what it leaves. Not part of the report.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kimi_audio.pronunciation import Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
IMPOSSIBLE = -1e30
PATHS_WITHIN, MOST_PATHS = 14.0, 4000
"""Nats below the best path at which another is given up, and how many are followed at once."""
MOST_WORDS = 10_000
"""Of a lattice: in noise anything may have been said."""


class PronunciationTree:
    """The pronunciations of a lexicon, in which words that begin alike share the nodes of what is alike.

    Attributes:
        words: in no order that matters; what follows calls them by their numbers.
        frequency_W: log-probability of each word.
        class_N: phoneme class of each node. Node 0 is the root.
        parent_N: the node before it.
        ahead_N: log-probability of the most frequent word at or below each node.
        children, words_at: of a node; first: the children of the root.
    """

    def __init__(self, lexicon: Lexicon):
        said = sorted(zip(_as_classes(lexicon.words.values()), lexicon.words, strict=True))
        self.words = [word for classes, word in said if classes]
        self.frequency_W = np.array(lexicon.log_frequencies(self.words))
        letters_WL, length_W = _padded([classes for classes, _ in said if classes])

        spelled_WL = letters_WL > 0
        same_WL = np.zeros_like(spelled_WL)
        same_WL[1:] = np.logical_and.accumulate(spelled_WL[1:] & (letters_WL[1:] == letters_WL[:-1]), 1)
        word_N, place_N = np.nonzero(spelled_WL & ~same_WL)
        node_WL = np.zeros((len(self.words), letters_WL.shape[1] + 1), np.int64)
        node_WL[word_N, place_N + 1] = np.arange(1, len(word_N) + 1)
        # Words are sorted: the node that was made last at a depth is that of the words after it which share it.
        node_WL = np.maximum.accumulate(node_WL, 0)
        self.class_N = np.concatenate([[0], letters_WL[word_N, place_N]]).astype(np.int64)
        self.parent_N = np.concatenate([[0], node_WL[word_N, place_N]])

        last_W = node_WL[np.arange(len(self.words)), length_W]
        self.ahead_N = np.full(len(self.class_N), IMPOSSIBLE)
        np.maximum.at(self.ahead_N, last_W, self.frequency_W)
        for place in range(letters_WL.shape[1] - 1, -1, -1):
            nodes = np.nonzero(place_N == place)[0] + 1
            np.maximum.at(self.ahead_N, self.parent_N[nodes], self.ahead_N[nodes])
        self.children = _Lists(self.parent_N[1:], len(self.class_N), first=1)
        self.words_at = _Lists(last_W, len(self.class_N))
        self.first, _ = self.children.of(np.zeros(1, np.int64))


@dataclass(frozen=True)
class Lattice:
    """Words over frames, every one of them on a path that is nearly as good as the best.

    Attributes:
        starts_R, ends_R: first frame, and the one after the last; silence after a word belongs to it.
        words_R: numbers in the tree; sorted.
        sounds_R: log-probability of the word's phonemes in these frames, along the best path.
        silence_T: of silence from the start up to each of the T + 1 boundaries of frames.
        doubt: entropy of the phonemes that were heard, in nats for each.
    """

    starts_R: Ints
    ends_R: Ints
    words_R: Ints
    sounds_R: Floats
    silence_T: Floats
    doubt: float = 0.0

    def ahead(self, worth_R: Floats) -> Floats:
        """The most that words can be worth together from each boundary to the end: (T + 1,)."""
        ahead_T = np.full(len(self.silence_T), IMPOSSIBLE)
        ahead_T[-1] = 0.0
        order = np.argsort(self.ends_R, kind="stable")
        cuts = np.searchsorted(self.ends_R[order], np.arange(len(ahead_T) + 1))
        for end in range(len(ahead_T) - 1, 0, -1):
            words = order[cuts[end] : cuts[end + 1]]
            np.maximum.at(ahead_T, self.starts_R[words], worth_R[words] + ahead_T[end])
        return ahead_T


def word_lattice(log_probs_TC: NDArray[np.float32], tree: PronunciationTree, within: float = 14.0) -> Lattice:
    """The words that may have been said.

    Args:
        log_probs_TC: of the blank (class 0) and the phonemes in each frame.
        within: nats by which a path through a word may be less likely than the best.
    """
    paths = _Paths(log_probs_TC, tree)
    for frame in range(len(log_probs_TC)):
        paths.advance(frame)
    starts_R, ends_R, words_R, scores_R = (np.concatenate(column) for column in zip(*paths.ended, strict=True))
    worth_R = scores_R - paths.reached_T[starts_R]
    sounds_R = worth_R - tree.frequency_W[words_R]
    every = Lattice(starts_R, ends_R, words_R, sounds_R, paths.silence_T)
    ahead_T = every.ahead(worth_R)
    through_R = scores_R + ahead_T[ends_R]
    kept = np.nonzero(through_R >= paths.reached_T[-1] - within)[0]
    kept = kept[np.argsort(-through_R[kept], kind="stable")[:MOST_WORDS]]
    kept = kept[np.argsort(words_R[kept], kind="stable")]
    return Lattice(
        starts_R[kept], ends_R[kept], words_R[kept], sounds_R[kept], paths.silence_T, _doubt(paths.frames_TC)
    )


def _doubt(log_probs_TC: Floats) -> float:
    heard = int((log_probs_TC.argmax(1) > 0).sum())
    return -float((np.exp(log_probs_TC) * log_probs_TC).sum()) / max(1, heard)


class _Paths:
    """The paths that end in the nodes of the tree: in their phoneme, or in silence after it.

    Attributes:
        reached_T: the best path to each boundary between words.
        ended: starts, ends, numbers and scores of words, for each frame.
    """

    def __init__(self, log_probs_TC: NDArray[np.float32], tree: PronunciationTree):
        self.frames_TC, self.tree = log_probs_TC.astype(np.float64), tree
        self.silence_T = np.concatenate([[0.0], self.frames_TC[:, 0].cumsum()])
        self.reached_T = self.silence_T.copy()
        self.nodes = np.zeros(0, np.int64)
        # Of the nodes: scores in phoneme and in silence, and the boundaries where the words begin.
        self.scores_2N = np.full((2, len(tree.class_N)), IMPOSSIBLE)
        self.starts_2N = np.zeros((2, len(tree.class_N)), np.int64)
        none = np.zeros(0, np.int64)
        self.ended: list[tuple[Ints, Ints, Ints, Floats]] = [(none, none, none, np.zeros(0))]

    def advance(self, frame: int) -> None:
        tree = self.tree
        nodes, entering, begun = self._entering(frame)
        old_2M, old_starts_2M = self.scores_2N[:, nodes], self.starts_2N[:, nodes]
        stays, spoken = old_2M[0] >= entering, old_2M[0] >= old_2M[1]
        new_2M = np.stack([np.where(stays, old_2M[0], entering), old_2M.max(0)])
        new_2M += self.frames_TC[frame][np.stack([tree.class_N[nodes], np.zeros_like(nodes)])]
        starts_2M = [np.where(stays, old_starts_2M[0], begun), np.where(spoken, *old_starts_2M)]

        hoped = new_2M.max(0) + tree.ahead_N[nodes]
        enough = hoped.max(initial=IMPOSSIBLE) - PATHS_WITHIN
        if len(hoped) > MOST_PATHS:
            enough = max(enough, np.partition(hoped, -MOST_PATHS)[-MOST_PATHS])
        kept = hoped >= enough
        self.scores_2N[:, self.nodes] = IMPOSSIBLE
        self.nodes = nodes[kept]
        self.scores_2N[:, self.nodes], self.starts_2N[:, self.nodes] = new_2M[:, kept], np.stack(starts_2M)[:, kept]
        self._end_words(frame + 1)

    def _entering(self, frame: int) -> tuple[Ints, Floats, Ints]:
        """Nodes that paths may be in next; of those that enter each from the one before, scores and starts."""
        tree = self.tree
        child, of = tree.children.of(self.nodes)
        parent = self.nodes[of]
        # From a phoneme to the same one again there is no way but through silence.
        leaving_2M = self.scores_2N[:, parent]
        leaving_2M[0, tree.class_N[child] == tree.class_N[parent]] = IMPOSSIBLE
        by = leaving_2M.argmax(0)
        nodes = np.union1d(self.nodes, np.concatenate([child, tree.first]))
        entering, begun = np.full(len(nodes), IMPOSSIBLE), np.zeros(len(nodes), np.int64)
        places = np.searchsorted(nodes, child)
        entering[places], begun[places] = leaving_2M.max(0), self.starts_2N[by, parent]
        places = np.searchsorted(nodes, tree.first)
        entering[places], begun[places] = self.reached_T[frame], frame
        return nodes, entering, begun

    def _end_words(self, boundary: int) -> None:
        words, of = self.tree.words_at.of(self.nodes)
        if not len(words):
            return
        last = self.nodes[of]
        by = self.scores_2N[:, last].argmax(0)
        scores = self.scores_2N[by, last] + self.tree.frequency_W[words]
        self.reached_T[boundary] = max(self.reached_T[boundary], scores.max())
        kept = scores >= scores.max() - PATHS_WITHIN
        ends = np.full(int(kept.sum()), boundary)
        self.ended.append((self.starts_2N[by, last][kept], ends, words[kept], scores[kept]))


class _Lists:
    """A list of numbers for each of many owners, in two arrays."""

    def __init__(self, owner_M: Ints, owners: int, first: int = 0):
        self._numbers = np.argsort(owner_M, kind="stable") + first
        self._cuts = np.searchsorted(owner_M[self._numbers - first], np.arange(owners + 1))

    def of(self, owners: Ints) -> tuple[Ints, Ints]:
        """The lists of these owners joined, and the place of each number's owner among them."""
        begins, counts = self._cuts[owners], self._cuts[owners + 1] - self._cuts[owners]
        place = np.repeat(np.arange(len(owners)), counts)
        within = np.arange(len(place)) - (counts.cumsum() - counts)[place]
        return self._numbers[begins[place] + within], place


def _as_classes(pronounced: Iterable[str]) -> list[bytes]:
    """Phoneme classes of words, a byte each."""
    table = bytes(CLASSES.get(chr(letter), 0) for letter in range(128)) + bytes(128)
    others = bytes(letter for letter in range(256) if not table[letter])
    return [phonemes.encode().translate(table, others) for phonemes in pronounced]


def _padded(said: list[bytes]) -> tuple[NDArray[np.uint8], Ints]:
    """Classes (W, L), 0 after the last, and how many each has."""
    length_W = np.array([len(classes) for classes in said], np.int64)
    letters_WL = np.zeros((len(said), int(length_W.max(initial=0))), np.uint8)
    letters_WL[np.arange(letters_WL.shape[1]) < length_W[:, None]] = np.frombuffer(b"".join(said), np.uint8)
    return letters_WL, length_W
