"""Novels, best effort: quoted speech whose speaker is named beside it. What is not certain (a
pronoun, a quote without a name) is set aside, not guessed. Knows nothing of plays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from elysia.data.script.lines import HEADING, OTHER, SPEECH, Line
from elysia.data.script.plays import HEAD

QUOTE = re.compile(r"“([^“”]+)”|「([^「」]+)」|『([^『』]+)』|\"([^\"]+)\"")
VERB = r"(?:说道|问道|答道|喊道|叫道|笑道|叹道|回答|开口|嘟囔|低声说|轻声说|说|问|答|喊|叫|道|笑)"
VERB_EN = (
    r"(?:said|asked|replied|answered|whispered|shouted|cried|called|murmured|laughed|added|sighed)"
)
SURE = re.compile(
    rf"(?:^|[。！？”」\s])([\u4e00-\u9fff·]{{2,5}}?|[A-Z][A-Za-z]+){VERB}(?:道|着)?\s*[:：，,]?\s*[“「『]"
)
NAME_EN = r"([A-Z][a-z]+(?: [A-Z][a-z]+)?)"
SURE_EN = re.compile(rf"\b{NAME_EN} {VERB_EN}\b|\b{VERB_EN} {NAME_EN}")
PRONOUNS = frozenset(["他", "她", "它", "我", "你", "他们", "她们", "有人", "那人"])


def novel(texts: Sequence[str], known: Collection[str] = ()) -> Iterator[Line]:
    """The lines of a novel; `known` are names that speak in it, beyond those it shows itself."""
    names = sorted({*known, *_shown(texts)}, key=len, reverse=True)
    scene, begun = 1, False
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        if HEAD.match(text) and not QUOTE.search(text):
            scene += begun
            begun = False
            yield Line(HEADING, text.strip(" \t#"), scene, (number,))
            continue
        quotes = [next(filter(None, match.groups())).strip() for match in QUOTE.finditer(text)]
        if not quotes:
            yield Line(OTHER, text.strip(), scene, (number,), reason="narration")
            continue
        begun = True
        speakers = _speakers(text, names)
        if len(speakers) == 1:
            yield Line(SPEECH, "".join(quotes), scene, (number,), speakers.pop())
        else:
            reason = "its speaker is uncertain" if not speakers else "several might be its speaker"
            yield Line(OTHER, text.strip(), scene, (number,), reason=reason)


def _speakers(text: str, names: Sequence[str]) -> set[str]:
    """Names that stand by a word of speaking outside the quotes."""
    around = QUOTE.sub("“”", text)
    found: set[str] = set()
    for name in names:
        word, english = re.escape(name), ""
        if name.isascii():  # which may stand in a Chinese sentence, too
            english = rf"\b{word}\b(?: \w+){{0,2}} {VERB_EN}\b|\b{VERB_EN} {word}\b|"
            word = rf"(?<![A-Za-z]){word}(?![A-Za-z])"
        says = rf"{english}{word}[^“”。！？，,]{{0,8}}{VERB}|{word}[^“”。！？]{{0,6}}[:：]\s*“"
        if re.search(says, around) and not any(name in other for other in found):
            found.add(name)
    return found


def _shown(texts: Sequence[str]) -> set[str]:
    """Names that come at least twice right before or after a word of speaking."""
    counts: Counter[str] = Counter()
    for text in texts:
        outside = text if QUOTE.search(text) else ""
        counts.update(match.group(1) for match in SURE.finditer(outside))
        plain = QUOTE.sub("“”", outside)
        counts.update(next(filter(None, m.groups())) for m in SURE_EN.finditer(plain))
    return {
        name
        for name, count in counts.items()
        if count > 1 and name not in PRONOUNS and name not in ("He", "She", "They", "It")
    }
