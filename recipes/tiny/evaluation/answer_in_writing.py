"""Answer the written evaluation questions with a text model: the mark our spoken answers are held against.

    python recipes/tiny/evaluation/answer_in_writing.py SMOLLM2_FOLDER > answers.jsonl      # lines {"id", "answer"}
    python recipes/tiny/evaluation/score_questions.py answers.jsonl

Greedy, at most 40 tokens, in SmolLM2's own chat format without a system message. Needs `transformers`.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from evaluation.score_questions import QUESTIONS
from written_chat import ChatModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    questions = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    chat = ChatModel(args.model)
    for start in range(0, len(questions), 20):
        batch = questions[start : start + 20]
        for row, answer in zip(batch, chat.answer([row["question"] for row in batch], max_new_tokens=40), strict=True):
            print(json.dumps({"id": row["id"], "answer": answer}), flush=True)


if __name__ == "__main__":
    main()
