"""Texts made comparable before words are counted: named schemes, so that a result says which it used (report §6).

    normalise = normaliser("whisper-english")
    normalise("Mr. Brown has two.")             # "mister brown has 2"

    none              as it stands
    whisper-english   Whisper's for English (its report's appendix C): lower case, no punctuation, numbers as figures,
                      one spelling, contractions in full
    whisper-basic     Whisper's for any language: lower case, no punctuation
    mandarin          numbers as they are said (WeTextProcessing), simplified characters, no punctuation, lower case;
                      every character stands alone, so that the word error rate is the character error rate; Latin
                      words stay words
    qwen2-audio       Qwen2-Audio's for English, as the official Kimi-Audio-Evalkit computes it
    qwen2-audio-zh    the same for Mandarin

`comparison_table()` shows on tricky pairs what Qwen2-Audio's schemes count differently.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable
from functools import cache

from kimi_audio.errors import ConfigError

Normaliser = Callable[[str], str]

_HAN = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")
# Figures don't tell which of two words for a digit was said: 138 is yī sān bā or yāo sān bā, 200 èr bǎi or liǎng bǎi.
_SAME_DIGIT = str.maketrans("幺两〇", "一二零")

SCHEMES_OF_LANGUAGE = {"en": ("whisper-english", "qwen2-audio"), "zh": ("mandarin", "qwen2-audio-zh")}
# (language, reference, hypothesis): where the schemes part.
TRICKY_PAIRS = (
    ("en", "That costs $20.", "That costs 20."),
    ("en", "It grew by 10%.", "It grew by 10."),
    ("en", "The value is 3.14.", "The value is 3.15."),
    ("en", "The value is 3.14.", "The value is 314."),
    ("en", "It costs £3.50.", "It costs three pounds fifty."),
    ("en", "Mr. Brown has twenty two colours.", "mister brown has 22 colors"),
    ("zh", "他有200元。", "他有二百元。"),
    ("zh", "臺灣的天氣很好。", "台湾的天气很好。"),
    ("zh", "请拨打12345。", "请拨打幺二三四五。"),
    ("zh", "走了1500米。", "走了一千五百米。"),
    ("zh", "气温是25℃。", "气温是二十五摄氏度。"),
    ("zh", "我喜欢 big apple", "我喜欢 big pear"),
    ("zh", "我用ＡＩ写诗。", "我用AI写诗。"),
    ("zh", "今天是2023年10月5日。", "今天是二零二三年十月五日"),
)


def normaliser(name: str) -> Normaliser:
    """The scheme called `name`. Raises ConfigError if there is none."""
    if name not in _SCHEMES:
        raise ConfigError(f"normaliser is {name!r}; accepted are {', '.join(_SCHEMES)}")
    return _SCHEMES[name]()


def separate_characters(text: str) -> str:
    """`text` with spaces around every Chinese character."""
    return " ".join(_HAN.sub(r" \1 ", text).split())


def comparison_table() -> str:
    """Markdown: errors of reference words in `TRICKY_PAIRS`, by the usual scheme of the language and Qwen2-Audio's."""
    lines = ["| Reference | Hypothesis | Scheme | Its errors | Qwen2-Audio's |", "|---|---|---|---|---|"]
    for language, reference, hypothesis in TRICKY_PAIRS:
        usual, official = SCHEMES_OF_LANGUAGE[language]
        ours, theirs = (_errors_of_words(normaliser(name), reference, hypothesis) for name in (usual, official))
        lines.append(f"| {reference} | {hypothesis} | {usual} | {ours} | {theirs} |")
    return "\n".join(lines) + "\n"


def _errors_of_words(normalise: Normaliser, reference: str, hypothesis: str) -> str:
    import jiwer

    counts = jiwer.process_words(normalise(reference), normalise(hypothesis))
    errors = counts.substitutions + counts.deletions + counts.insertions
    return f"{errors} of {counts.hits + counts.substitutions + counts.deletions}"


def _without_change() -> Normaliser:
    return str.strip


@cache
def _whisper_english() -> Normaliser:
    from whisper_normalizer.english import EnglishTextNormalizer

    scheme = EnglishTextNormalizer()
    return lambda text: scheme(text).strip()


@cache
def _whisper_basic() -> Normaliser:
    from whisper_normalizer.basic import BasicTextNormalizer

    scheme = BasicTextNormalizer()
    return lambda text: scheme(text).strip()


@cache
def _mandarin() -> Normaliser:
    from wetext import Normalizer

    said = Normalizer(lang="zh", operator="tn", traditional_to_simple=True, full_to_half=True)

    def normalise(text: str) -> str:
        text = str(said.normalize(text)).lower().translate(_SAME_DIGIT)
        text = re.sub(r"(?<=\w)['’](?=\w)", "", text)  # don't: one word
        kept = (" " if unicodedata.category(character)[0] in "PSC" else character for character in text)
        return separate_characters("".join(kept))

    return normalise


@cache
def _qwen2_audio() -> Normaliser:
    english, basic, tokens = _whisper_english(), _whisper_basic(), _sacrebleu_tokens()
    return lambda text: tokens(basic(english(_tidied(text))))


@cache
def _qwen2_audio_mandarin() -> Normaliser:
    tokens = _sacrebleu_tokens()
    punctuation = str.maketrans(dict.fromkeys(string.punctuation + _CHINESE_PUNCTUATION, " "))

    def normalise(text: str) -> str:
        joined = re.sub(r"\s", "", _tidied(text))  # which makes one word of neighbouring Latin words
        return tokens(_numbers_said(joined).translate(punctuation))

    return normalise


def _tidied(text: str) -> str:
    """What both of Qwen2-Audio's schemes begin with: no special tokens, no spaces before punctuation."""
    text = re.sub(r"<\|.*?\|>", " ", text)
    return re.sub(r"\s([!,.?;:])", r"\1", re.sub(r"\s+", " ", text)).lstrip()


def _sacrebleu_tokens() -> Normaliser:
    """SacreBLEU's tokens for Chinese (the rest as in mteval-v13a) in lower case, without those that are punctuation."""
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    tokenise = TokenizerZh()

    def tokens(text: str) -> str:
        kept = (t for t in tokenise(text).split() if not all(unicodedata.category(c)[0] == "P" for c in t))
        return " ".join(kept).lower()

    return tokens


# How the official toolkit reads numbers aloud: SpeechIO's rules for Chinese, in their order. A number is read as an
# amount before a unit or classifier and elsewhere up to three figures, and figure by figure otherwise. Checked against
# theirs on random texts: only amounts of more than 12 figures and with leading zeros differ.
_CHINESE_PUNCTUATION = (
    "".join(chr(ord(mark) + 0xFEE0) for mark in string.punctuation if mark != ".")
    + "！？｡。｟｠｢｣､、〃《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏·〈〉"
)
_NUMBER = r"\d+(?:\.\d+)?"
_MONEY = r"(?:[亿万百千元块角毛分]|[千百]万|(?:千万|百万)[元块]|[亿万千百][元块])"
_CLASSIFIERS = (
    "[匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠曲墙群腔砣客贯扎捆刀令打手罗坡山岭江溪钟队单双对出口头脚板跳枝件贴针"
    "线管名位身堂课本页家户层丝毫厘分钱两斤铢石钧锱忽寸尺丈里寻常铺程撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅簋篮罐瓶壶卮盏箩箱煲啖袋"
    "钵年月日季刻时周天秒旬纪岁世更夜春夏秋冬代伏辈丸泡粒幢堆根道面片块]|[千毫微]克|[千分厘毫]米"
)


def _amount(text: str) -> str:
    """Every number in `text` as an amount: 2002 -> 两千零二."""
    import cn2an

    def read(number: re.Match[str]) -> str:
        try:
            said = cn2an.an2cn(number[0], "low")
        except ValueError:  # more than 16 figures
            return _figures(number[0])
        return re.sub("(?<![十零])二(?=[百千万亿])", "两", said)

    return re.sub(_NUMBER, read, text)


def _figures(text: str) -> str:
    """Every figure in `text` by itself: 2002 -> 二零零二."""
    return re.sub(r"\D*(\d)", lambda figure: "零一二三四五六七八九"[int(figure[1])], text)


def _date(text: str) -> str:
    year, mark, rest = text.rpartition("年")
    return _figures(year) + mark + _amount(rest)


def _fraction(text: str) -> str:
    above, below = text.split("/")
    return f"{_amount(below)}分之{_amount(above)}"


_READINGS: tuple[tuple[str, Normaliser], ...] = (
    (r"\D+((?:(?:[089]\d|(?:19|20)\d\d)年)?(?:\d\d?月(?:\d\d?[日号])?)?)", _date),
    (rf"\D+({_NUMBER}[多余几]?{_MONEY}(?:\d{_MONEY}?)?)", _amount),
    (r"\D((?:\+?86 ?)?1(?:[38]\d|5[0-35-9]|7[678]|9[89])\d{8})\D", _figures),
    (r"\D((?:0(?:10|2[1-3]|[3-9]\d\d)-?)?[1-9]\d{6,7})\D", _figures),
    (r"(\d+/\d+)", _fraction),
    (rf"({_NUMBER}%)", lambda text: "百分之" + _amount(text[:-1])),
    (rf"({_NUMBER})[多余几]?(?:{_CLASSIFIERS})", _amount),
    (r"(\d{4,32})", _figures),
    (rf"({_NUMBER})", _amount),
)


def _numbers_said(text: str) -> str:
    text = f"^{text}$"
    for pattern, read in _READINGS:
        for found in re.findall(pattern, text):
            text = text.replace(found, read(found), 1)
        text = text.replace("％", "%")
    return re.sub("([A-Za-z]+)二([A-Za-z]+)", r"\g<1>2\2", text)[1:-1]  # B2B


_SCHEMES: dict[str, Callable[[], Normaliser]] = {
    "none": _without_change,
    "whisper-english": _whisper_english,
    "whisper-basic": _whisper_basic,
    "mandarin": _mandarin,
    "qwen2-audio": _qwen2_audio,
    "qwen2-audio-zh": _qwen2_audio_mandarin,
}
