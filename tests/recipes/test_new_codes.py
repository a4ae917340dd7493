"""A model gets another semantic tokenizer; its language model changes in the rows of the codes alone."""

import subprocess
import sys
from pathlib import Path

import torch
from tiny_model import tiny_model

from kimi_audio.checkpoint.layout import load_parts, save_parts

SCRIPT = Path(__file__).parents[2] / "recipes" / "tiny" / "new_codes.py"


def test_rows_of_the_codes_lie_as_the_new_codes_do(tmp_path: Path) -> None:
    for name, seed in (("old", 0), ("tokenizer", 1)):
        save_parts(tmp_path / name, tiny_model(seed).parts)
    command = [sys.executable, str(SCRIPT), *(str(tmp_path / name) for name in ("old", "tokenizer", "new"))]
    subprocess.run(command, check=True)
    old, tokenizer, new = (load_parts(tmp_path / name) for name in ("old", "tokenizer", "new"))
    for name, tensor in new.semantic.state_dict().items():
        assert torch.equal(tensor, tokenizer.semantic.state_dict()[name])
    before, after = old.llm.model.embed_tokens.weight, new.llm.model.embed_tokens.weight
    first = old.llm.config.kimia_token_offset
    assert torch.equal(before[:first], after[:first])
    before, after = before[first : first + 48], after[first : first + 48]
    torch.testing.assert_close(after.mean(0), before.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close((after - after.mean(0)).std(), (before - before.mean(0)).std(), atol=1e-4, rtol=1e-2)
    ratio = torch.pdist(after) / torch.pdist(tokenizer.semantic.codebook.weight)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), atol=1e-3, rtol=1e-3)
