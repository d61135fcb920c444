"""One context, many questions: each question attends to the context and to itself, so they share its compute.

A pack is [context | question 1 + answer 1 | question 2 + answer 2 | ...]; positions restart after the context for
every question, so each sees exactly what it would see alone.
"""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from llama import Attend, causal_attention, causal_mask, masked_attention

END_OF_ANSWER = 2  # <|im_end|>
QUESTION = "\n\nQuestion: {question}\nAnswer:"


@dataclass
class Pack:
    ids: torch.Tensor  # [tokens]
    positions: torch.Tensor  # [tokens]
    context_tokens: int
    segments: torch.Tensor  # [tokens - context_tokens], the question each suffix token belongs to
    predictors: torch.Tensor  # [answer tokens], positions in the pack whose next token is trained
    targets: torch.Tensor  # [answer tokens]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def make_pack(tokenizer: Tokenizer, context: str, questions: list[tuple[str, str | None]]) -> Pack:
    """`questions` are (question, answer); with answer None the pack ends each question at "Answer:"."""
    ids = encode(tokenizer, context)
    start = len(ids)
    positions, segments = list(range(start)), []
    predictors, targets = [], []
    for number, (question, answer) in enumerate(questions):
        suffix = encode(tokenizer, QUESTION.format(question=question))
        if answer is not None:
            answer_ids = [*encode(tokenizer, " " + answer), END_OF_ANSWER]
            first = len(ids) + len(suffix) - 1
            predictors += range(first, first + len(answer_ids))
            targets += answer_ids
            suffix += answer_ids[:-1]
        ids += suffix
        positions += range(start, start + len(suffix))
        segments += [number] * len(suffix)
    return Pack(*map(torch.tensor, (ids, positions)), start, *map(torch.tensor, (segments, predictors, targets)))


def suffix_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[suffix, suffix]: 0 where a token may look at an earlier one of its own question, else -inf."""
    other = segments[:, None] != segments[None, :]
    return causal_mask(len(segments), dtype).masked_fill(other, -torch.inf)


def question_blocks(segments: torch.Tensor, block: int = 192) -> list[tuple[int, int]]:
    """Ranges of about `block` suffix tokens that hold whole questions."""
    starts = [0, *(torch.nonzero(segments[1:] != segments[:-1])[:, 0] + 1).tolist(), len(segments)]
    bounds = [0]
    for start, end in zip(starts[:-1], starts[1:]):
        if start > bounds[-1] and end - bounds[-1] > block:
            bounds.append(start)
    return list(zip(bounds, [*bounds[1:], len(segments)]))


def pack_attention(pack: Pack, dtype: torch.dtype) -> Attend:
    """Questions do not see each other, so a few of them at a time meet the context's keys and their own."""
    count = pack.context_tokens
    blocks = [(count + start, count + end, suffix_mask(pack.segments[start:end], dtype))
              for start, end in question_blocks(pack.segments)]

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = [causal_attention(layer, q[:count], k[:count], v[:count])]
        for start, end, mask in blocks:
            keys, values = (torch.cat((x[:count], x[start:end])) for x in (k, v))
            parts.append(masked_attention(q[start:end], keys, values, mask))
        return torch.cat(parts)

    return attend
