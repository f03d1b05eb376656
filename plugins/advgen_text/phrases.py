"""The embedded corpus: a small grammar whose sentences have known factors and an exact likelihood.

    sentence -> determiner [adjective] noun verb [determiner object] [preposition "the" place] "."

Number decides determiner, noun and verb form; the subject's class decides which nouns and verbs go together.
Every sentence has one derivation, so its probability is the product of the choices made.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")
Weights = Mapping[str, float]

CLASSES: Weights = {"animal": 0.4, "person": 0.35, "machine": 0.25}
NUMBERS: Weights = {"singular": 0.6, "plural": 0.4}
TENSES: Weights = {"present": 0.55, "past": 0.45}
ADJECTIVE, OBJECT, PLACE = 0.5, 0.45, 0.5
DETERMINERS: Mapping[str, Weights] = {
    "singular": {"the": 0.5, "a": 0.35, "every": 0.15},
    "plural": {"the": 0.4, "two": 0.35, "many": 0.25},
}
ADJECTIVES: Mapping[str, Weights] = {
    "animal": {"small": 0.5, "hungry": 0.3, "wild": 0.2},
    "person": {"tall": 0.5, "happy": 0.3, "clever": 0.2},
    "machine": {"red": 0.5, "noisy": 0.3, "broken": 0.2},
}
NOUNS: Mapping[str, Weights] = {
    "animal": {"dog": 0.4, "cat": 0.3, "horse": 0.2, "bird": 0.1},
    "person": {"girl": 0.4, "farmer": 0.3, "doctor": 0.2, "king": 0.1},
    "machine": {"robot": 0.5, "truck": 0.3, "drone": 0.2},
}
ACTIONS: Mapping[str, Weights] = {
    "animal": {"sleep": 0.6, "jump": 0.4},
    "person": {"sing": 0.6, "laugh": 0.4},
    "machine": {"stop": 0.6, "turn": 0.4},
}
DEEDS: Mapping[str, Weights] = {
    "animal": {"chase": 0.6, "watch": 0.4},
    "person": {"paint": 0.6, "find": 0.4},
    "machine": {"carry": 0.6, "push": 0.4},
}
OBJECTS: Weights = {"ball": 0.4, "box": 0.3, "flower": 0.2, "kite": 0.1}
OBJECT_DETERMINERS: Weights = {"the": 0.6, "a": 0.4}
PREPOSITIONS: Weights = {"in": 0.5, "near": 0.3, "behind": 0.2}
PLACES: Weights = {"garden": 0.4, "house": 0.3, "river": 0.2, "station": 0.1}
PAST = {
    "sleep": "slept", "jump": "jumped", "sing": "sang", "laugh": "laughed", "stop": "stopped", "turn": "turned",
    "chase": "chased", "watch": "watched", "paint": "painted", "find": "found", "carry": "carried", "push": "pushed",
}  # fmt: skip
SINGULAR = {"carry": "carries", "watch": "watches", "push": "pushes"}
FACTORS = ("class", "number", "tense", "object", "place", "length")
DRAWS = 13


@dataclass(frozen=True)
class Sentence:
    """One derivation: what was chosen at each branch; empty strings where a branch was not taken."""

    kind: str
    number: str
    tense: str
    determiner: str
    adjective: str
    noun: str
    verb: str
    object_determiner: str
    object: str
    preposition: str
    place: str

    @property
    def subject_words(self) -> list[str]:
        """The sentence up to its noun."""
        noun = self.noun + "s" if self.number == "plural" else self.noun
        return [word for word in (self.determiner, self.adjective, noun) if word]

    @property
    def rest_words(self) -> list[str]:
        """The sentence from its verb on, full stop included."""
        ground = ("the" if self.place else "", self.place)
        parts = (_inflect(self.verb, self.tense, self.number), self.object_determiner, self.object, self.preposition, *ground)
        return [word for word in (*parts, ".") if word]

    @property
    def words(self) -> list[str]:
        """The sentence as words, full stop included."""
        return self.subject_words + self.rest_words

    @property
    def factors(self) -> dict[str, str]:
        """The known factors, by name."""
        taken = {"object": "yes" if self.object else "no", "place": "yes" if self.place else "no"}
        return {"class": self.kind, "number": self.number, "tense": self.tense, **taken, "length": str(len(self.words))}

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability that the grammar writes this sentence."""
        return math.fsum(math.log(probability) for probability in self._choices())

    def _choices(self) -> Iterator[float]:
        yield from (CLASSES[self.kind], NUMBERS[self.number])
        yield from self.subject_choices()
        yield from self.rest_choices()

    def subject_choices(self) -> Iterator[float]:
        """Probabilities of what was chosen up to the noun, given class and number."""
        yield from (DETERMINERS[self.number][self.determiner], NOUNS[self.kind][self.noun])
        yield ADJECTIVE * ADJECTIVES[self.kind][self.adjective] if self.adjective else 1 - ADJECTIVE

    def rest_choices(self) -> Iterator[float]:
        """Probabilities of what was chosen from the verb on, given class and number."""
        yield TENSES[self.tense]
        if self.object:
            yield OBJECT * DEEDS[self.kind][self.verb]
            yield OBJECT_DETERMINERS[self.object_determiner] * OBJECTS[self.object]
        else:
            yield (1 - OBJECT) * ACTIONS[self.kind][self.verb]
        yield PLACE * PREPOSITIONS[self.preposition] * PLACES[self.place] if self.place else 1 - PLACE


def sentences() -> Iterator[tuple[str, list[str], float]]:
    """Class, words and probability of all 123,552 that the grammar can write, each once."""
    for kind, number in itertools.product(CLASSES, NUMBERS):
        first = CLASSES[kind] * NUMBERS[number]
        subjects = [(found.subject_words, math.prod(found.subject_choices())) for found in _subjects(kind, number)]
        rests = [(found.rest_words, math.prod(found.rest_choices())) for found in _rests(kind, number)]
        for (before, chance), (after, other) in itertools.product(subjects, rests):
            yield kind, before + after, first * chance * other


def _subjects(kind: str, number: str) -> Iterator[Sentence]:
    verb = next(iter(ACTIONS[kind]))
    for determiner, adjective, noun in itertools.product(DETERMINERS[number], ["", *ADJECTIVES[kind]], NOUNS[kind]):
        yield Sentence(kind, number, "past", determiner, adjective, noun, verb, "", "", "", "")


def _rests(kind: str, number: str) -> Iterator[Sentence]:
    subject = (next(iter(DETERMINERS[number])), "", next(iter(NOUNS[kind])))
    things = [("", ""), *itertools.product(OBJECT_DETERMINERS, OBJECTS)]
    places = [("", ""), *itertools.product(PREPOSITIONS, PLACES)]
    for tense, thing, place in itertools.product(TENSES, things, places):
        for verb in (DEEDS if thing[1] else ACTIONS)[kind]:
            yield Sentence(kind, number, tense, *subject, verb, *thing, *place)


def _inflect(verb: str, tense: str, number: str) -> str:
    if tense == "past":
        return PAST[verb]
    return SINGULAR.get(verb, verb + "s") if number == "singular" else verb


def _pick(weights: Weights, point: float) -> str:
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return name


def derive(points: Sequence[float]) -> Sentence:
    """The sentence that ``DRAWS`` numbers in [0, 1) stand for."""
    kind, number, tense = _pick(CLASSES, points[0]), _pick(NUMBERS, points[1]), _pick(TENSES, points[2])
    has_adjective, has_object, has_place = points[3] < ADJECTIVE, points[4] < OBJECT, points[5] < PLACE
    return Sentence(
        kind,
        number,
        tense,
        _pick(DETERMINERS[number], points[6]),
        _pick(ADJECTIVES[kind], points[7]) if has_adjective else "",
        _pick(NOUNS[kind], points[8]),
        _pick((DEEDS if has_object else ACTIONS)[kind], points[9]),
        _pick(OBJECT_DETERMINERS, points[10]) if has_object else "",
        _pick(OBJECTS, points[11]) if has_object else "",
        _pick(PREPOSITIONS, points[12]) if has_place else "",
        # The last draw serves both: scaled by the place's own branch point, it is uniform again.
        _pick(PLACES, points[5] / PLACE) if has_place else "",
    )


def sample(num_sentences: int, generator: torch.Generator) -> list[Sentence]:
    """Sentences drawn independently, from ``generator`` alone."""
    points = torch.rand(num_sentences, DRAWS, generator=generator, dtype=torch.float64)
    return [derive(row) for row in points.tolist()]


def parse(words: Sequence[str]) -> Sentence | None:
    """The derivation of a sentence, or None where the grammar cannot write it."""
    rest = list(words)
    if not rest or rest.pop() != ".":
        return None
    determiner = rest.pop(0) if rest else ""
    adjective = rest.pop(0) if rest and rest[0] in _ADJECTIVE_WORDS else ""
    subject = _NOUN_FORMS.get(rest.pop(0)) if rest else None
    action = _VERB_FORMS.get(rest.pop(0)) if rest else None
    if subject is None or action is None:
        return None
    (kind, number, noun), (verb, tense) = subject, action
    pair = (rest.pop(0), rest.pop(0)) if len(rest) in (2, 5) else ("", "")
    ground = (rest[0], rest[2]) if len(rest) == 3 else ("", "")
    sentence = Sentence(kind, number, tense, determiner, adjective, noun, verb, *pair, *ground)
    return sentence if _allowed(sentence) and sentence.words == list(words) else None


def _allowed(sentence: Sentence) -> bool:
    kind, verbs = sentence.kind, DEEDS if sentence.object else ACTIONS
    return (
        sentence.determiner in DETERMINERS[sentence.number]
        and (not sentence.adjective or sentence.adjective in ADJECTIVES[kind])
        and sentence.verb in verbs[kind]
        and (not sentence.object or (sentence.object in OBJECTS and sentence.object_determiner in OBJECT_DETERMINERS))
        and (not sentence.place or (sentence.place in PLACES and sentence.preposition in PREPOSITIONS))
    )


def log_probability(words: Sequence[str]) -> float | None:
    """Exact natural log-likelihood of a sentence, or None where the grammar cannot write it."""
    sentence = parse(words)
    return None if sentence is None else sentence.log_probability


def marginals() -> dict[str, dict[str, float]]:
    """The exact distribution of every factor."""
    lengths: Counter[str] = Counter()
    for extra in range(8):
        adjective, has_object, has_place = extra & 1, extra >> 1 & 1, extra >> 2
        chance = (ADJECTIVE if adjective else 1 - ADJECTIVE) * (OBJECT if has_object else 1 - OBJECT)
        lengths[str(4 + adjective + 2 * has_object + 3 * has_place)] += chance * (PLACE if has_place else 1 - PLACE)  # type: ignore[assignment]
    switches = {"object": {"yes": OBJECT, "no": 1 - OBJECT}, "place": {"yes": PLACE, "no": 1 - PLACE}}
    return {"class": dict(CLASSES), "number": dict(NUMBERS), "tense": dict(TENSES), **switches, "length": dict(lengths)}


def total_variation(sentences: Sequence[Sentence]) -> dict[str, float]:
    """Half the absolute difference between each factor's histogram and its exact distribution; 1 where there are none."""
    return {name: _distance(Counter(s.factors[name] for s in sentences), exact) for name, exact in marginals().items()}


def _distance(counts: Counter[str], exact: Mapping[str, float]) -> float:
    if not counts:
        return 1.0
    return sum(abs(counts[name] / counts.total() - share) for name, share in exact.items()) / 2


_ADJECTIVE_WORDS = {word for group in ADJECTIVES.values() for word in group}
_NOUN_FORMS = {
    noun + ("s" if number == "plural" else ""): (kind, number, noun)
    for kind, group in NOUNS.items()
    for noun in group
    for number in NUMBERS
}
_VERB_FORMS = {
    _inflect(verb, tense, number): (verb, tense)
    for table in (ACTIONS, DEEDS)
    for group in table.values()
    for verb in group
    for tense in TENSES
    for number in NUMBERS
}
