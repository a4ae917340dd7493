"""Schemes that make texts comparable: what each does, where they part, and that any text goes through."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.errors import ConfigError
from kimi_audio.evaluation.normalise import (
    SCHEMES_OF_LANGUAGE,
    TRICKY_PAIRS,
    comparison_table,
    normaliser,
    separate_characters,
)

SCHEMES = ["none", "whisper-english", "whisper-basic", "mandarin", "qwen2-audio", "qwen2-audio-zh"]
TEXTS = st.text(st.sampled_from("aB é7.,%$'’[(<|>)]- \n二两幺年月元℃，。臺我８Ａ😀"), max_size=40)


@pytest.mark.parametrize(
    ("name", "text", "comparable"),
    [
        ("none", " As it  stands. ", "As it  stands."),
        ("whisper-english", "Mr. Brown won't pay two pounds for colours!", "mister brown will not pay £2 for colors"),
        ("whisper-basic", "C'est ça, [rires] n'est-ce pas?", "c est ça n est ce pas"),
        ("mandarin", "他有2000元，臺灣！", "他 有 二 千 元 台 湾"),
        ("mandarin", "2023年10月5日气温28.5℃", "二 零 二 三 年 十 月 五 日 气 温 二 十 八 点 五 摄 氏 度"),
        ("mandarin", "我 don't喜欢Big Apple的ＡＩ", "我 dont 喜 欢 big apple 的 ai"),
        ("mandarin", "打13812345678", "打 一 三 八 一 二 三 四 五 六 七 八"),
        ("mandarin", "打幺三八一二三四五六七八", "打 一 三 八 一 二 三 四 五 六 七 八"),
        ("qwen2-audio", "It's $3.50,<|im_end|> Mr. Brown !", "it is 3 50 mister brown"),
        ("qwen2-audio-zh", "今天是2023年10月5日。", "今 天 是 二 零 二 三 年 十 月 五 日"),
        ("qwen2-audio-zh", "他有2000元，占50%，即1/2。", "他 有 两 千 元 占 百 分 之 五 十 即 二 分 之 一"),
        ("qwen2-audio-zh", "打+86 13812345678。", "打 八 六 一 三 八 一 二 三 四 五 六 七 八"),
        ("qwen2-audio-zh", "打010-62345678。", "打 零 一 零 六 二 三 四 五 六 七 八"),
        ("qwen2-audio-zh", "12345号12号，3.14和22000个", "一 二 三 四 五 号 十 二 号 三 点 一 四 和 两 万 两 千 个"),
        ("qwen2-audio-zh", "我喜欢Big Apple的B2B", "我 喜 欢 bigapple 的 b2b"),
    ],
)  # fmt: skip
def test_a_scheme_makes_of_a_text(name: str, text: str, comparable: str) -> None:
    assert normaliser(name)(text) == comparable


def test_an_unknown_scheme_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"normaliser is 'english'; accepted are none, whisper-english"):
        normaliser("english")


@pytest.mark.parametrize("name", SCHEMES)
@given(text=TEXTS)
def test_any_text_goes_through_and_twice_gives_the_same(name: str, text: str) -> None:
    normalise = normaliser(name)
    once = normalise(text)
    assert once == once.strip() == normalise(text)
    if name != "none":
        assert "  " not in once and "\n" not in once


@given(TEXTS)
def test_mandarin_leaves_only_words_and_single_characters(text: str) -> None:
    for word in normaliser("mandarin")(text).split():
        assert word == word.lower() and word.isalnum()
        assert len(word) == 1 or not any("\u4e00" <= character <= "\u9fff" for character in word)


@given(TEXTS)
def test_separating_characters_loses_nothing(text: str) -> None:
    separate = separate_characters(text)
    assert "".join(separate.split()) == "".join(text.split())
    assert separate_characters(separate) == separate


def test_the_table_counts_what_the_schemes_count() -> None:
    rows = comparison_table().splitlines()
    assert len(rows) == 2 + len(TRICKY_PAIRS)
    assert "| That costs $20. | That costs 20. | whisper-english | 1 of 3 | 0 of 3 |" in rows
    assert "| The value is 3.14. | The value is 314. | whisper-english | 1 of 4 | 2 of 5 |" in rows
    assert "| 他有200元。 | 他有二百元。 | mandarin | 0 of 5 | 1 of 5 |" in rows
    assert "| 臺灣的天氣很好。 | 台湾的天气很好。 | mandarin | 0 of 7 | 3 of 7 |" in rows


@pytest.mark.parametrize("language", SCHEMES_OF_LANGUAGE)
def test_the_schemes_part_on_most_tricky_pairs_and_agree_on_one(language: str) -> None:
    rows = [row.strip("| ").split(" | ") for row in comparison_table().splitlines()[2:]]
    of_language = [row for row in rows if row[2] == SCHEMES_OF_LANGUAGE[language][0]]
    assert sum(usual != official for *_, usual, official in of_language) == len(of_language) - 1 >= 4


def test_the_table_in_the_documentation_is_the_computed_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    assert comparison_table() in page.read_text(encoding="utf-8")
