"""Metrics of written answers, by the name that a benchmark gives them (report §6).

    metric = make_metric(benchmark)                    # or make_metric(benchmark, judge)
    metric.score(sample, prediction)                   # ItemScore: numerator, denominator, and why

    wer, cer         word errors of reference words after the benchmark's normaliser; cer takes every Chinese character
                     for a word
    label            the one label that the answer names, see `matching.named_label`
    digit            the digit that the answer is
    choice           the option of the field `choices` that it chooses, see `matching.chosen_option`; without that
                     field (choices that were spoken) letters A to D
    mentions         whether it mentions one of the reference's regular expressions (a list)
    invented-words   words per minute where nobody speaks
    refusal          whether it refuses, see `matching.refuses`
    ifeval           whether it follows all instructions of the prompt, strictly
    judge-yes-no     whether a judge calls it right
    judge-1-5        how a judge rates it

An error of the model is a wrong answer: as silence in most metrics, and with the lowest score where silence could be
right. Where there is no wrong (invented words), it is in no figure, but among the failures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Protocol

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.evaluation import ifeval
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.matching import chosen_option, mentions, named_label, refuses, spoken_digit
from kimi_audio.evaluation.normalise import Normaliser, normaliser, separate_characters
from kimi_audio.evaluation.samples import ItemScore, Metric, Prediction, Sample
from kimi_audio.evaluation.word_errors import align


@dataclass(frozen=True)
class Verdict:
    """A judge's score (0 or 1; 1 to 5) and its reason."""

    score: float
    reason: str


class Judge(Protocol):
    """Rates answers that no rule can check; `prompt` names what it is asked."""

    def verdict(self, prompt: str, sample: Sample, answer: str) -> Verdict: ...


Score = tuple[float, float, dict[str, Any]]  # numerator, denominator, detail
Rule = Callable[[Sample, str], Score]


@dataclass
class TextMetric:
    """A rule under a name; `failed` is what an error of the model scores if that differs from an empty answer."""

    name: str
    rule: Rule
    unit: str = "%"
    lower_is_better: bool = False
    failed: tuple[float, float] | None = None

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        """Raises DataError when the sample lacks what the metric needs, or a judge's reply can't be read."""
        if prediction.error is not None and self.failed is not None:
            return ItemScore(sample.id, *self.failed)
        numerator, denominator, detail = self.rule(sample, "" if prediction.error is not None else prediction.text)
        return ItemScore(sample.id, numerator, denominator, detail)


def make_metric(benchmark: Benchmark, judge: Judge | None = None) -> Metric:
    """The metric that `benchmark` names.

    Raises:
        ConfigError: when there is none of this name, or it needs a judge, a judge's prompt, labels or a normaliser that
            isn't there.
    """
    name = benchmark.metric
    if name in ("wer", "cer"):
        normalise = normaliser(benchmark.normaliser)
        rule = _word_error_rule((lambda text: separate_characters(normalise(text))) if name == "cer" else normalise)
        return TextMetric(name, rule, lower_is_better=True)
    if name == "invented-words":
        rule = _invented_words_rule(normaliser(benchmark.normaliser))
        return TextMetric(name, rule, "per minute", lower_is_better=True, failed=(0, 0))
    if name == "label":
        return TextMetric(name, _label_rule(benchmark.label_patterns()))
    if name in ("judge-yes-no", "judge-1-5"):
        lowest, unit = {"judge-yes-no": (0, "%"), "judge-1-5": (1, "1-5")}[name]
        return TextMetric(name, _judge_rule(benchmark, judge), unit, failed=(lowest, 1))
    if name == "refusal":
        return TextMetric(name, _refusal, failed=(0, 1))
    if name in _RULES:
        return TextMetric(name, _RULES[name])
    known = ("wer", "cer", "invented-words", "label", "judge-yes-no", "judge-1-5", "refusal", *_RULES)
    raise ConfigError(f"{benchmark.name}: metric is {name!r}; accepted are {', '.join(known)}")


def _word_error_rule(normalise: Normaliser) -> Rule:
    def rule(sample: Sample, answer: str) -> Score:
        reference, hypothesis = normalise(sample.reference), normalise(answer)
        counts, pieces = align(reference, hypothesis)
        detail = {"reference": reference, "hypothesis": hypothesis, "alignment": pieces}
        return counts.errors, counts.words, detail

    return rule


def _invented_words_rule(normalise: Normaliser) -> Rule:
    def rule(sample: Sample, answer: str) -> Score:
        if sample.seconds <= 0:
            raise DataError(f"{sample.id}: the field 'duration' is missing; seconds are expected")
        heard = normalise(answer)
        words = [word for word in heard.split() if any(map(str.isalnum, word))]
        return len(words), sample.seconds / 60, {"hypothesis": heard}

    return rule


def _label_rule(patterns: Mapping[str, Sequence[str]]) -> Rule:
    def rule(sample: Sample, answer: str) -> Score:
        if sample.reference not in patterns:
            raise DataError(f"{sample.id}: the label {sample.reference!r} is none of {', '.join(patterns)}")
        return _same(sample.reference, named_label(answer, patterns))

    return rule


def _judge_rule(benchmark: Benchmark, judge: Judge | None) -> Rule:
    prompt = benchmark.judge
    if judge is None or prompt is None:
        wanted = "a judge" if prompt else "the field judge with the name of the judge's prompt"
        raise ConfigError(f"{benchmark.name}: the metric {benchmark.metric} needs {wanted}")

    def rule(sample: Sample, answer: str) -> Score:
        verdict = judge.verdict(prompt, sample, answer)
        return verdict.score, 1, {"reference": sample.reference, "reason": verdict.reason}

    return rule


def _same(expected: str, predicted: str | None) -> Score:
    return float(expected == predicted), 1, {"expected": expected, "predicted": predicted}


def _digit(sample: Sample, answer: str) -> Score:
    expected = spoken_digit(sample.reference)
    if expected is None:
        raise DataError(f"{sample.id}: the reference {sample.reference!r} is no digit")
    heard = spoken_digit(answer)
    return _same(str(expected), None if heard is None else str(heard))


def _choice(sample: Sample, answer: str) -> Score:
    options = sample.fields.get("choices") or [""] * 4
    if not isinstance(options, list) or len(options) > 26 or not all(isinstance(option, str) for option in options):
        raise DataError(f"{sample.id}: the field 'choices' must be a list of at most 26 texts")
    letters, reference = ascii_uppercase[: len(options)], sample.reference.strip()
    if reference not in (*options, *letters):
        raise DataError(f"{sample.id}: the reference {reference!r} is none of the choices and no letter of one")
    right = options.index(reference) if reference in options else letters.index(reference)
    shown = [f"{letter}. {option}" if option else letter for letter, option in zip(letters, options, strict=True)]
    chosen = chosen_option(answer, options)
    return _same(shown[right], None if chosen is None else shown[chosen])


def mentions_rule(sample: Sample, answer: str) -> Score:
    """Whether the answer mentions one of the reference's regular expressions. Raises DataError if they are no list."""
    try:
        accepted = json.loads(sample.reference)
    except ValueError:
        accepted = None
    if not isinstance(accepted, list) or not accepted or not all(isinstance(pattern, str) for pattern in accepted):
        raise DataError(f"{sample.id}: the reference must be a list of regular expressions")
    try:
        mentioned = mentions(answer, accepted)
    except re.error as error:
        problem = f"holds what is no regular expression ({error.msg})"
        raise DataError(f"{sample.id}: the reference {sample.reference} {problem}") from None
    return float(mentioned), 1, {"reference": " | ".join(accepted)}


def _refusal(sample: Sample, answer: str) -> Score:
    return float(refuses(answer)), 1, {}


def _ifeval(sample: Sample, answer: str) -> Score:
    names, arguments = sample.fields.get("instruction_id_list"), sample.fields.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list) or not names:
        raise DataError(f"{sample.id}: the fields 'instruction_id_list' and 'kwargs' must be lists")
    prompt = str(sample.fields.get("prompt") or sample.instruction or "")
    checked = ifeval.check(names, arguments, prompt, answer)
    missed = [name for name, kept in zip(names, checked.strict, strict=True) if not kept]
    detail = {
        "instructions": len(names),
        "followed": sum(checked.strict),
        "followed_loosely": sum(checked.loose),
        "all_followed_loosely": all(checked.loose),
        "reason": f"not followed: {', '.join(missed)}" if missed else "",
    }
    return float(not missed), 1, detail


_RULES: dict[str, Rule] = {"digit": _digit, "choice": _choice, "mentions": mentions_rule, "ifeval": _ifeval}
