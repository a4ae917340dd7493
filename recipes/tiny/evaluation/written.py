"""The text LLM that the small model starts from, as a program for `kimi-audio eval`: what a listener can at best equal.

    kimi-audio eval recipes/tiny/evaluation/written-questions.yaml --data … -o … \\
        --model "command:python recipes/tiny/evaluation/written.py $MODELS/smollm2"
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from chat import ChatModel

ANSWER_TOKENS = 60


def main() -> None:
    model = ChatModel(Path(sys.argv[1]))
    for line in sys.stdin:
        sample = json.loads(line)
        text = model.answer([sample["instruction"]], ANSWER_TOKENS)[0]
        print(json.dumps({"id": sample["id"], "text": text}), flush=True)


if __name__ == "__main__":
    main()
