#!/usr/bin/env python3
"""Greedy F1 and exact match of the base model, or of it with an adapter merged, over a file of questions (torch).

    python tools/demo_model/evaluate.py FILE [--adapter DIR] [--precision fp32|bf16] [--limit N] [--json FILE]
    python tools/demo_model/evaluate.py squad.json --passages 4

FILE holds JSON lines {context, question, answers} or is in SQuAD's format; there, --passages consecutive paragraphs
(joined by an empty line) are the context of all their questions. Prompt: {context}\\n\\nQuestion: {question}\\nAnswer:
No token is put in front. An answer ends at end of sequence (0 or 2), at a line break or after --max-tokens.
The adapter is merged in FP32 and rounded once to BF16. This is an implementation independent of the project's engine.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from decoding import greedy_answers
from fetch import default_directory
from llama import Llama
from lora import merge
from scoring import exact_match, f1

# (context, its questions and accepted answers)
Group = tuple[str, list[tuple[str, list[str]]]]


def squad_groups(document: dict, passages: int) -> list[Group]:
    paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    groups = []
    for start in range(0, len(paragraphs), passages):
        chunk = paragraphs[start:start + passages]
        questions = [(qa["question"], [answer["text"] for answer in qa["answers"]])
                     for paragraph in chunk for qa in paragraph["qas"] if qa["answers"]]
        groups.append(("\n\n".join(paragraph["context"] for paragraph in chunk), questions))
    return groups


def line_groups(text: str) -> list[Group]:
    """Neighbouring lines with the same context form one group."""
    groups: list[Group] = []
    for line in text.splitlines():
        row = json.loads(line)
        if not groups or groups[-1][0] != row["context"]:
            groups.append((row["context"], []))
        groups[-1][1].append((row["question"], row["answers"]))
    return groups


def read_groups(path: Path, passages: int) -> list[Group]:
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return line_groups(text)
    return squad_groups(document, passages) if "data" in document else line_groups(text)


def limited(groups: list[Group], limit: int | None) -> list[Group]:
    """Evenly spaced groups that hold at least `limit` questions together."""
    total = sum(len(questions) for _, questions in groups)
    if limit is None or limit >= total:
        return groups
    stride = max(1, total // limit)
    return groups[::stride]


def evaluate(arguments: argparse.Namespace) -> dict:
    model = Llama(arguments.model, torch.float32 if arguments.precision == "fp32" else torch.bfloat16)
    if arguments.adapter:
        merge(model, arguments.adapter)
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    groups = limited(read_groups(arguments.file, arguments.passages), arguments.limit)
    predictions, began = [], time.monotonic()
    for number, (context, questions) in enumerate(groups, 1):
        answers = greedy_answers(model, tokenizer, context, [question for question, _ in questions], arguments.max_tokens)
        for (question, expected), answer in zip(questions, answers):
            predictions.append({"question": question, "answers": expected, "prediction": answer,
                                "f1": f1(answer, expected), "exact_match": exact_match(answer, expected)})
        mean = sum(row["f1"] for row in predictions) / len(predictions)
        print(f"\r{number}/{len(groups)} contexts, {len(predictions)} questions, F1 {100 * mean:.1f}", end="",
              file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if arguments.predictions:
        arguments.predictions.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))
    count = len(predictions)
    return {"file": arguments.file.name, "adapter": arguments.adapter.name if arguments.adapter else None,
            "precision": arguments.precision, "contexts": len(groups), "questions": count,
            "f1": round(100 * sum(row["f1"] for row in predictions) / count, 2),
            "exact_match": round(100 * sum(row["exact_match"] for row in predictions) / count, 2),
            "seconds": round(time.monotonic() - began, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", type=Path, default=default_directory(), help="default: %(default)s")
    parser.add_argument("--adapter", type=Path, help="directory of a LoRA adapter in PEFT's format")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--passages", type=int, default=1, help="SQuAD paragraphs per context (default: 1)")
    parser.add_argument("--limit", type=int, help="about this many questions, evenly spaced over the file")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--json", type=Path, help="write the result here as well")
    parser.add_argument("--predictions", type=Path, help="write every question and its prediction here (JSON lines)")
    arguments = parser.parse_args()
    for needed in (arguments.file, arguments.model / "model.safetensors"):
        if not needed.is_file():
            print(f"evaluate: error: {needed} is missing", file=sys.stderr)
            return 1
    result = evaluate(arguments)
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
