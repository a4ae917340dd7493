"""Judges: language models that say how good an answer is, where no rule can.

    judge = make_judge("openai:gpt-4o@https://api.openai.com/v1", Path("results/judge.jsonl"))
    judge.verdict("yes-no", sample, "It was Paris.")        # Verdict(score=1.0, reason="Yes. Paris is …")

What a judge is asked is in `judge_prompts/`; `read_score` and `read_yes_no` are the rules by which its reply is read.
Replies that can be read are kept in a file by the hash of model and prompt, so that no question is paid for twice. How
far a judge can be trusted, `judge_check` measures.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from kimi_audio.errors import CheckpointError, ConfigError, DataError
from kimi_audio.evaluation.command import hashed
from kimi_audio.evaluation.endpoint import Endpoint
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.scoring import Verdict
from kimi_audio.evaluation.store import fingerprint
from kimi_audio.evaluation.whisper import quiet_transformers

_RANGE = re.compile(r"\b\d+\s*(?:-|–|to)\s*\d+\b")
_LABELLED = re.compile(r"\b(?:score|rating)\b(?:\s+is)?[^\w.-]*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_YES_NO = re.compile(r"\b(?:answer|verdict|result|judge?ment)\b(?:\s+is\b)?\W*(yes|no)\b", re.IGNORECASE)


def read_score(reply: str) -> float:
    """The score, 1 to 5, in a judge's reply.

    It is the number right after the word "score" or "rating", or else the first number of all. Ranges ("1-5", "1 to
    5") are no numbers; halves are accepted; asterisks and brackets are overlooked.

    Raises:
        DataError: when there is no number, or it is not between 1 and 5.
    """
    text = _RANGE.sub("", _spoken(reply))
    labelled = _LABELLED.search(text)
    number = labelled[1] if labelled else next(iter(_NUMBER.findall(text)), "")
    if not number or not 1 <= float(number) <= 5:
        raise DataError(f"the judge's reply holds no score from 1 to 5: {reply[:100]!r}")
    return float(number)


def read_yes_no(reply: str) -> float:
    """1.0 for yes and 0.0 for no in a judge's reply.

    Either the reply begins with one of the two words, or one of them follows the word "answer", "verdict", "result" or
    "judgement"; the last of these counts. Asterisks, brackets and colons are overlooked.

    Raises:
        DataError: when there is neither.
    """
    text = _spoken(reply)
    first, labelled = _FIRST_WORD.match(text), _YES_NO.findall(text)
    if not first and not labelled:
        raise DataError(f"the judge's reply says neither yes nor no: {reply[:100]!r}")
    return float((first[1] if first else labelled[-1]).lower() == "yes")


_READ = {"answer-1-5": read_score, "yes-no": read_yes_no}
_WORST = {"answer-1-5": 1.0, "yes-no": 0.0}


class LanguageModelJudge:
    """What all judges share: prompts, reading, and the file of replies.

    Attributes:
        name: of the model, with what identifies its weights.
        asked: how often the model was asked; `remembered` how often the file had its reply.
    """

    def __init__(self, name: str, replies_file: Path | None) -> None:
        self.name, self.asked, self.remembered = name, 0, 0
        self._file = replies_file
        self._replies = _read_replies(replies_file) if replies_file else {}

    def reply(self, prompt: str) -> str:
        """What the model says to a prompt."""
        raise NotImplementedError

    def verdict(self, prompt: str, sample: Sample, answer: str) -> Verdict:
        """How good an answer is; an empty one is the worst, unasked.

        Args:
            prompt: `answer-1-5` or `yes-no`.
            sample: its question is the field `question`, or else the instruction.

        Raises:
            ConfigError: for a prompt that there isn't.
            DataError: when the judge's reply can't be read; EndpointError when there is none.
        """
        if prompt not in _READ:
            raise ConfigError(f"judge is {prompt!r}; accepted are {', '.join(_READ)}")
        if not answer.strip():
            return Verdict(_WORST[prompt], "the answer is empty")
        question = str(sample.fields.get("question") or sample.instruction or "")
        filled = _template(prompt).format(question=question, reference=sample.reference or "(none)", answer=answer)
        key = hashlib.sha256(f"{self.name}\n{filled}".encode()).hexdigest()
        if key in self._replies:
            self.remembered += 1
            reply = self._replies[key]
        else:
            self.asked += 1
            reply = self.reply(filled)
        score = _READ[prompt](reply)
        self._keep(key, reply)
        return Verdict(score, _spoken(reply))

    def _keep(self, key: str, reply: str) -> None:
        """Only what could be read: a judge that rambled is asked again."""
        if key in self._replies:
            return
        self._replies[key] = reply
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "model": self.name, "reply": reply}, ensure_ascii=False) + "\n")


class EndpointJudge(LanguageModelJudge):
    """A model behind an OpenAI-compatible endpoint; `client.usage` and `client.cost` show what it takes."""

    def __init__(self, client: Endpoint, cache_file: Path | None = None) -> None:
        super().__init__(f"{client.model}@{client.url}", cache_file)
        self.client = client

    def reply(self, prompt: str) -> str:
        return self.client.chat([{"role": "user", "content": prompt}], temperature=0).text


class LocalJudge(LanguageModelJudge):
    """A chat model in a Hugging Face folder, greedy; asked through its chat template if it has one."""

    def __init__(self, folder: Path, cache_file: Path | None = None, max_new_tokens: int = 64) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if missing := [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]:
            raise CheckpointError(f"{folder}: a judge's folder needs {', '.join(missing)}")
        super().__init__(f"{folder.resolve().name} {fingerprint(folder)}", cache_file)
        self._max_new_tokens = max_new_tokens
        quiet_transformers()
        self._tokenizer = _chat_tokenizer(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype="auto")
        self._model = model.to("cuda") if torch.cuda.is_available() else model.float()
        self._model.eval()

    def reply(self, prompt: str) -> str:
        import torch

        has_template = bool(self._tokenizer.chat_template)
        if has_template:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # for templates that know it; others overlook it
            )
        # A template writes its own special tokens.
        inputs = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=not has_template)
        ids_1L = inputs["input_ids"].to(self._model.device)
        with torch.inference_mode():
            answered_1L = self._model.generate(
                ids_1L,
                attention_mask=torch.ones_like(ids_1L),
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
            )
        return self._tokenizer.decode(answered_1L[0, ids_1L.shape[1] :], skip_special_tokens=True)


def make_judge(
    spec: str,
    cache_file: Path | None = None,
    *,
    timeout: float | None = None,
    prices: tuple[float, float] | None = None,
) -> LanguageModelJudge:
    """The judge that `openai:MODEL@URL[#VARIABLE]` or `local:FOLDER` names; `cache_file` keeps its replies.

    `timeout` in seconds and `prices` of a million tokens are for endpoints.

    Raises:
        ConfigError: for any other spec, or a folder that is none.
    """
    kind, _, rest = spec.partition(":")
    if kind == "openai":
        limits = {} if timeout is None else {"timeout": timeout}
        return EndpointJudge(Endpoint.from_spec(rest, prices=prices, **limits), cache_file)
    if kind == "local":
        if not rest or not Path(rest).is_dir():
            raise ConfigError(f"judge {spec!r}: there is no folder {rest!r}")
        return LocalJudge(Path(rest), cache_file)
    raise ConfigError(f"judge {spec!r}; accepted are openai:MODEL@URL and local:FOLDER")


@cache
def _template(prompt: str) -> str:
    return (files("kimi_audio.evaluation") / "judge_prompts" / f"{prompt}.txt").read_text(encoding="utf-8")


def prompt_hash(prompt: str) -> str:
    """Twelve hex digits that change with the words of a judge's prompt."""
    return hashed(_template(prompt))


def _spoken(reply: str) -> str:
    """A reply without what the model only thought."""
    return reply.rpartition("</think>")[2].strip()


def _read_replies(path: Path) -> dict[str, str]:
    """Replies by key; a line that a kill cut short is left out, and asked for again."""
    replies = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
            replies[row["key"]] = row["reply"]
        except (ValueError, KeyError, TypeError):
            continue
    return replies


def _chat_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if (folder / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(str(folder))
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
