"""Conversation → the aligned streams that the audio LLM reads (SPEC.md section 4).

    prompt = build_prompt(messages, vocab, tokenizer.encode, listen)
    prompt.audio_ids, prompt.text_ids, prompt.continuous_mask, prompt.features

Every position has an id in the audio stream and an id in the text stream; where one of them has nothing to
say it carries ``text_blank``. `listen` turns a sound source into what the model hears: semantic codes and,
for the positions of the continuous mask, one feature vector per code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from kimi_audio.errors import DataError
from kimi_audio.messages import Message
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary

OutputType = Literal["text", "both"]


@dataclass(frozen=True)
class Heard:
    """What the model hears of one sound: T codes at 12.5 Hz (without offset) and features ``[1, T', F]``.

    `words` are there for a request that a model has written down before it answers.
    """

    codes: Sequence[int]
    features: Tensor | None = None
    words: str | None = None


@dataclass
class Prompt:
    """Aligned lists of one conversation, all of one length; `features` in message order, ``[1, T, F]`` each.

    The loss masks say which ids an assistant wrote, position by position; labels are these ids and masks
    shifted left by one.
    """

    audio_ids: list[int] = field(default_factory=list)
    text_ids: list[int] = field(default_factory=list)
    continuous_mask: list[bool] = field(default_factory=list)
    audio_loss_mask: list[bool] = field(default_factory=list)
    text_loss_mask: list[bool] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.audio_ids)

    def add(
        self,
        audio_ids: Sequence[int],
        text_ids: Sequence[int],
        *,
        continuous: bool = False,
        audio_loss: bool = False,
        text_loss: bool = False,
    ) -> None:
        """Append positions to both streams."""
        count = len(audio_ids)
        assert len(text_ids) == count
        self.audio_ids += audio_ids
        self.text_ids += text_ids
        self.continuous_mask += [continuous] * count
        self.audio_loss_mask += [audio_loss] * count
        self.text_loss_mask += [text_loss] * count


def build_prompt(
    messages: Sequence[Message],
    vocab: Vocabulary,
    encode_text: Callable[[str], list[int]],
    listen: Callable[[Any], Heard],
    *,
    output_type: OutputType = "text",
    training: bool = False,
    learn_speech: bool = False,
    open_answer: bool = True,
    encode_spoken: Callable[[str], list[int]] | None = None,
) -> Prompt:
    """Lay out a conversation.

    Args:
        messages: at least one message.
        vocab: the id space.
        encode_text: text → text ids.
        listen: sound source of a message → `Heard`.
        output_type: ``text`` asks for written answers to sound, ``both`` for spoken and written ones.
        training: the fine-tuning variant: an assistant's text ends with ``text_eos``.
        learn_speech: an assistant's spoken answers (audio-text) are to be learnt, too: their text ends with
            ``text_eos``, and both streams carry loss, the ``msg_end`` that ends the sound included. The official
            fine-tuning code does neither.
        open_answer: end with the start of the assistant's next turn, for the model to go on.
        encode_spoken: the same as `encode_text` for the text of spoken answers, if it is another.

    Raises:
        DataError: when the text of an audio-text message outlasts its sound.
    """
    prompt = Prompt()
    blank = vocab.text_blank
    for index, message in enumerate(messages):
        if index == 0 or messages[index - 1].role != message.role:
            _add_turn_start(prompt, message.role, vocab)
        turn_ends = index + 1 == len(messages) or messages[index + 1].role != message.role
        if message.type == "text":
            _add_text(prompt, message, vocab, encode_text, with_eos=training)
        elif message.type == "audio":
            _add_audio(prompt, message, vocab, listen(message.content))
            if turn_ends:
                # Only a turn that ends in sound says what it wants back: the official prompt does so too.
                prompt.add([vocab.speech_ct if output_type == "text" else vocab.speech_ctd], [blank])
        else:
            _add_spoken_answer(prompt, message, vocab, encode_spoken or encode_text, listen, learn_speech)
        if turn_ends:
            prompt.add([vocab.msg_end], [blank], audio_loss=learn_speech and message.type == "audio-text")
    if open_answer:
        _add_turn_start(prompt, "assistant", vocab)
    return prompt


def _add_turn_start(prompt: Prompt, role: str, vocab: Vocabulary) -> None:
    start = vocab.kimia_user_msg_start if role == "user" else vocab.kimia_assistant_msg_start
    prompt.add([start], [vocab.text_blank])


def _add_text(
    prompt: Prompt, message: Message, vocab: Vocabulary, encode_text: Callable[[str], list[int]], with_eos: bool
) -> None:
    from_assistant = message.role == "assistant"
    ids = encode_text(message.content)
    if with_eos and from_assistant:
        ids = [*ids, vocab.text_eos]
    prompt.add([vocab.text_blank] * len(ids), ids, text_loss=from_assistant)


def _add_audio(prompt: Prompt, message: Message, vocab: Vocabulary, heard: Heard) -> None:
    blank, from_assistant = vocab.text_blank, message.role == "assistant"
    codes = [vocab.token_offset + int(code) for code in heard.codes]
    prompt.add([vocab.media_begin], [blank])
    prompt.add(codes, [blank] * len(codes), continuous=True, audio_loss=from_assistant)
    prompt.add([vocab.media_end], [blank], audio_loss=from_assistant)
    if heard.features is not None:
        prompt.features.append(heard.features)


def _add_spoken_answer(
    prompt: Prompt,
    message: Message,
    vocab: Vocabulary,
    encode_text: Callable[[str], list[int]],
    listen: Callable[[Any], Heard],
    learn: bool,
) -> None:
    """Text and, six blanks later, its sound side by side, as the model itself would have written them."""
    source, text = message.content
    codes = [vocab.token_offset + int(code) for code in listen(source).codes]
    audio_ids = [vocab.text_blank] * AUDIO_DELAY + codes
    text_ids = [*encode_text(text), *([vocab.text_eos] if learn else [])]
    padding = len(audio_ids) - len(text_ids)
    if padding < 0:
        raise DataError(
            f"audio-text message: its text has {len(text_ids)} tokens, more than the {len(audio_ids)} "
            f"positions of its sound ({len(codes)} codes after {AUDIO_DELAY} blanks)"
        )
    prompt.add(audio_ids[:AUDIO_DELAY], (text_ids + [vocab.text_blank] * padding)[:AUDIO_DELAY])
    prompt.add(codes, (text_ids + [vocab.text_blank] * padding)[AUDIO_DELAY:], audio_loss=learn)
    if learn:
        start = len(prompt) - len(audio_ids)
        prompt.text_loss_mask[start : start + len(text_ids)] = [True] * len(text_ids)
