"""Golden cases of prompts, of the sampler, and of the generation loop."""

from typing import Any

import torch
from torch import Tensor

from kimi_audio.checkpoint.files import read_json
from kimi_audio.errors import DataError
from kimi_audio.generation import SamplingParams, collect, decode
from kimi_audio.generation.sampling import StreamSampling, draw, penalise
from kimi_audio.messages import messages_from
from kimi_audio.prompt import Heard, Prompt, build_prompt
from kimi_audio.verify.case import Case, Results
from kimi_audio.verify.llm import features_of, read_llm
from kimi_audio.vocab import Vocabulary


def prompts(case: Case) -> Results:
    """The three streams of conversations, in the inference and in the fine-tuning variant; the table of special ids."""
    config = case.config
    vocab = Vocabulary(config["num_base_tokens"], config["kimia_token_offset"] - config["num_base_tokens"])
    table = vocab.special_tokens()
    names = list(config["special_tokens"])
    yield "special_tokens", ([table.get(name, -1) for name in names], [config["special_tokens"][n] for n in names])
    yield "pad_id", (vocab.pad, config["pad_id"])
    for file, training in (("prompts.json", False), ("prompts_train_variant.json", True)):
        if case.has(file):
            golden = read_json(case.folder / file)
            for name, conversation in golden["cases"].items():
                yield from _prompt(f"{file.removesuffix('.json')}:{name}", conversation, golden, vocab, training)


def _prompt(name: str, wanted: dict[str, Any], golden: dict[str, Any], vocab: Vocabulary, training: bool) -> Results:
    heard: list[str] = []

    def listen(source: str) -> Heard:
        heard.append(source)
        codes = golden["stub_audio_codes"][source]
        return Heard(codes, torch.zeros(1, len(codes), 1))

    try:
        prompt = build_prompt(
            messages_from(wanted["messages"]),
            vocab,
            lambda text: list(text.encode()),
            listen,
            output_type=wanted["output_type"],
            training=training,
        )
    except DataError:
        yield f"{name} is refused", (1, int("error" in wanted))
        return
    if "error" in wanted:
        yield f"{name} is refused", (0, 1)
        return
    streams = {
        "audio_ids": prompt.audio_ids,
        "text_ids": prompt.text_ids,
        "is_continuous_mask": prompt.continuous_mask,
        "audio_token_loss_mask": prompt.audio_loss_mask,
        "text_token_loss_mask": prompt.text_loss_mask,
    }
    for key, stream in streams.items():
        if key in wanted:
            yield f"{name} {key}", (list(map(int, stream)), list(map(int, wanted[key])))
    # Sound of an assistant's audio-text message is not heard, so it has no features.
    spoken = [m["content"][0] for m in wanted["messages"] if m["message_type"] == "audio-text"]
    with_features = [source for source in heard if source not in spoken]
    yield f"{name} whisper_order", (int(with_features == wanted["whisper_order"]), 1)


def sampler(case: Case) -> Results:
    """Draws, and logits after the repetition penalty."""
    for spec in case.config["cases"]:
        name = f"case{spec['case']}"
        sampling = StreamSampling(spec["temperature"], spec["top_k"], spec["repetition_penalty"], spec["window"])
        generator = torch.Generator().manual_seed(spec["manual_seed"])
        recent_1S = case.inputs["recent"][None, : spec["n_recent"]]
        tokens, after = [], []
        for logits_BTV in case.inputs["logits"]:
            logits_1V = logits_BTV[:, -1].clone()
            penalise(logits_1V, recent_1S, sampling)
            tokens.append(int(draw(logits_1V, sampling, generator)))
            after.append(logits_1V[0])
        yield f"{name}.tokens", torch.tensor(tokens)
        yield f"{name}.logits_after", torch.stack(after)


def generate(case: Case) -> Results:
    """Ids that the loop feeds back and returns, its number of steps, and the ids after the final filter."""
    llm, vocab = read_llm(case), Vocabulary.from_config(case.config)
    streams = (case.inputs[name][0].tolist() for name in ("audio_ids", "text_ids", "is_continuous_mask"))
    prompt = Prompt(*streams, features=features_of(case))
    for name, wanted in read_json(case.folder / "generate.json").items():
        options = dict(wanted["args"])
        output_type = options.pop("output_type")
        params = SamplingParams(**options)
        generator = torch.Generator().manual_seed(wanted.get("seed") or 0)
        budgets = [params.max_new_tokens]
        steps = list(decode(llm, vocab, [prompt], budgets, params, output_type=output_type, generator=generator))
        (answer,) = collect(steps, vocab, 1)
        yield f"{name}.return_text_tokens", _ids(answer.text_ids)
        yield f"{name}.return_audio_tokens", _ids(answer.audio_ids)
        computed = {
            "steps": len(steps),
            "fed_audio": [step.audio_ids for step in steps[:-1]],
            "fed_text": [step.text_ids for step in steps[:-1]],
            "filtered_audio_tokens": answer.audio_codes(vocab),
            "filtered_text_tokens": [i for i in answer.text_ids if i < vocab.token_offset],
        }
        for key, value in computed.items():
            if key in wanted:
                yield f"{name}.{key}", (torch.tensor(value).long(), torch.tensor(wanted[key]).long())


def _ids(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
