"""Text-only conversations, so that the model does not forget how to talk: our prompts, SmolLM2-Instruct's own answers.

    python recipes/tiny/chat.py SMOLLM2_FOLDER chat.jsonl         # goes on where an earlier call stopped

`text/prompts.tsv` holds `prompt with {} <TAB> what to put there | …`. Answers are greedy, at most 60 tokens, and end
with their last whole sentence; answers without one, or with code or formulas, are left out. Each line of the output is
{"messages": [{"role", "message_type": "text", "content"}, …]}. Needs `transformers`.
"""

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import torch
from questions import evaluation_questions, rows
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

BATCH = 32
MAX_NEW_TOKENS = 60
END_OF_TURN = "<|im_end|>"


class ChatModel:
    """A Hugging Face folder of SmolLM2-Instruct: `ChatModel(folder).answer(["What is ice?"], 40)` -> ["Ice is …"]."""

    def __init__(self, folder: Path):
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            eos_token=END_OF_TURN,
            pad_token=END_OF_TURN,
            padding_side="left",
        )
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def answer(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """One greedy answer for each prompt, cut at the end of turn or after `max_new_tokens`."""
        turns = [f"<|im_start|>user\n{prompt}{END_OF_TURN}\n<|im_start|>assistant\n" for prompt in prompts]
        batch = self.tokenizer(turns, return_tensors="pt", padding=True)
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = ids[:, batch["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]


def prompts(seed: int = 0) -> list[str]:
    """Every prompt once, shuffled, without those about what the evaluation holds back."""
    held_back = [row for row in evaluation_questions() if row["unseen"] and row["kind"] == "definition"]
    unseen = re.compile(rf"\b({'|'.join(row['item'] for row in held_back)})s?\b")
    asked = {row["question"] for row in evaluation_questions()}
    made = [(form or "{}").format(filler.strip()) for form, fillers in rows("prompts") for filler in fillers.split("|")]
    kept = [prompt for prompt in dict.fromkeys(made) if prompt not in asked and not unseen.search(prompt)]
    return random.Random(seed).sample(kept, len(kept))


def whole_sentences(answer: str) -> str | None:
    """The answer up to its last sentence end; None if there is none or it is not plain prose."""
    ends = [match.end() for match in re.finditer(r"(?<!\d)[.!?][\"')]*(?=\s|$)", answer)]
    if not ends or re.search(r"[`\\{}<>|$=]", answer):
        return None
    return answer[: ends[-1]]


def conversation(prompt: str, answer: str) -> dict:
    turns = (("user", prompt), ("assistant", answer))
    return {"messages": [{"role": role, "message_type": "text", "content": text} for role, text in turns]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    progress = args.out.with_suffix(".asked")  # how many prompts earlier calls have dealt with
    start = int(progress.read_text()) if progress.exists() else 0
    chat, asked = ChatModel(args.model), prompts()
    for first in range(start, len(asked), BATCH):
        batch = asked[first : first + BATCH]
        with args.out.open("a", encoding="utf-8") as file:
            for prompt, answer in zip(batch, chat.answer(batch, MAX_NEW_TOKENS), strict=True):
                if text := whole_sentences(answer):
                    file.write(json.dumps(conversation(prompt, text), ensure_ascii=False) + "\n")
        progress.write_text(str(first + len(batch)))
        print(f"{first + len(batch)} of {len(asked)} prompts", flush=True)


if __name__ == "__main__":
    main()
