"""Give a model another semantic tokenizer, and its language model the new codes.

    python recipes/tiny/new_codes.py models/tiny runs/tiny/tokenizer/model runs/tiny/hear

Rows of the embedding table are placed as the codes' vectors lie to each other, with mean and spread of the old rows.
A language model that listens by its acoustic features has hardly learnt the old ones.
"""

import argparse
from pathlib import Path

import torch

from kimi_audio.checkpoint.layout import SEMANTIC_FOLDER, load_parts, load_semantic, save_parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path, help="model whose semantic tokenizer to take")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    parts = load_parts(args.model)
    parts.semantic = load_semantic(args.tokenizer / SEMANTIC_FOLDER)
    table_VD, first = parts.llm.model.embed_tokens.weight, parts.llm.config.kimia_token_offset
    vectors_CD = parts.semantic.code_vectors(table_VD.shape[1])
    with torch.no_grad():
        rows_CD = table_VD[first : first + len(vectors_CD)]
        rows_CD.copy_(rows_CD.mean(0) + (rows_CD - rows_CD.mean(0)).std() * vectors_CD)
    save_parts(args.out, parts)


if __name__ == "__main__":
    main()
