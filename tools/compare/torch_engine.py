"""transformers on torch as scripts/compare_engines asks for it: `prefill N` or `decode BATCH` a line, tokens/s back.

    python3 torch_engine.py MODEL THREADS CONTEXT STEPS
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM


def prefill(model, tokens):
    ids = torch.randint(0, model.config.vocab_size, (1, tokens))
    begin = time.perf_counter()
    model(ids, use_cache=True, logits_to_keep=1)
    return tokens / (time.perf_counter() - begin)


def decode(model, batch, context, steps):
    ids = torch.randint(0, model.config.vocab_size, (batch, context))
    result = model(ids, use_cache=True, logits_to_keep=1)
    begin = time.perf_counter()
    for _ in range(steps):
        ids = result.logits[:, -1].argmax(-1, keepdim=True)
        result = model(ids, past_key_values=result.past_key_values, use_cache=True)
    return batch * steps / (time.perf_counter() - begin)


def main():
    folder, threads, context, steps = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    with torch.inference_mode():
        prefill(model, 64)
        for line in sys.stdin:
            phase, size = line.split()
            size = int(size)
            print(prefill(model, size) if phase == "prefill" else decode(model, size, context, steps), flush=True)


if __name__ == "__main__":
    main()
