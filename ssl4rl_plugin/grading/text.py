r"""The reading that all graders share: one normaliser for an answer's text, and the words that may stand around a label.

`normalise` removes form and keeps content:

    Unicode         full-width and other presentation forms, dashes, quotes, spaces, CJK commas and full stops
    special tokens  left over at the end (`<|im_end|>`), and the box marks of GLM-4V
    Markdown        code fences, bold, italics, code, a heading mark or bullet at the start
    LaTeX           `$...$`, `\(..\)`, `\[..\]`, `\boxed`, `\text` and its family, `^\circ`, arrows, spaces
    outer form      white space, matched brackets and quotes, `Answer:` in front, a stop at the end

It never raises, takes time linear in the text, and changes no text into another answer: a superscript two is no 2 and a
Cyrillic letter no Latin one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

MAX_ANSWER_CHARS = 1000
"""Longer answer texts are invalid unread: no task needs them, and a hostile one must not cost time."""
LAYERS = 8
"""Nested brackets, quotes or LaTeX commands that are removed; a bound keeps hostile input cheap."""

_BRACKETS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`", "<": ">"}

_SAME = {"<wide>", "<narrow>", "<small>", "<noBreak>", "<font>", "<vertical>"}
"""Decompositions that change how a character is drawn, not its meaning. Those of superscripts and fractions change it."""

_CHARACTERS: Mapping[int, str] = {
    **dict.fromkeys(map(ord, "‐‑‒–—―−﹘﹣－⁃"), "-"),
    **dict.fromkeys(map(ord, "“”„‟«»″＂"), '"'),
    **dict.fromkeys(map(ord, "‘’‚‛′＇´"), "'"),
    **dict.fromkeys(map(ord, "、，﹐﹑､"), ","),
    **dict.fromkeys(map(ord, "。｡．"), "."),
    **dict.fromkeys(map(ord, "º˚"), "°"),
    **dict.fromkeys(map(ord, "→⇒➔➜➞⟶⟹➙⇨↦"), "->"),
    **dict.fromkeys(map(ord, "←⇐⟵"), "<-"),
    **dict.fromkeys(map(ord, "↔⇔⟷"), "<->"),
    **dict.fromkeys(map(ord, "～〜∼"), "~"),
    **dict.fromkeys(map(ord, "【〔「『"), "["),
    **dict.fromkeys(map(ord, "】〕」』"), "]"),
    **dict.fromkeys(map(ord, "•‣▪●◦∙"), "*"),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"), ""),
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u200a\u2002\u2003\u2004\u2005\u2006\u2008\u202f\u205f\u3000\t"), " "),
}  # fmt: skip

_END_TOKENS = re.compile(
    r"(?:\s*(?:<\|(?:im_end|im_start|endoftext|end_of_text|eot_id|eom_id|end|user|assistant|observation)\|>"
    r"|</s>|<eos>|<end_of_turn>))+\s*\Z"
)
_BOX_MARKS = re.compile(r"<\|(?:begin|end)_of_box\|>")
_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)\n?```", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![^\W_])[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}(?![^\W_])")
_HEADING = re.compile(r"#{1,6}[ ]+(?=\S)")
_BULLET = re.compile(r"\A[*+][ ]+(?=\S)")
_ANSWER = re.compile(r"\A(?:(?:the|my)[ ]+)?(?:final[ ]+)?answer[ ]*[:=][ ]*(?=\S)", re.IGNORECASE)

_COMMANDS = (
    (re.compile(r"\\(?:long|Long)?(?:left|Left)(?:right|Right)arrow(?![a-zA-Z])|\\iff(?![a-zA-Z])"), "<->"),
    (re.compile(r"\\(?:[lL]ong)?[rR]ightarrow(?![a-zA-Z])|\\(?:to|mapsto|implies)(?![a-zA-Z])"), "->"),
    (re.compile(r"\\(?:lt|prec)(?![a-zA-Z])"), "<"),
    (re.compile(r"\\(?:gt|succ)(?![a-zA-Z])"), ">"),
    (re.compile(r"\^\s?\{\\circ\}|\^?\s?\\(?:circ|degree|deg|textdegree)(?![a-zA-Z])"), "°"),
    (re.compile(r"\\(?:left|right|displaystyle|rm|bf|it)(?![a-zA-Z])|\\!"), ""),
    (re.compile(r"\\[,;: ]|\\q?quad(?![a-zA-Z])|(?<=\S)~(?=\S)(?=[A-Za-z])"), " "),
    (re.compile(r"\\([{}%_#&])"), r"\1"),
)
_WRAPPED = re.compile(
    r"\\(?:boxed|fbox|mbox|text(?:bf|it|rm|sf|tt|normal|md|up)?|math(?:rm|bf|it|sf|tt|bb|cal|normal)|operatorname|bm|"
    r"boldsymbol|emph|underline)\s?\{((?:[^{}]|\{[^{}]*\})*)\}"
)


def normalise(text: str) -> str | None:
    """The text of an answer without its form; None if it is too long to be one. Never raises."""
    if len(text) > MAX_ANSWER_CHARS:
        return None
    text = _plain(text)
    text = _END_TOKENS.sub("", text)
    text = _BOX_MARKS.sub("", text)
    text = _FENCE.sub(r"\1", text).strip()
    if "\\" in text or "$" in text:
        text = _without_latex(text)
    text = _EMPHASIS.sub("", text).strip()
    text = _BULLET.sub("", _HEADING.sub("", text, count=1) if text.startswith("#") else text)
    text = _ANSWER.sub("", text)
    for _ in range(LAYERS):
        if len(text) >= 2 and _closes(text):
            text = text[1:-1].strip()
        elif text.endswith((".", ",", ";")):
            text = text[:-1].rstrip()
        else:
            break
    return text


def _closes(text: str) -> bool:
    """Whether the first character is a bracket or quote that the last one closes, and no earlier one."""
    end = _BRACKETS.get(text[0])
    if end != text[-1]:
        return False
    if end == text[0]:
        return end not in text[1:-1]
    depth = 0
    for place, character in enumerate(text):
        depth += (character == text[0]) - (character == end)
        if depth == 0:
            return place == len(text) - 1
    return False


def _plain(text: str) -> str:
    """Presentation forms as the characters that they stand for."""
    if text.isascii():
        return text.replace("\t", " ")
    found = []
    for character in text.translate(_CHARACTERS):
        if not character.isascii() and unicodedata.decomposition(character).partition(" ")[0] in _SAME:
            character = unicodedata.normalize("NFKC", character)
        found.append(character)
    return "".join(found).translate(_CHARACTERS)


def _without_latex(text: str) -> str:
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.count(opening) == text.count(closing):
            text = text.replace(opening, "").replace(closing, "")
    if text.count("$") % 2 == 0:
        text = text.replace("$", "")
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    for _ in range(LAYERS):
        inner = _WRAPPED.sub(r"\1", text)
        if inner == text:
            break
        text = inner
    return text


def letters(count: int) -> Sequence[str]:
    """The first `count` capital letters, the labels of options and cells; at most 26."""
    if not 2 <= count <= 26:
        raise ValueError(f"between 2 and 26 letters, got {count}")
    return [chr(ord("A") + i) for i in range(count)]


def folded(text: str) -> str:
    """A text for comparison: case, hyphens, underscores and repeated spaces do not matter."""
    return " ".join(text.casefold().replace("-", " ").replace("_", " ").split())


# ------------------------------------------------------------------------------------- words around labels, and lists

NOUNS = frozenset((
    "answer", "option", "choice", "letter", "label", "number", "picture", "image", "photo", "photograph",
    "tile", "cell", "patch", "crop", "cutout", "candidate", "box", "region", "area", "square", "point", "node",
    "vertex", "clip", "video", "frame", "piece", "place", "position", "location", "corner", "quadrant", "part",
    "section", "side", "flip", "mirror", "mirroring", "rotation", "direction", "graph", "subgraph",
    "neighbourhood", "neighborhood", "order", "sequence", "path", "ranking", "speed",
))  # fmt: skip
"""Names of what a label labels. They may stand before or behind it: `Tile 2`, `option B`, `the same photo`."""

ARTICLES = frozenset(("the", "a", "an", "at", "in"))


def is_noun(word: str) -> bool:
    """Whether a word, in lower case, is one of NOUNS or its plural."""
    return word in NOUNS or word.removesuffix("s") in NOUNS or word.removesuffix("es") in NOUNS


def without_nouns(text: str, labels: Collection[str] = ()) -> str:
    """A folded text without the articles and nouns at its ends. `labels` are never left out, be they an article (`a`)."""
    words = text.split()
    while len(words) > 1 and words[0] not in labels and (words[0] in ARTICLES or is_noun(words[0].rstrip(":#"))):
        words.pop(0)
    # Behind a single letter a noun makes an article of it: `a picture`.
    while len(words) > 1 and len(" ".join(words[:-1])) > 1 and words[-1] not in labels and is_noun(words[-1]):
        words.pop()
    return " ".join(words).lstrip("#")


_NUMBERED = re.compile(r"(\d{1,2})[.):][ ]+(.*)")
_CHAIN = re.compile(r"<->|-{1,2}>|=>|[<>]")
_SEPARATORS = re.compile(
    r"\s*(?:<->|-{1,2}>|=>|[<>,;|/&\n]|(?<=\w)\s?-\s?(?=\w)|\b(?:and|then|to)\b)\s*|\s+", re.IGNORECASE
)
_RANGE = re.compile(
    r"(?<!<)-{1,2}>|=>|(?<=\w)[ ]?[-~][ ]?(?=\w)|\b(?:to|through|then)\b|[<>](?!-|>)(?<!->)", re.IGNORECASE
)
"""Signs of an order or a range."""
_ROWS = re.compile(r"\s*[\[(]([^\[\]()]*)[\])]\s*(?:[,;]\s*|\n\s*|\Z)")


def read_items(text: str) -> list[str] | None:
    """The items of a list in normalised text, nouns left out; None for a list that can be read in two ways.

    Commas, semicolons, bars, slashes, ampersands, arrows, dashes, `<` or `>`, line ends, blanks, `and`, `then` and `to`
    separate. Lines may be numbered. `A < B > C` can be read in two ways.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if len(lines) > 1 and all(numbered):
        if [match[1] for match in numbered if match] != [str(n) for n in range(1, len(lines) + 1)]:
            return None
        lines = [match[2] for match in numbered if match]
    elif len(lines) > 1 and all(line[:2] in ("- ", "* ", "+ ") for line in lines):
        lines = [line[2:] for line in lines]
    text = "\n".join(lines)
    signs = set(_CHAIN.findall(text))
    if len(signs) > 1:
        return None
    words = [word.strip("\"'") for word in _SEPARATORS.split(text)]
    found = []
    for word in words:
        bare = word.rstrip(":").lstrip("#")
        if bare and not is_noun(bare.casefold()) and bare.casefold() != "the":
            found.append(bare if word.endswith(":") is False else word)
    return found


def read_rows(text: str) -> list[list[str]] | None:
    """Nested brackets, `[2, 3], [1, 4]`, as rows of items; None where the text is no such thing."""
    rows, place = [], 0
    while place < len(text):
        match = _ROWS.match(text, place)
        if match is None:
            return None
        items = read_items(match[1])
        if items is None:
            return None
        rows.append(items)
        place = match.end()
    return rows if len(rows) > 1 else None


def read_labels(text: str, labels: Sequence[str], ordered: bool = True) -> tuple[str, ...] | None:
    """Distinct labels in an answer's text, in its order; None if anything else is in it.

    Letters may run together where every label is one letter: `BAC`.

    Args:
        text: as the model wrote it.
        labels: the labels.
        ordered: the order means something. Otherwise arrows, dashes and `to` are refused: `A-D` could be a range.
    """
    known = {label.casefold(): label for label in labels}
    plain = normalise(text)
    if not plain or (not ordered and _RANGE.search(plain)):
        return None
    items = read_items(plain)
    if not items:
        return None
    if len(items) == 1 and len(items[0]) > 1 and all(len(label) == 1 and label.isalpha() for label in labels):
        items = list(items[0])
    found = [known.get(item.casefold()) for item in items]
    distinct = [label for label in found if label is not None]
    return tuple(distinct) if len(set(distinct)) == len(found) else None


# ------------------------------------------------------------------------------------------------------- ways of writing

WRAPPINGS: Mapping[str, str] = {
    "white space": "\n {} \n", "full stop": "{}.", "bold": "**{}**", "italics": "*{}*", "code": "`{}`",
    "code fence": "```\n{}\n```", "quotes": '"{}"', "curly quotes": "“{}”", "LaTeX": "${}$", "LaTeX brackets": r"\({}\)",
    "box": r"\boxed{{{}}}", "LaTeX text": r"\text{{{}}}", "label in front": "Answer: {}", "end token": "{}<|im_end|>",
    "box marks": "<|begin_of_box|>{}<|end_of_box|>", "heading": "## {}", "bullet": "* {}",
}  # fmt: skip
"""What may stand around any answer: name -> template. `normalise` removes each."""


REFUSED: Mapping[str, str] = {
    "a sentence": "The answer is {}", "words behind": "{} I think", "a hedge": "{} or {other}", "a choice": "{} / {other}",
    "a negation": "not {}", "two answers": "{}. No, {other}", "a guess": "maybe {}", "nothing": "", "a question mark": "{}?",
}  # fmt: skip
"""Ways of writing that are no answer: name -> template with a value and another one."""


def full_width(text: str) -> str:
    """A text in full-width characters, as models trained on Chinese write it."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


def list_forms(items: Sequence[str], noun: str, plain: str) -> dict[str, str]:
    """Ways of writing a list of items."""
    last = f" and {items[-1]}" if len(items) > 1 else items[-1]
    return {
        "as the prompt asks": plain, "list": f"[{plain}]", "blanks": " ".join(items), "semicolons": "; ".join(items),
        "CJK commas": "、".join(items), "arrows": " -> ".join(items), "dashes": "-".join(items), "chain": " < ".join(items),
        "and": ", ".join(items[:-1]) + last, "a name before each": ", ".join(f"{noun} {item}" for item in items),
        "numbered lines": "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1)),
    }  # fmt: skip
