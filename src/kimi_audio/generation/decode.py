"""The decode loop: prompts in, the ids of both streams out, step by step (SPEC.md section 5).

    budgets = [budget(len(prompt), "text", params.max_new_tokens) for prompt in prompts]
    for step in decode(llm, vocab, prompts, budgets, params):
        for row, text_id in zip(step.rows, step.text_ids):
            ...
    answers = collect(decode(...), vocab, len(prompts))
    decode(llm, vocab, prompts, budgets, params, output_type="both", texts=[ids])     # these words, spoken

There is one loop. One prompt is a batch of one; a written answer is a spoken one whose audio stream stays
blank. Prompts of different lengths are padded on the left, so that all rows write their cache at one place.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.generation.loops import repeated_unit
from kimi_audio.generation.sampling import SamplingParams, discard_draw, draw, penalise
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import OutputType, Prompt
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary

POSITIONS: dict[OutputType, int] = {"text": 7500, "both": 1500}
"""How long prompt and answer may be together."""
MAX_LOOP_BREAKS = 4


class Step(NamedTuple):
    """What one decoding step wrote. The three lists run in parallel over the rows that were still going.

    Attributes:
        rows: indices of prompts.
        text_ids: ids on their text streams; ``text_blank`` after ``text_eos``.
        audio_ids: ids on their audio streams (with offset); ``text_blank`` in the first steps and in text mode.
        ended: the rows for which this was the last step.
    """

    rows: list[int]
    text_ids: list[int]
    audio_ids: list[int]
    ended: list[int]


@dataclass
class Answer:
    """All ids that one prompt was answered with: text before ``text_eos``, audio after the delay."""

    text_ids: list[int] = field(default_factory=list)
    audio_ids: list[int] = field(default_factory=list)

    def audio_codes(self, vocab: Vocabulary) -> list[int]:
        """Codes 0 … num_audio_codes - 1; special ids among the audio ids are left out."""
        return [i - vocab.token_offset for i in self.audio_ids if i >= vocab.token_offset]


def budget(prompt_length: int, output_type: OutputType, max_new_tokens: int = -1) -> int:
    """Decoding steps for one prompt: the user's limit, or what official models leave after the prompt.

    That is 7500 positions in all for text and 1500 (120 s) when speech is wanted.

    Raises:
        DataError: when the prompt alone takes all of it.
    """
    if max_new_tokens > 0:
        return max_new_tokens
    positions = POSITIONS[output_type]
    if prompt_length >= positions:
        raise DataError(
            f"the conversation takes {prompt_length} positions and leaves none of {positions} for the answer; "
            "shorten it or set max_new_tokens"
        )
    return positions - prompt_length


@torch.inference_mode()
def decode(
    llm: AudioLLM,
    vocab: Vocabulary,
    prompts: Sequence[Prompt],
    budgets: Sequence[int],
    params: SamplingParams,
    *,
    output_type: OutputType = "text",
    generator: torch.Generator | None = None,
    break_loops: bool = False,
    texts: Sequence[Sequence[int]] | None = None,
) -> Generator[Step, None, None]:
    """Answer prompts, one step of all rows at a time.

    Args:
        prompts: one per row, of any lengths.
        budgets: largest number of steps of each row.
        params: sampling; ``max_new_tokens`` is not used here.
        output_type: ``text`` ends a row at ``text_eos``; ``both`` at the end of its audio stream.
        generator: on the model's device; None uses torch's global one.
        break_loops: forbid the next id of a phrase said over and over (`loops`), and end a row that goes on looping.
        texts: what each row's text stream is to say, without ``text_eos``; nothing is drawn for it then, and the audio
            stream does not end before it.

    Raises:
        ConfigError: when speech is wanted of a model without an audio branch.
    """
    if output_type == "both" and not llm.config.kimia_mimo_layers:
        raise ConfigError("this model has no audio branch (kimia_mimo_layers is 0); ask for output_type 'text'")
    speaks = output_type == "both"
    batch = PromptBatch(llm, prompts, vocab.text_blank, speaks, max(budgets))
    given = [None] * len(prompts) if texts is None else [[*text, vocab.text_eos] for text in texts]
    rows = [_Row(index, limit, text) for index, (limit, text) in enumerate(zip(budgets, given, strict=True))]
    ends = torch.tensor([vocab.msg_end, vocab.media_end], device=batch.device)
    for index in range(max(budgets)):
        # What is given is not drawn; and when all has been written, only speech is left to decide.
        want_text = texts is None and not all(row.text_done for row in rows)
        text_logits_NV, audio_logits_NV = batch.forward(want_text)
        for n, row in enumerate(rows):
            if row.forbidden is not None and text_logits_NV is not None:
                text_logits_NV[n, row.forbidden] = -torch.inf
        saying = [n for n, row in enumerate(rows) if row.given is not None and not row.text_done]
        if saying and audio_logits_NV is not None:
            audio_logits_NV[torch.tensor(saying, device=batch.device)[:, None], ends] = -torch.inf
        sampled = batch.sample(text_logits_NV, audio_logits_NV, params, generator)

        step = Step([], [], [], [])
        fed: list[tuple[int, int]] = []
        for row, text_id, audio_id in zip(rows, *sampled, strict=True):
            if row.ended:
                fed.append((vocab.text_blank, vocab.text_blank))
                continue
            fed.append(row.write(index, text_id, audio_id, vocab, speaks))
            if break_loops:
                row.break_loop()
            step.rows.append(row.index)
            step.text_ids.append(fed[-1][0])
            step.audio_ids.append(fed[-1][1])
            if row.ended:
                step.ended.append(row.index)
        yield step

        going = [n for n, row in enumerate(rows) if not row.ended]
        if not going:
            return
        batch.feed(fed)
        if 2 * len(going) <= len(rows):
            rows = [rows[n] for n in going]
            batch.keep(going)


def collect(steps: Iterable[Step], vocab: Vocabulary, rows: int) -> list[Answer]:
    """Join the steps of `decode` into one answer per prompt."""
    answers = [Answer() for _ in range(rows)]
    text_done = [False] * rows
    for index, step in enumerate(steps):
        for row, text_id, audio_id in zip(step.rows, step.text_ids, step.audio_ids, strict=True):
            text_done[row] |= text_id == vocab.text_eos
            if not text_done[row]:
                answers[row].text_ids.append(text_id)
            if index >= AUDIO_DELAY and audio_id != vocab.text_blank:
                answers[row].audio_ids.append(audio_id)
    return answers


@dataclass
class _Row:
    """Where one prompt's answer stands."""

    index: int
    budget: int
    given: list[int] | None = None
    text_ids: list[int] = field(default_factory=list)
    text_done: bool = False
    ended: bool = False
    forbidden: int | None = None
    loop_breaks: int = 0

    def write(self, step: int, text_id: int, audio_id: int, vocab: Vocabulary, speaks: bool) -> tuple[int, int]:
        """Take the sampled ids of a step; returns what the streams get, which is fed back to the model."""
        if self.given is not None and not self.text_done:
            text_id = self.given[step]
        if self.text_done:
            text_id = vocab.text_blank
        elif text_id == vocab.text_eos:
            self.text_done = True
        else:
            self.text_ids.append(text_id)
        if step < AUDIO_DELAY or not speaks:
            audio_id = vocab.text_blank
        finished = audio_id in (vocab.msg_end, vocab.media_end) if speaks else self.text_done
        self.ended = finished or step + 1 >= self.budget
        return text_id, audio_id

    def break_loop(self) -> None:
        """Forbid to say the phrase of a loop once more; end the row when that has not helped."""
        unit = 0 if self.text_done else repeated_unit(self.text_ids)
        self.forbidden = self.text_ids[-unit] if unit else None
        self.loop_breaks += unit > 0
        self.ended |= self.loop_breaks > MAX_LOOP_BREAKS


class PromptBatch:
    """The tensors of the running rows: inputs of the next forward pass, cache, padding, ids written so far."""

    def __init__(self, llm: AudioLLM, prompts: Sequence[Prompt], blank: int, speaks: bool, steps: int):
        self.llm, self.speaks = llm, speaks
        self.device = llm.model.norm.weight.device
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]

        def padded(rows: Iterable[list], value: int) -> Tensor:
            return torch.tensor([[value] * n + row for n, row in zip(padding, rows, strict=True)], device=self.device)

        self.audio_ids_NT = padded((p.audio_ids for p in prompts), blank)
        self.text_ids_NT = padded((p.text_ids for p in prompts), blank)
        self.continuous_mask_NT: Tensor | None = padded((p.continuous_mask for p in prompts), False).bool()
        self.features: list[Tensor] | None = [f.to(self.device) for p in prompts for f in p.features] or None
        self.cache = llm.new_cache(len(prompts), capacity=longest + min(steps, 256))
        self.history_2NS = torch.empty(2, len(prompts), steps, dtype=torch.int64, device=self.device)
        self.written = 0
        # Rows without padding need neither mask nor positions: the model counts on by itself.
        self.padding_N = torch.tensor(padding, device=self.device) if any(padding) else None

    def forward(self, want_text: bool) -> tuple[Tensor | None, Tensor | None]:
        """Logits [N, V] of the next ids on the text stream, if wanted, and on the audio stream, when speech is."""
        mask, positions_NT = self._mask_and_positions()
        output = self.llm(
            self.audio_ids_NT,
            self.text_ids_NT,
            continuous_mask_BT=self.continuous_mask_NT,
            features=self.features,
            position_ids_BT=positions_NT,
            attention_mask=mask,
            cache=self.cache,
            last_only=True,
            want_text=want_text,
            want_audio=self.speaks,
        )
        self.continuous_mask_NT = self.features = None
        text_logits_NV, audio_logits_NV = (None if logits is None else logits[:, -1] for logits in output)
        return text_logits_NV, audio_logits_NV

    def _mask_and_positions(self) -> tuple[Tensor | None, Tensor | None]:
        if self.padding_N is None:
            return None, None
        start, steps = self.cache.length, self.audio_ids_NT.shape[1]
        keys_S = torch.arange(start + steps, device=self.device)
        queries_T = keys_S[start:]
        allowed_NTS = (keys_S <= queries_T[:, None]) & (keys_S >= self.padding_N[:, None, None])
        # Padding sees itself: a row of the mask without any True would make its softmax NaN.
        allowed_NTS |= keys_S == queries_T[:, None]
        positions_NT = (queries_T - self.padding_N[:, None]).clamp(min=0)
        return allowed_NTS[:, None], positions_NT

    def sample(
        self,
        text_logits_NV: Tensor | None,
        audio_logits_NV: Tensor | None,
        params: SamplingParams,
        generator: torch.Generator | None,
    ) -> list[list[int]]:
        """Draw the text ids, then the audio ids, of all rows.

        The official loop draws both each time: what is not wanted uses up its random numbers.
        """
        drawn = []
        streams = ((text_logits_NV, params.text), (audio_logits_NV, params.audio))
        for (logits_NV, sampling), history_NS in zip(streams, self.history_2NS[:, :, : self.written], strict=True):
            if logits_NV is not None:
                penalise(logits_NV, history_NS, sampling)
                drawn.append(draw(logits_NV, sampling, generator))
            else:
                discard_draw((len(history_NS), self.llm.config.vocab_size), sampling, self.device, generator)
                drawn.append(torch.zeros(len(history_NS), dtype=torch.int64, device=self.device))
        return torch.stack(drawn).tolist()

    def feed(self, ids: list[tuple[int, int]]) -> None:
        """Make (text id, audio id) of each row the next input."""
        ids_2N = torch.tensor(ids, device=self.device).T
        self.history_2NS[:, :, self.written] = ids_2N
        self.written += 1
        self.text_ids_NT, self.audio_ids_NT = ids_2N[:, :, None]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order; one that comes twice goes on twice."""
        if rows == list(range(len(self.text_ids_NT))):
            return
        rows_N = torch.tensor(rows, device=self.device)
        self.cache.select(rows_N)
        self.text_ids_NT, self.audio_ids_NT = self.text_ids_NT[rows_N], self.audio_ids_NT[rows_N]
        self.history_2NS = self.history_2NS[:, rows_N]
        if self.padding_N is not None:
            self.padding_N = self.padding_N[rows_N]
