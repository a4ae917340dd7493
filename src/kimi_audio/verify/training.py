"""Golden case of fine-tuning: labels, masks, losses, gradients, and optimiser steps."""

from dataclasses import dataclass
from typing import Any

import torch

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.messages import messages_from
from kimi_audio.prompt import Heard, Prompt, build_prompt
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objectives.language import LanguageObjective
from kimi_audio.training.packing import PackedRow
from kimi_audio.verify.case import Case, Results
from kimi_audio.vocab import Vocabulary

ENCODER = "whisper_model.speech_encoder."
"""Prefix of the encoder's weights in a fine-tune export."""


@dataclass(frozen=True)
class _One:
    """A mixture source of a single document."""

    document: Prompt

    def __len__(self) -> int:
        return 1

    def prompt(self, index: int, rng: Any) -> Prompt:
        return self.document


def sft_labels(case: Case) -> Results:
    """Labels and masks of every conversation; loss, logits, gradients and AdamW steps of those that have them."""
    vocab = Vocabulary.from_config(case.config)
    for name, conversation in case.config["cases"].items():
        prompt = _prompt(case, conversation, vocab)
        yield from _labels(case, name, prompt, vocab)
        if f"{name}.loss" in case.expected:
            yield from _losses(case, name, prompt, vocab)
        if f"{name}.adamw_losses" in case.expected:
            yield f"{name}.adamw_losses", _adamw(_objective(case, prompt, vocab), prompt, case.params["adamw"])


def _prompt(case: Case, conversation: dict[str, Any], vocab: Vocabulary) -> Prompt:
    """The conversation's streams; its features are samples, which the trainable encoder reads."""

    def listen(source: str) -> Heard:
        codes = [code - vocab.token_offset for code in case.config["codes_with_offset"][source]]
        return Heard(codes, case.inputs[f"wav16k_int16.{source}"].float() / 32768)

    return build_prompt(
        messages_from(conversation["conversation"]),
        vocab,
        lambda text: list(text.encode()),
        listen,
        output_type="text" if conversation["task_type"] == "understanding" else "both",
        training=True,
        open_answer=False,
    )


def _labels(case: Case, name: str, prompt: Prompt, vocab: Vocabulary) -> Results:
    streams = {
        "audio_ids": prompt.audio_ids,
        "text_ids": prompt.text_ids,
        "is_continuous_mask": prompt.continuous_mask,
    }
    for key, stream in streams.items():
        yield f"{name}.{key}", (torch.tensor([stream]), case.inputs[f"{name}.{key}"])
    yield f"{name}.audio_labels", torch.tensor([[*prompt.audio_ids[1:], vocab.pad]])
    yield f"{name}.text_labels", torch.tensor([[*prompt.text_ids[1:], vocab.pad]])
    yield f"{name}.audio_loss_mask", torch.tensor([[*prompt.audio_loss_mask[1:], False]])
    yield f"{name}.text_loss_mask", torch.tensor([[*prompt.text_loss_mask[1:], False]])


def _objective(case: Case, prompt: Prompt, vocab: Vocabulary) -> LanguageObjective:
    llm = AudioLLM(KimiAudioConfig.from_dict(case.config))
    encoder = WhisperEncoder(WhisperEncoderConfig.from_dict(case.config["whisper"]))
    case.load(llm, without=ENCODER)
    case.load(encoder, ENCODER)
    return LanguageObjective(llm, Mixture([_One(prompt)], [1.0], len(prompt)), vocab, encoder=AcousticEncoder(encoder))


def _losses(case: Case, name: str, prompt: Prompt, vocab: Vocabulary) -> Results:
    objective = _objective(case, prompt, vocab)
    loss, metrics = objective.loss(PackedRow.of([prompt]))
    yield f"{name}.loss", loss.detach()
    yield f"{name}.text_loss", torch.as_tensor(metrics.get("text_loss", 0.0))
    yield f"{name}.audio_loss", torch.as_tensor(metrics.get("audio_loss", 0.0))
    loss.backward()
    parameters = dict(objective.llm.named_parameters())
    assert objective.encoder is not None
    parameters |= {ENCODER + key: value for key, value in objective.encoder.encoder.named_parameters()}
    for key, parameter in parameters.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        yield f"{name}.grad.{key}", gradient
        norms = case.config["cases"][name].get("grad_norms_all", {})
        if key in norms:
            yield f"{name}.grad_norm.{key}", (gradient.norm(), norms[key])
    with torch.no_grad():
        output = objective.llm(
            torch.tensor([prompt.audio_ids]),
            torch.tensor([prompt.text_ids]),
            continuous_mask_BT=torch.tensor([prompt.continuous_mask]),
            features=[objective.encoder(samples) for samples in prompt.features],
        )
    yield f"{name}.text_logits", output.text_logits
    yield f"{name}.audio_logits", output.audio_logits


def _adamw(objective: LanguageObjective, prompt: Prompt, options: dict[str, Any]) -> torch.Tensor:
    """Loss before each of several AdamW steps on one document."""
    optimizer = torch.optim.AdamW(
        objective.model.parameters(),
        lr=options["lr"],
        betas=tuple(options["betas"]),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
    )
    row, losses = PackedRow.of([prompt]), []
    for _ in range(options["steps"]):
        loss, _ = objective.loss(row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
