#!/usr/bin/env python3
"""Writes question answering and record extraction over invented prose as JSON lines; the same seed, the same bytes.

    python3 tools/demo_model/generate.py --task qa --split heldout --contexts 125 --questions 4 --tokens 900 --out FILE

One object a line: id, task, context_id, context, question, answers. An answer of `qa` is copied word for word from the
context; an answer of `records` is one line of JSON whose values are. Prompt and target of every user of these lines:

    {context}\\n\\nQuestion: {question}\\nAnswer:        and        {space}{answer}<|im_end|>
"""

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from facts import FILLERS, KINDS
from names import SPLITS, NameSource
from vocabulary import entries

SLOT = re.compile(r"\{(?:(a|A):)?(\w+)\}")
TASKS = ("qa", "records")
RECORD_QUESTIONS = (
    "Give a JSON record of {N} with the keys {keys}.", "Extract {keys} of {N} as JSON.",
    "Write the JSON record of {N}. Keys: {keys}.", "What does the text say about {N}? Answer in JSON with the keys {keys}.",
    "Return one line of JSON about {N} with {keys}.",
)
ROLE = {"person": "", "town": "the town", "thing": "the piece", "event": "the event", "company": "the company",
        "building": "the building", "book": "the work", "species": "the animal", "club": "the club",
        "medicine": "the medicine"}


@dataclass
class Entity:
    kind: str
    name: str
    pronoun: str  # he, she or it
    values: dict[str, str]
    stated: dict[str, str] = field(default_factory=dict)  # attribute -> value as the text spells it


def upper_first(text: str) -> str:
    return text[0].upper() + text[1:]


def with_article(text: str) -> str:
    return ("an " if text[0].lower() in "aeiou" and not text.startswith(("uni", "one")) else "a ") + text


def entity_name(kind: str, source: NameSource) -> str:
    makers = {
        "person": source.person, "town": source.place,
        "thing": lambda: f"the {source.part('place')} {source.choice('OBJECT_KINDS')}",
        "event": lambda: f"the {source.part('place')} {source.choice('EVENT_KINDS')}",
        "company": lambda: f"{source.brand()} {source.choice('ORGANISATION_ENDINGS')}",
        "building": lambda: f"the {source.part('surname')} {source.choice('BUILDING_KINDS')}",
        "book": lambda: f"The {source.choice('TITLE_ADJECTIVES')} {source.choice('TITLE_NOUNS')} of {source.part('place')}",
        "species": lambda: f"the {source.part('surname')} {source.choice('ANIMAL_KINDS')}",
        "club": lambda: f"{source.part('place')} {source.choice('CLUB_ENDINGS')}",
        "medicine": source.brand,
    }
    while True:
        name = makers[kind]()
        if name not in source.used:
            source.used.add(name)
            return name


def make_entity(kind: str, source: NameSource) -> Entity:
    attributes, _ = KINDS[kind]
    pronoun = source.random.choice(("he", "she")) if kind == "person" else "it"
    name = entity_name(kind, source)
    count = source.random.randint(3, min(9, len(attributes)))
    chosen = set(source.random.sample(list(attributes), count))
    values = {key: source.value(pattern, unique=bool(reverse))
              for key, (pattern, _, reverse) in attributes.items() if key in chosen}
    return Entity(kind, name, pronoun, {key: value for key, value in values.items() if value is not None})


def subject(entity: Entity, slot: str, first: bool, generator: random.Random) -> str:
    """The subject's name, or a shorter form where one that cannot be mistaken exists."""
    possessive, start = slot in "Pp", slot in "SP"
    if first or generator.random() < 0.4:
        text = entity.name + ("'s" if possessive else "")
    elif possessive:
        text = {"he": "his", "she": "her", "it": "its"}[entity.pronoun]
    elif start and generator.random() < 0.6:
        text = entity.pronoun
    elif entity.kind == "person":
        text = entity.name.split()[generator.randint(0, 1)]
    else:
        text = ROLE[entity.kind]
    return text


def render(template: str, entity: Entity, first: bool, generator: random.Random) -> str:
    """Fills a sentence and notes in `entity.stated` how it spells each value."""
    seen_subject = not first

    def fill(match: re.Match) -> str:
        nonlocal seen_subject
        article, key = match.groups()
        if key in "SsPp":
            text = subject(entity, key, not seen_subject, generator)
            seen_subject = True
            return text
        text = entity.values[key]
        entity.stated[key] = upper_first(text) if match.start() == 0 and not article else text
        return with_article(text) if article else text

    return upper_first(SLOT.sub(fill, template))


def filler(source: NameSource) -> str:
    text = source.random.choice(entries(FILLERS))
    lists = {"part": "PARTS_OF_DAY", "weather": "WEATHER", "weekday": "WEEKDAYS", "month": "MONTHS"}
    return re.sub(r"\{(\w+)\}", lambda match: source.choice(lists[match.group(1)]), text) + "."


def paragraphs(entity: Entity, source: NameSource) -> list[str]:
    """One or two paragraphs that state the entity's values once each, in random order, among fillers."""
    generator = source.random
    templates = list(KINDS[entity.kind][1])
    generator.shuffle(templates)
    cut = generator.randint(2, 4) if len(entity.values) >= 5 and generator.random() < 0.35 else 99
    filler_rate = generator.choice((0.0, 0.2, 0.4, 0.6))
    result: list[list[str]] = [[]]
    facts = 0
    for template in templates:
        keys = {key for _, key in SLOT.findall(template) if key not in "SsPp"}
        if not keys <= set(entity.values) - set(entity.stated):
            continue
        if facts == cut:
            result.append([])
        result[-1].append(render(template, entity, first=facts in (0, cut), generator=generator))
        facts += 1
        if generator.random() < filler_rate:
            result[-1].append(filler(source))
    return [" ".join(part) for part in result]


def estimated_tokens(text: str) -> int:
    """Tokens of SmolLM2's tokenizer, within a few per cent over a context (see the tests)."""
    digits = len(re.findall(r"\d", text))
    marks = len(re.findall(r"[^\w\s]", text))
    common = len(re.findall(r"\b[a-zà-ÿ]+", text))
    coined = sum((len(word) + 2) // 3 for word in re.findall(r"\b[A-Z]\w*", text))
    return round(0.85 * digits + 2.1 * marks + 0.97 * common + 0.72 * coined)


@dataclass
class World:
    context: str
    entities: list[Entity]
    source: NameSource


def make_world(split: str, tokens: int, generator: random.Random) -> World:
    """A context of about `tokens` tokens; two to four kinds of entities, so that each has rivals of its kind."""
    source = NameSource(split, generator)
    kinds = generator.sample(list(KINDS), generator.randint(2, 4))
    entities: list[Entity] = []
    parts: list[str] = []
    total = 0
    while total < tokens - 40:
        entity = make_entity(generator.choice(kinds), source)
        text = paragraphs(entity, source)
        cost = sum(map(estimated_tokens, text)) + len(text)
        if total + cost > tokens * 1.04 + 20 and entities:
            break
        if entity.stated:
            entities.append(entity)
            parts += text
            total += cost
    while total < tokens - 20:
        parts.append(filler(source))
        total += estimated_tokens(parts[-1]) + 1
    generator.shuffle(parts)
    separator = generator.choice(("\n\n", "\n\n", "\n", " "))
    return World(separator.join(parts), entities, source)


def qa_questions(world: World) -> Iterator[tuple[str, str]]:
    """Every stated value once, in random order: mostly asked for, at times given to ask for its entity."""
    generator = world.source.random
    stated = [(entity, key) for entity in world.entities for key in entity.stated]
    generator.shuffle(stated)
    for entity, key in stated:
        _, forward, reverse = KINDS[entity.kind][0][key]
        if reverse and generator.random() < 0.2:
            value = entity.values[key]
            question = generator.choice(reverse).replace("{a:v}", with_article(value)).replace("{v}", value)
            answer = entity.name if entity.name in world.context else upper_first(entity.name)
        else:
            question, answer = generator.choice(forward).replace("{N}", entity.name), entity.stated[key]
        yield upper_first(question), answer


def record_questions(world: World) -> Iterator[tuple[str, str]]:
    """A JSON record of an entity; keys in the fixed order of its kind, values as the text spells them."""
    generator = world.source.random
    while True:
        entities = list(world.entities)
        generator.shuffle(entities)
        for entity in entities:
            count = min(len(entity.stated), generator.randint(2, 4))
            chosen = set(generator.sample(sorted(entity.stated), count))
            record = {key: entity.stated[key] for key in KINDS[entity.kind][0] if key in chosen}
            keys = ", ".join(f'"{key}"' for key in record)
            question = generator.choice(RECORD_QUESTIONS).replace("{N}", entity.name).replace("{keys}", keys)
            yield upper_first(question), json.dumps(record, ensure_ascii=False)


def generate(tasks: list[str], split: str, contexts: int, questions: int, tokens: tuple[int, int],
             seed: int) -> Iterator[dict]:
    """Records of `contexts` contexts, up to `questions` of each task per context (fewer if it states fewer facts)."""
    makers = {"qa": qa_questions, "records": record_questions}
    for index in range(contexts):
        generator = random.Random(f"{seed}/{split}/{index}")
        world = make_world(split, generator.randint(*tokens), generator)
        context_id = f"{split}-{seed}-{index}"
        for task in tasks:
            for number, (question, answer) in zip(range(questions), makers[task](world)):
                yield {"id": f"{context_id}-{task}-{number}", "task": task, "context_id": context_id,
                       "context": world.context, "question": question, "answers": [answer]}


def check_disjoint(contexts: int, seed: int) -> int:
    """Names and (entity, value) pairs of the two splits must not meet; returns how many do."""
    names, pairs = {}, {}
    for split in SPLITS:
        names[split], pairs[split] = set(), set()
        for index in range(contexts):
            world = make_world(split, 900, random.Random(f"{seed}/{split}/{index}"))
            names[split] |= world.source.names | {entity.name for entity in world.entities}
            pairs[split] |= {(entity.name, value) for entity in world.entities for value in entity.values.values()}
    shared = (names["train"] & names["heldout"]) | (pairs["train"] & pairs["heldout"])
    print(f"{len(names['train'])} training and {len(names['heldout'])} held-out names, "
          f"{len(pairs['train'])} and {len(pairs['heldout'])} pairs of entity and value: {len(shared)} shared")
    return len(shared)


def token_range(text: str) -> tuple[int, int]:
    try:
        low, _, high = text.partition(":")
        bounds = int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of tokens or MIN:MAX") from None
    if not 100 <= bounds[0] <= bounds[1] <= 8000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 100 <= MIN <= MAX <= 8000")
    return bounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=(*TASKS, "both"), default="qa")
    parser.add_argument("--split", choices=SPLITS, default="heldout")
    parser.add_argument("--contexts", type=int, default=10)
    parser.add_argument("--questions", type=int, default=4, help="of each task, per context (default: 4)")
    parser.add_argument("--tokens", type=token_range, default=(900, 900), help="N or MIN:MAX per context (default: 900)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: standard output")
    parser.add_argument("--check-disjoint", action="store_true",
                        help="generate --contexts contexts of both splits and fail if they share a name or a value pair")
    arguments = parser.parse_args()
    if arguments.check_disjoint:
        return 1 if check_disjoint(arguments.contexts, arguments.seed) else 0
    tasks = list(TASKS) if arguments.task == "both" else [arguments.task]
    file = open(arguments.out, "w", encoding="utf-8") if arguments.out else sys.stdout
    for row in generate(tasks, arguments.split, arguments.contexts, arguments.questions, arguments.tokens,
                        arguments.seed):
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if arguments.out:
        file.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
