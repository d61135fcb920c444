"""SQuAD's exact match and F1."""

import re
import string
from collections import Counter


def normalise(text: str) -> str:
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answers: list[str]) -> float:
    return float(any(normalise(prediction) == normalise(answer) for answer in answers))


def f1(prediction: str, answers: list[str]) -> float:
    return max(f1_of_one(prediction, answer) for answer in answers)


def f1_of_one(prediction: str, answer: str) -> float:
    predicted, expected = normalise(prediction).split(), normalise(answer).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))
