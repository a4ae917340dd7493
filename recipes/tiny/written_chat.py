"""SmolLM2-Instruct as a plain text chat partner, batched and greedy, for baselines and text-only training data."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

END_OF_TURN = "<|im_end|>"


class ChatModel:
    """`ChatModel(folder).answer(["What is ice?"], 40)` -> ["Ice is …"]; folder holds config, weights, tokenizer.json."""

    def __init__(self, folder: Path):
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), eos_token=END_OF_TURN, pad_token=END_OF_TURN, padding_side="left"
        )
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

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
