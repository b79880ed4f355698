"""Words for conversations that nobody had: some are everywhere, most are rare, as in real text."""

import random
from itertools import accumulate

COMMON = (
    "the of and to a in is it you that for on are with as be this at have from or one can all"
    " there use an each which do how their if will up other about out many then them these so some"
    " would make like time has look more write see number way could people than first been call who"
    " now find long day did get come made may part order invoice delivery report meeting customer"
    " plan price date question answer list table code error file data summary letter draft"
)
SYLLABLES = (
    "ba be bi bo bu da de di do du ka ke ki ko ku la le li lo lu ma me mi mo mu na ne ni no nu"
    " ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo zan tor mel fin gar pol ster"
)
RARE_WORDS = 20_000


class Texts:
    """Draws from one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._syllables = SYLLABLES.split()
        rare = [self._rare_word() for _ in range(RARE_WORDS)]
        self._words = [*COMMON.split(), *rare]
        # Zipf's law: the n-th word is about 1/n as frequent as the first.
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))

    def title(self) -> str:
        return self._phrase(self._chance.randint(2, 6))

    def question(self) -> str:
        return self._phrase(self._chance.randint(4, 25)) + "?"

    def reply(self) -> str:
        """One to three paragraphs, the last one sometimes a list."""
        paragraphs = [
            self._phrase(self._chance.randint(10, 40)) + "."
            for _ in range(self._chance.randint(1, 3))
        ]
        if self._chance.random() < 0.2:
            paragraphs.append("\n".join(f"- {self._phrase(4)}" for _ in range(4)))
        return "\n\n".join(paragraphs)

    def _rare_word(self) -> str:
        return "".join(self._chance.choices(self._syllables, k=self._chance.randint(2, 4)))

    def _phrase(self, length: int) -> str:
        words = self._chance.choices(self._words, cum_weights=self._weights, k=length)
        return " ".join(words).capitalize()
