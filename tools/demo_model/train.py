#!/usr/bin/env python3
"""Trains a LoRA adapter of SmolLM2-135M-Instruct on generated contexts; writes it in PEFT's format.

    OMP_NUM_THREADS=2 python tools/demo_model/train.py --task qa --minutes 60 --out DIR

The learning rate follows the wall clock (warm-up, then cosine to zero at --minutes), so a run on a busy machine ends
annealed as well (there, one thread is faster than two that wait for each other). DIR gets adapter_model.safetensors,
adapter_config.json, train_log.jsonl and, for --resume, state.pt. Large tensors come and go at every step: on the CPU,
GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592 keeps their pages.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Iterator

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from decoding import greedy_answers
from fetch import default_directory
from generate import generate
from llama import Llama
from lora import Adapter
from packing import Pack, make_pack, pack_attention
from scoring import f1

RANK, ALPHA = 16, 32
LEARNING_RATE, WARM_UP_STEPS, CLIP = 6e-4, 10, 1.0
TOKENS_PER_STEP = 1300
CHECKPOINT_SECONDS, EVALUATION_SECONDS = 300, 900
MAX_ANSWER_TOKENS = {"qa": 32, "records": 120}


def native_precision() -> str:
    """BF16 where the processor multiplies it; elsewhere it would be emulated, several times slower than FP32."""
    return "bf16" if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else "fp32"


def context_length(progress: float, generator: random.Random) -> int:
    """Short contexts first; then mostly 300 to 1,100 tokens, with 900 (as served) well covered and some to 2,000."""
    if progress < 0.2:
        return generator.randint(150, 500)
    draw = generator.random()
    if draw < 0.25:
        return generator.randint(850, 1000)
    return generator.randint(1100, 2000) if draw > 0.9 else generator.randint(300, 1100)


def training_pack(task: str, tokenizer: Tokenizer, seed: int, index: int, progress: float) -> Pack:
    """Pack number `index` of the run: contexts never repeat."""
    generator = random.Random(f"pack/{seed}/{index}")
    length = context_length(progress, generator)
    questions = 30 if task == "qa" else 10
    rows = list(generate([task], "train", 1, questions, (length, length), seed * 1_000_000 + index))
    return make_pack(tokenizer, rows[0]["context"], [(row["question"], row["answers"][0]) for row in rows])


def by_context(rows: Iterator[dict]) -> Iterator[tuple[str, list[dict]]]:
    for _, group in groupby(rows, key=lambda row: row["context_id"]):
        group_rows = list(group)
        yield group_rows[0]["context"], group_rows


def heldout_f1(model: Llama, tokenizer: Tokenizer, task: str, contexts: int = 6, questions: int = 6) -> float:
    scores = []
    for context, rows in by_context(generate([task], "heldout", contexts, questions, (900, 900), seed=7)):
        answers = greedy_answers(model, tokenizer, context, [row["question"] for row in rows], MAX_ANSWER_TOKENS[task])
        scores += [f1(answer, row["answers"]) for answer, row in zip(answers, rows)]
    return 100 * sum(scores) / len(scores)


class Run:
    """One training run: what it has done so far and how it goes on."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
        self.model = Llama(arguments.model, torch.bfloat16 if arguments.precision == "bf16" else torch.float32)
        self.adapter = Adapter(self.model, RANK, ALPHA, arguments.seed)
        self.model.low_rank = self.adapter.low_rank
        self.parameters = self.adapter.require_gradients()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
        self.step = self.packs = self.tokens = 0
        self.elapsed_before = 0.0
        if arguments.start_from:
            self.adapter.load(arguments.start_from)
        if arguments.resume:
            self.load_state()
        self.started = time.monotonic()

    def elapsed(self) -> float:
        return self.elapsed_before + time.monotonic() - self.started

    def progress(self) -> float:
        return min(1.0, self.elapsed() / (60 * self.arguments.minutes))

    def curriculum(self) -> float:
        """A run that starts from a trained adapter needs no short contexts first."""
        return 1.0 if self.arguments.start_from else self.progress()

    def learning_rate(self) -> float:
        warm_up = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        return LEARNING_RATE * warm_up * 0.5 * (1 + math.cos(math.pi * self.progress()))

    def train_step(self) -> tuple[float, int, int]:
        """Returns loss per answer token, tokens and questions of the step."""
        packs, tokens = [], 0
        while tokens < TOKENS_PER_STEP:
            packs.append(training_pack(self.arguments.task, self.tokenizer, self.arguments.seed, self.packs, self.curriculum()))
            self.packs += 1
            tokens += len(packs[-1].ids)
        answer_tokens = sum(len(pack.targets) for pack in packs)
        self.optimizer.zero_grad()
        self.adapter.begin_step()
        total = 0.0
        for number, pack in enumerate(packs):
            hidden = self.model.hidden(pack.ids, pack.positions, pack_attention(pack, self.model.dtype))
            loss = F.cross_entropy(self.model.logits(hidden[pack.predictors]), pack.targets, reduction="sum") / answer_tokens
            loss.backward(retain_graph=number + 1 < len(packs))
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.step += 1
        self.tokens += tokens
        return total, tokens, sum(int(pack.segments[-1]) + 1 for pack in packs)

    def log(self, **values) -> None:
        row = {"step": self.step, "minutes": round(self.elapsed() / 60, 2), **values}
        with open(self.arguments.out / "train_log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def evaluate(self) -> None:
        with torch.no_grad():
            self.adapter.begin_step()
            score = heldout_f1(self.model, self.tokenizer, self.arguments.task)
        self.log(heldout_f1=round(score, 1), heldout_questions=36)

    def save_state(self) -> None:
        self.adapter.save(self.arguments.out)
        state = {"parameters": {name: tensor.detach() for name, tensor in self.adapter.parameters.items()},
                 "optimizer": self.optimizer.state_dict(), "step": self.step, "packs": self.packs,
                 "tokens": self.tokens, "elapsed": self.elapsed()}
        torch.save(state, self.arguments.out / "state.pt.partial")
        os.replace(self.arguments.out / "state.pt.partial", self.arguments.out / "state.pt")

    def load_state(self) -> None:
        state = torch.load(self.arguments.out / "state.pt")
        with torch.no_grad():
            for name, tensor in state["parameters"].items():
                self.adapter.parameters[name].copy_(tensor)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.packs, self.tokens = state["step"], state["packs"], state["tokens"]
        self.elapsed_before = state["elapsed"]
        log = self.arguments.out / "train_log.jsonl"
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
        log.write_text("\n".join(kept) + "\n")

    def run(self) -> None:
        saved = evaluated = self.elapsed()
        while self.progress() < 1:
            began = time.monotonic()
            learning_rate = self.learning_rate()
            loss, tokens, questions = self.train_step()
            rate = tokens / (time.monotonic() - began)
            self.log(loss=round(loss, 4), lr=round(learning_rate, 7), tokens=tokens, questions=questions,
                     tokens_per_s=round(rate, 1))
            if self.elapsed() - saved > CHECKPOINT_SECONDS:
                self.save_state()
                saved = self.elapsed()
            if self.elapsed() - evaluated > EVALUATION_SECONDS:
                self.evaluate()
                evaluated = self.elapsed()
        self.save_state()
        self.evaluate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("qa", "records"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="wall time of the whole run, resumed parts included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=default_directory(), help="default: %(default)s")
    parser.add_argument("--start-from", type=Path, help="an adapter of the same rank to begin with, instead of zero")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default=native_precision(), help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt")
    arguments = parser.parse_args()
    if not (arguments.model / "model.safetensors").is_file():
        print(f"train: error: {arguments.model} holds no model; run tools/demo_model/fetch.py first", file=sys.stderr)
        return 1
    if arguments.resume and not (arguments.out / "state.pt").is_file():
        print(f"train: error: --resume: {arguments.out}/state.pt is missing; start without --resume", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    Run(arguments).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
