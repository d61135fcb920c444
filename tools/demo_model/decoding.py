"""Greedy answers to all questions of one context, with a KV cache that the questions share."""

import torch
from tokenizers import Tokenizer

from llama import Attend, Llama, causal_attention, masked_attention
from packing import Pack, encode, make_pack, suffix_mask

END_IDS = (0, 2)


class SharedCache:
    """Keys and values of the context, then of every question's tokens in the order they were computed."""

    def __init__(self, layers: int):
        self.keys: list[torch.Tensor | None] = [None] * layers
        self.values: list[torch.Tensor | None] = [None] * layers

    def context(self) -> Attend:
        def attend(layer, q, k, v):
            self.keys[layer], self.values[layer] = k, v
            return causal_attention(layer, q, k, v)
        return attend

    def extend(self, mask: torch.Tensor) -> Attend:
        """`mask` [new tokens, all tokens after the context]."""
        def attend(layer, q, k, v):
            self.keys[layer] = torch.cat((self.keys[layer], k))
            self.values[layer] = torch.cat((self.values[layer], v))
            return masked_attention(q, self.keys[layer], self.values[layer], mask)
        return attend


@torch.inference_mode()
def greedy_ids(model: Llama, pack: Pack, max_tokens: int) -> list[list[int]]:
    """Answer ids of each question of a pack without answers; ends at END_IDS or after max_tokens."""
    count, segments = pack.context_tokens, pack.segments
    cache = SharedCache(model.shape.layers)
    model.hidden(pack.ids[:count], pack.positions[:count], cache.context())
    hidden = model.hidden(pack.ids[count:], pack.positions[count:], cache.extend(suffix_mask(segments, model.dtype)))
    last = torch.nonzero(torch.cat((segments[1:] != segments[:-1], torch.tensor([True]))))[:, 0]
    active, positions = segments[last], pack.positions[count:][last]
    ids = model.logits(hidden[last]).argmax(-1)
    answers: list[list[int]] = [[] for _ in range(len(last))]
    while True:
        going = torch.tensor([token not in END_IDS and len(answers[question]) < max_tokens
                              for question, token in zip(active.tolist(), ids.tolist())])
        active, ids, positions = active[going], ids[going], positions[going] + 1
        for question, token in zip(active.tolist(), ids.tolist()):
            answers[question].append(token)
        if not len(active):
            return answers
        segments = torch.cat((segments, active))
        other = active[:, None] != segments[None, :]
        mask = torch.zeros(other.shape, dtype=model.dtype).masked_fill(other, -torch.inf)
        ids = model.logits(model.hidden(ids, positions, cache.extend(mask))).argmax(-1)


def greedy_answers(model: Llama, tokenizer: Tokenizer, context: str, questions: list[str],
                   max_tokens: int = 48) -> list[str]:
    """The answers as text, up to the first line break."""
    pack = make_pack(tokenizer, context, [(question, None) for question in questions])
    return [tokenizer.decode(ids).strip().split("\n")[0] for ids in greedy_ids(model, pack, max_tokens)]
