"""Judges: how replies are read, what is kept, a language model in a folder, and the agreement with known verdicts."""

import json
import math
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import CheckpointError, ConfigError, DataError
from kimi_audio.evaluation.judge_check import Agreement, Checked, judge_check, rating_check
from kimi_audio.evaluation.judges import LanguageModelJudge, LocalJudge, make_judge, read_score, read_yes_no
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.scoring import Verdict

SAMPLE = Sample("7", (), "What is the capital of France?", "Paris")
ROWS = [json.loads(line) for line in (files("kimi_audio.evaluation") / "judge_check.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("4", 4),
        ("4.", 4),
        ("Score: 4", 4),
        ("score is 2, because it names 3 things", 2),
        ("4/5", 4),
        ("4 out of 5", 4),
        ("**Score:** 3", 3),
        ("[[5]]", 5),
        ("**4**\nIt names 1 of 2 cities.", 4),
        ("It names 3 of the 2 cities. Rating: 2", 2),
        ("On a scale of 1-5 I give 4.", 4),
        ("From 1 to 5: 3", 3),
        ("Score (1–5): 5", 5),
        ("3.5", 3.5),
        ("<think>A 1? Or rather a 2.</think>\n\n4", 4),
    ],
)
def test_a_score_is_read(reply: str, score: float) -> None:
    assert read_score(reply) == score


@pytest.mark.parametrize("reply", ["", "good", "0", "6", "10", "Score: -3", "4567", "1-5", "<think>4</think>", "five"])
def test_what_holds_no_score_is_a_failure_of_the_judge(reply: str) -> None:
    with pytest.raises(DataError, match="no score from 1 to 5"):
        read_score(reply)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", 1),
        ("No", 0),
        ("**Yes**", 1),
        ("**No.**\nYes would be too kind.", 0),
        ("Yes, there is no difference.", 1),
        ("Answer: yes", 1),
        ("The answer is no.", 0),
        ("Explanation: no word is wrong.\nResult: **Yes**", 1),
        ("Verdict: yes? On second thought, verdict: no", 0),
        ("'yes'", 1),
        ("<think>No, wait.</think>Yes", 1),
    ],
)
def test_yes_and_no_are_read(reply: str, verdict: float) -> None:
    assert read_yes_no(reply) == verdict


@pytest.mark.parametrize("reply", ["", "maybe", "There is no way to tell.", "Nope", "yesterday", "Paris.", "1"])
def test_what_says_neither_is_a_failure_of_the_judge(reply: str) -> None:
    with pytest.raises(DataError, match="neither yes nor no"):
        read_yes_no(reply)


@given(st.text())
def test_any_reply_is_read_or_refused(reply: str) -> None:
    for read, accepted in ((read_score, lambda value: 1 <= value <= 5), (read_yes_no, lambda value: value in (0, 1))):
        try:
            assert accepted(read(reply))
        except DataError:
            continue


class SameWords(LanguageModelJudge):
    """Says yes if the reference is in the answer."""

    def __init__(self, replies_file: Path | None = None) -> None:
        super().__init__("same words", replies_file)

    def reply(self, prompt: str) -> str:
        part = {name: prompt.split(f"<{name}>")[1].split(f"</{name}>")[0] for name in ("reference", "answer")}
        return "yes" if part["reference"].lower() in part["answer"].lower() else "no"


def test_replies_are_kept_even_if_the_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    judge = SameWords(path)
    assert [judge.verdict("yes-no", SAMPLE, answer).score for answer in ("Paris!", "Rome", "Paris!")] == [1, 0, 1]
    assert judge.asked == 2
    path.write_text(path.read_text() + '{"key": "cut sh')
    again = SameWords(path)
    assert again.verdict("yes-no", SAMPLE, "Rome").score == 0
    assert again.asked == 0


def test_an_empty_answer_is_the_worst_without_asking() -> None:
    judge = SameWords()
    assert judge.verdict("yes-no", SAMPLE, " \n").score == 0
    assert judge.verdict("answer-1-5", SAMPLE, "").score == 1
    assert judge.asked == 0


def test_a_spoken_question_is_taken_from_the_row() -> None:
    asked: list[str] = []

    class Listening(SameWords):
        def reply(self, prompt: str) -> str:
            asked.append(prompt)
            return "yes"

    Listening().verdict("yes-no", Sample("1", (), "", "", fields={"question": "How {old} are you?"}), "Very.")
    assert "<question>How {old} are you?</question>" in asked[0] and "<reference>(none)</reference>" in asked[0]


def test_an_unknown_prompt_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="'1-10'; accepted are answer-1-5, yes-no"):
        SameWords().verdict("1-10", SAMPLE, "Paris")


def bigram_model(folder: Path, following: dict[str, str], chat_template: str | None = None) -> Path:
    """A Llama in Hugging Face layout that looks at the last word only and says what follows it in `following`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", *sorted({*following, *following.values()} - {"<end>"})]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.chat_template = chat_template
    fast.save_pretrained(str(folder))
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=1,
        pad_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 16))
        model.lm_head.weight.zero_()
        for word, then in following.items():
            model.lm_head.weight[ids[then], ids[word]] = 1
    model.save_pretrained(str(folder))
    return folder


def test_a_model_in_a_folder_judges(tmp_path: Path) -> None:
    # The prompt ends with "why."; so the model says "no way", and stops.
    folder = bigram_model(tmp_path / "plain", {"why.": "no", "no": "way", "way": "<end>", "<judge>": "yes"})
    judge = make_judge(f"local:{folder}", tmp_path / "replies.jsonl")
    assert judge.verdict("yes-no", SAMPLE, "Paris") == Verdict(0.0, "no way")
    assert judge.name.startswith("plain ")
    again = make_judge(f"local:{folder}", tmp_path / "replies.jsonl")
    assert again.verdict("yes-no", SAMPLE, "Paris").reason == "no way" and again.asked == 0


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    template = "{{ messages[0].content }}{% if add_generation_prompt %} <judge>{% endif %}"
    following = {"why.": "no", "no": "<end>", "<judge>": "yes", "yes": "<end>"}
    judge = LocalJudge(bigram_model(tmp_path, following, template))
    capfd.readouterr()
    assert judge.verdict("yes-no", SAMPLE, "Paris") == Verdict(1.0, "yes")
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs config\.json, tokenizer\.json"):
        make_judge(f"local:{tmp_path}")


@pytest.mark.parametrize("spec", ["", "gpt-4o", "local:", "local:/no/folder", "x:y@http://h", "openai:gpt-4o"])
def test_a_spec_that_names_no_judge_is_a_mistake(spec: str) -> None:
    with pytest.raises(ConfigError):
        make_judge(spec)


def test_the_set_is_balanced_and_each_answer_is_there_once() -> None:
    verdicts = Counter(row["right"] for row in ROWS)
    assert set(verdicts) == {"yes", "no"} and min(verdicts.values()) >= 0.4 * len(ROWS)
    assert len({(row["question"], row["answer"]) for row in ROWS}) == len(ROWS) >= 40
    assert all(set(row) == {"kind", "question", "reference", "answer", "right"} for row in ROWS)


class Knowing(LanguageModelJudge):
    """Knows the set, but for one answer on which it is silent."""

    def __init__(self, silent_on: str | None = None) -> None:
        super().__init__("knowing", None)
        self._silent_on = silent_on

    def reply(self, prompt: str) -> str:
        for row in ROWS:
            if f">{row['question']}<" in prompt and f"<answer>{row['answer']}<" in prompt:
                return "..." if row["answer"] == self._silent_on else row["right"]
        raise AssertionError(prompt)


def test_a_judge_that_knows_all_agrees_fully() -> None:
    agreement = judge_check(Knowing())
    assert (agreement.accuracy, agreement.kappa, agreement.disagreements) == (1.0, 1.0, [])


def test_a_judge_that_looks_for_words_agrees_a_little() -> None:
    agreement = judge_check(SameWords())
    assert 0.5 < agreement.accuracy < 0.9 and 0.1 < agreement.kappa < 0.8
    assert {"hedged", "negated", "synonym"} <= {row.kind for row in agreement.disagreements}


RATED = [json.loads(line) for line in
         (files("kimi_audio.evaluation") / "judge_check_1_5.jsonl").read_text().splitlines()]  # fmt: skip


class Rating(LanguageModelJudge):
    """Rates the answers of the set as `rule` makes of people's scores."""

    def __init__(self, rule: Callable[[int], str]) -> None:
        super().__init__("rating", None)
        self._rule = rule

    def reply(self, prompt: str) -> str:
        (row,) = [row for row in RATED if f"<answer>{row['answer']}<" in prompt]
        return self._rule(row["score"])


def test_all_scores_are_in_the_set_for_ratings_and_each_answer_is_there_once() -> None:
    assert set(Counter(row["score"] for row in RATED)) == {1, 2, 3, 4, 5}
    assert len({row["answer"] for row in RATED}) == len(RATED) >= 15


@pytest.mark.parametrize(
    ("rule", "correlation", "bias"),
    [(str, 1.0, 0.0), (lambda score: str(6 - score), -1.0, None), (lambda score: str(min(5, score + 1)), 0.97, 0.7)],
)
def test_ratings_are_compared_in_their_order(rule: Callable, correlation: float, bias: float | None) -> None:
    ratings = rating_check(Rating(rule))
    assert ratings.correlation == pytest.approx(correlation, abs=0.05)
    assert bias is None or ratings.bias == pytest.approx(bias, abs=0.05)
    assert f"rank correlation {ratings.correlation:.2f}" in str(ratings)


def test_a_missing_rating_is_counted_and_one_far_off_is_told() -> None:
    silent = rating_check(Rating(lambda score: "well" if score == 4 else "5"))
    assert len(silent.given) == len(RATED) - 2 and math.isnan(silent.correlation)
    printed = " ".join(str(silent).split())
    assert "2 without a rating" in printed and "hammer" in printed and "Give yourself time" not in printed


def test_an_unreadable_reply_is_not_kept(tmp_path: Path) -> None:
    replies = ["Hm.", "yes"]

    class Hesitant(SameWords):
        def reply(self, prompt: str) -> str:
            return replies.pop(0)

    judge = Hesitant(tmp_path / "replies.jsonl")
    with pytest.raises(DataError, match="neither yes nor no"):
        judge.verdict("yes-no", SAMPLE, "Paris")
    assert judge.verdict("yes-no", SAMPLE, "Paris").score == judge.verdict("yes-no", SAMPLE, "Paris").score == 1
    assert (judge.asked, judge.remembered) == (2, 1)
    assert [json.loads(line)["reply"] for line in (tmp_path / "replies.jsonl").read_text().splitlines()] == ["yes"]


def test_a_missing_verdict_is_counted_and_told() -> None:
    agreement = judge_check(Knowing(silent_on="Motsart"))
    (row,) = agreement.disagreements
    assert agreement.failed == 1 and row.judged == "none" and "neither yes nor no" in row.reason
    assert agreement.accuracy == pytest.approx(1 - 1 / len(ROWS))
    printed = str(agreement)
    assert "98% judged right" in printed and "1 without a verdict" in printed and "Motsart" in printed


def test_kappa_is_cohens() -> None:
    # The textbook table of 50 grants: 20 both yes, 15 both no, 5 and 10 apart: agreement 0.7, by chance 0.5.
    counts = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    rows = [Checked("", "", "", "", right, judged, "") for (right, judged), n in counts.items() for _ in range(n)]
    agreement = Agreement(tuple(rows))
    assert (agreement.accuracy, agreement.kappa) == (pytest.approx(0.7), pytest.approx(0.4))


def test_a_judge_that_always_says_yes_agrees_by_chance_only() -> None:
    class Kind(SameWords):
        def reply(self, prompt: str) -> str:
            return "yes"

    rows = [row for row in judge_check(Kind()).rows if row.answer]
    assert Agreement(tuple(rows)).kappa == pytest.approx(0.0)
