"""Invented names and values, each owned by exactly one split.

A name or a composite value (number, date, combination) belongs to the held-out split if its SHA-256 says so, else to
the training split; drawing repeats until the owner is right. Nothing held out can therefore occur in training.
"""

import hashlib
import random
import re

import vocabulary
from vocabulary import entries

HELDOUT_SHARE = 5  # one in five
MOST_DRAWS = 2000
SPLITS = ("train", "heldout")
FIELD = re.compile(r"<([^>]+)>")


def owner(text: str) -> str:
    return SPLITS[1] if hashlib.sha256(text.encode()).digest()[0] % HELDOUT_SHARE == 0 else SPLITS[0]


class NameSource:
    """Draws for one context: what it has drawn is not drawn again, except when a name is to be shared on purpose."""

    def __init__(self, split: str, generator: random.Random, share: float = 0.3):
        self.split, self.random, self.share = split, generator, share
        self.lists = {name: entries(value) for name, value in vars(vocabulary).items() if name.isupper()}
        self.parts: dict[str, list[str]] = {"first": [], "surname": [], "place": []}
        self.used: set[str] = set()
        self.names: set[str] = set()

    def choice(self, list_name: str) -> str:
        return self.random.choice(self.lists[list_name])

    def owned(self, make) -> str:
        while True:
            text = make()
            if owner(text) == self.split:
                return text

    def coined(self, endings: str) -> str:
        middle = self.choice("SYLLABLE_MIDDLES") if self.random.random() < 0.55 else ""
        word = self.choice("SYLLABLE_ONSETS") + middle + self.choice(endings)
        return self.coined(endings) if len(word) < 4 or re.search(r"(.)\1\1", word.lower()) else word

    def part(self, kind: str) -> str:
        """A first name, surname or place name: at times one that this context already has."""
        known = self.parts[kind]
        if known and self.random.random() < self.share:
            return self.random.choice(known)
        makers = {"first": lambda: self.choice("FIRST_NAMES"), "surname": lambda: self.coined("SURNAME_ENDINGS"),
                  "place": lambda: self.coined("PLACE_ENDINGS")}
        known.append(self.owned(makers[kind]))
        self.names.add(known[-1])
        return known[-1]

    def person(self) -> str:
        return f"{self.part('first')} {self.part('surname')}"

    def place(self) -> str:
        prefix = self.choice("PLACE_PREFIXES") + " " if self.random.random() < 0.15 else ""
        return prefix + self.part("place")

    def brand(self) -> str:
        if self.random.random() < 0.3:
            return f"{self.part('surname')}"
        name = self.owned(lambda: self.coined("BRAND_ENDINGS"))
        self.names.add(name)
        return name

    def date(self) -> str:
        year, day = self.random.randint(1790, 2022), self.random.randint(1, 28)
        month = self.choice("MONTHS")
        return f"{month} {day}, {year}" if self.random.random() < 0.35 else f"{day} {month} {year}"

    def field(self, text: str) -> str:
        if text.isupper():
            return self.choice(text)
        word, *bounds = text.split()
        if word == "year":
            return str(self.random.randint(*map(int, bounds)))
        if word == "number":
            low, high = map(int, bounds)
            return f"{int(low * (high / low) ** self.random.random()):,}"
        makers = {"person": self.person, "place": self.place, "brand": self.brand, "date": self.date,
                  "surname": lambda: self.part("surname"), "river": lambda: self.part("place")}
        return makers[word]()

    def value(self, pattern: str, unique: bool) -> str | None:
        """A value of the pattern: unique in this context if asked (None when the list is used up), owned unless a plain
        word."""
        plain = pattern[1:-1].isupper()
        for _ in range(MOST_DRAWS):
            text = FIELD.sub(lambda match: self.field(match.group(1)), pattern)
            if (plain or owner(text) == self.split) and not (unique and text in self.used):
                self.used.add(text)
                return text
        return None
