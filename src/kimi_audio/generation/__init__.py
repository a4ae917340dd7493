"""From prompts to ids: sampling, the decode loop of both streams, and the breaking of repetition loops."""

from kimi_audio.generation.answer import AnswerStream, Piece, Reply
from kimi_audio.generation.decode import Answer, Step, budget, collect, decode
from kimi_audio.generation.loops import collapse_loops, repeated_unit
from kimi_audio.generation.sampling import SamplingParams

__all__ = [
    "Answer",
    "AnswerStream",
    "Piece",
    "Reply",
    "SamplingParams",
    "Step",
    "budget",
    "collapse_loops",
    "collect",
    "decode",
    "repeated_unit",
]
