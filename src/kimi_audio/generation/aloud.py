"""Reading aloud: the decoding steps that say a given text, or an answer that is written first.

    reader = Reader(llm, vocab, encode, decode_text, prompt, pieces, codes_per_id=2)
    AnswerStream(reader.say("Good morning.", limit, params, None), vocab, tokenizer, voice)
    AnswerStream(reader.write_then_say(prompt, limit, params, None), vocab, tokenizer, voice)
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import torch

from kimi_audio.generation.decode import Step, decode
from kimi_audio.generation.loops import collapse_loops
from kimi_audio.generation.sampling import SamplingParams
from kimi_audio.generation.speech_text import is_pronounceable
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import Vocabulary

SPARE_CODES = 25
"""2 s: what a text may take longer than its ids allow."""


@dataclass(frozen=True)
class Reader:
    """Says texts with a language model.

    Attributes:
        encode: a text → the ids that its text stream carries while it is said.
        decode_text: ids that were written → text.
        prompt: a text → what comes before it.
        pieces: a text → the parts of it that are said one by one.
        codes_per_id: a text is cut at so many codes of 80 ms for each of its ids, and `SPARE_CODES` more.
    """

    llm: AudioLLM
    vocab: Vocabulary
    encode: Callable[[str], list[int]]
    decode_text: Callable[[list[int]], str]
    prompt: Callable[[str], Prompt]
    pieces: Callable[[str], Iterator[str]]
    codes_per_id: int

    def say(
        self, text: str, limit: int, params: SamplingParams, generator: torch.Generator | None
    ) -> Generator[Step, None, None]:
        """Steps that say a text of one piece; none where nothing in it has a sound."""
        if ids := self.encode(text):
            limit = min(limit, self.codes_per_id * len(ids) + SPARE_CODES)
            yield from decode(self.llm, self.vocab, [self.prompt(text)], [limit], params, output_type="both",
                              generator=generator, texts=[ids])  # fmt: skip

    def write_then_say(
        self,
        prompt: Prompt,
        limit: int,
        params: SamplingParams,
        generator: torch.Generator | None,
        break_loops: bool = False,
    ) -> Generator[Step, None, None]:
        """Steps that write an answer, as if only that were wanted, and then steps that say it, piece by piece.

        For models that speak from phonemes: those can't be told of words that are still being written.
        """
        vocab = self.vocab
        asked = replace(prompt, audio_ids=[vocab.speech_ct if i == vocab.speech_ctd else i for i in prompt.audio_ids])
        written: list[int] = []
        for step in decode(self.llm, vocab, [asked], [limit], params, generator=generator, break_loops=break_loops):
            written += step.text_ids
            yield step
        if vocab.text_eos not in written:  # the limit cut it short; what follows is not written
            yield Step([0], [vocab.text_eos], [vocab.text_blank], [])
        text = self.decode_text(collapse_loops(written) if break_loops else written)
        if not is_pronounceable(text):
            return
        for piece in self.pieces(text):
            for step in self.say(piece, limit, params, generator):
                yield step._replace(text_ids=[vocab.text_blank])
