"""Embeddings that tell their letters, for a small language model that is to spell.

    python recipes/tiny/letters.py recipes/tiny/letters.yaml runs/tiny/lettered

To a language model a token is a number; which letters it stands for a small one has to learn by heart, token by token.
Here they are written into its embedding: the directions that matter least for the model and data of the recipe, by the
squares of the loss's gradients at the embeddings and of the last states, which meet the same embeddings in the tied
head, are emptied, and each letter gets a code at each place in them. Learning to read these codes is learning to spell
any token. What the audio branch reads, phonemes, stays as it is.
"""

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_audio.checkpoint.layout import ModelParts, load_parts, save_parts
from kimi_audio.llm.model import AudioLLM
from kimi_audio.text import TextTokenizer
from kimi_audio.training.objective import Objective
from kimi_audio.training.objectives.language import LanguageObjective
from kimi_audio.training.recipe import read_recipe

PLACES, CODE_SIZE = 10, 10
"""Letters of a token that are told, and directions for each."""
STRENGTH = 0.5
"""Length of a code; an embedding of the bundled model has 2.9."""
BATCHES = 40
END = 26
"""Code of what follows the last letter."""


def sensitivity(llm: AudioLLM, objective: Objective, tokens: int, batches: int = BATCHES) -> Tensor:
    """How much changes of the first embeddings matter (D, D): by their gradients, and by what the head multiplies."""
    llm.requires_grad_(False)
    llm.model.embed_tokens.requires_grad_(True)
    size = llm.config.hidden_size
    gradients_DD, states_DD = torch.zeros(size, size), torch.zeros(size, size)

    def add(total_DD: Tensor, rows_ND: Tensor) -> None:
        total_DD += rows_ND.float().T @ rows_ND.float()

    def embedded(_: object, inputs: tuple[Tensor], x_BTD: Tensor) -> None:
        written_BT = inputs[0] < tokens
        x_BTD.register_hook(lambda gradient_BTD: add(gradients_DD, gradient_BTD[written_BT]))

    def normed(_: object, __: object, x_BTD: Tensor) -> None:
        add(states_DD, x_BTD.detach().flatten(0, -2))

    hooks = [llm.model.embed_tokens.register_forward_hook(embedded), llm.model.norm.register_forward_hook(normed)]
    for batch in islice(objective.batches(0), batches):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = objective.loss(batch)
        loss.backward()
        llm.zero_grad()
    for hook in hooks:
        hook.remove()
    return gradients_DD / gradients_DD.trace() + states_DD / states_DD.trace()


def spread_codes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Unit vectors (count, size), as far from each other as may be."""
    codes = torch.randn(count, size, generator=generator).requires_grad_(True)
    optimizer = torch.optim.Adam([codes], lr=0.02)
    for _ in range(1500):
        unit = F.normalize(codes, dim=1)
        loss = (20 * (unit @ unit.T - 2 * torch.eye(count))).logsumexp((0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return F.normalize(codes.detach(), dim=1)


def letters_of(tokenizer: TextTokenizer, token: int) -> str:
    """The letters of a token, in lower case, without the space before them; none where anything else is in it."""
    word = tokenizer.decode([token]).removeprefix(" ").lower()
    return word if word.isascii() and word.isalpha() else ""


def lettered(embeddings_VD: Tensor, spelled: Iterable[tuple[int, str]], sensitivity_DD: Tensor) -> Tensor:
    """Embeddings in which these tokens tell their letters, along the directions that matter least."""
    generator = torch.Generator().manual_seed(0)
    least_DK = torch.linalg.eigh(sensitivity_DD)[1][:, : PLACES * CODE_SIZE]
    mixed_DK = least_DK @ torch.linalg.qr(torch.randn(PLACES * CODE_SIZE, PLACES * CODE_SIZE, generator=generator))[0]
    codes = STRENGTH * spread_codes(END + 1, CODE_SIZE, generator)
    written, mean_D = embeddings_VD.clone(), embeddings_VD.mean(0)
    for token, word in spelled:
        code_PC = torch.zeros(PLACES, CODE_SIZE)
        for place, letter in enumerate([*(ord(letter) - ord("a") for letter in word), END][:PLACES]):
            code_PC[place] = codes[letter]
        unsaid_D = mixed_DK @ (mixed_DK.T @ (embeddings_VD[token] - mean_D))
        written[token] = embeddings_VD[token] - unsaid_D + mixed_DK @ code_PC.flatten()
    return written


def spelled_tokens(parts: ModelParts, count: int) -> Iterator[tuple[int, str]]:
    """Those of the first `count` tokens that have two letters or more, with these, but not what stands for phonemes."""
    assert parts.lexicon is not None
    spoken = {token for word in parts.lexicon.words for token in parts.encode_spoken(f"{word}.,?!")}
    for token in range(count):
        if token not in spoken and len(word := letters_of(parts.tokenizer, token)) > 1:
            yield token, word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe)
    objective = recipe.build()
    assert isinstance(objective, LanguageObjective)
    parts = load_parts(recipe.model)
    weight, count = parts.llm.model.embed_tokens.weight.detach(), objective.vocab.num_base_tokens
    measured_DD = sensitivity(objective.llm, objective, count)
    tokens = list(spelled_tokens(parts, count))
    weight[:count] = lettered(weight[:count].clone(), tokens, measured_DD)
    save_parts(args.out, parts)
    print(f"{len(tokens)} tokens tell their letters")


if __name__ == "__main__":
    main()
