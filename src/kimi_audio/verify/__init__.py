"""Golden cases: does this code compute what the official code computed?

    for check in verify_case("golden/llm_prefill"):
        print(check.name, check.error, check.tolerance, check.passed)

A case is a folder with a small random model, inputs, and what the official code made of them. Its kind is read
from its contents, sizes from its configuration. Ids, labels and masks must be equal, floating point tensors
(float32 on the CPU) within 1e-4. Every tensor of `expected.safetensors` is checked; one that is not understood fails.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from kimi_audio.errors import CheckpointError
from kimi_audio.verify import generation, listening, llm, speaking, training
from kimi_audio.verify.case import Case, Check, Results

KINDS: dict[str, tuple[Callable[[Case], bool], Callable[[Case], Results]]] = {
    "prompt": (lambda case: case.has("prompts.json"), generation.prompts),
    "llm_generate": (lambda case: case.has("generate.json"), generation.generate),
    "sft_labels": (lambda case: "codes_with_offset" in case.config, training.sft_labels),
    "sampler": (lambda case: {"logits", "recent"} <= case.inputs.keys(), generation.sampler),
    "vq_tokenizer": (lambda case: "quantize_vocab_size" in case.config, listening.vq_tokenizer),
    "detokenizer_e2e": (lambda case: {"detokenizer", "vocoder"} <= case.config.keys(), speaking.detokenizer_e2e),
    "bigvgan": (lambda case: "upsample_rates" in case.config, speaking.bigvgan),
    "dit": (lambda case: "dit" in case.config.get("model", {}), speaking.dit),
    "whisper_features": (lambda case: "encoder_layers" in case.config, listening.whisper_features),
    "llm_decode": (lambda case: "step_audio_ids" in case.inputs, llm.decode),
    "llm_prefill": (lambda case: "kimia_mimo_layers" in case.config and "audio_ids" in case.inputs, llm.prefill),
}
"""Kind of case → how to recognise it (the first that fits counts), and what computes its tensors."""


def verify_case(folder: str | Path) -> Iterator[Check]:
    """Run one golden case and compare, tensor by tensor.

    Raises:
        CheckpointError: the folder is no golden case of a known kind, or is damaged.
    """
    case = Case.read(Path(folder))
    for recognise, run in KINDS.values():
        if recognise(case):
            yield from case.compare(run(case))
            return
    raise CheckpointError(f"{folder}: not a golden case of a known kind; known are {', '.join(KINDS)}.")
