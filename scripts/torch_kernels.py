#!/usr/bin/env python3
"""The shapes of `scd bench kernels` through PyTorch, on one GPU: attention of a prefill and linear layers.

    python3 scripts/torch_kernels.py [--json FILE]
"""

import argparse
import json
import time

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

TOKENS = 8192
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128  # Llama-3.1-8B
LINEAR = {"qkv": (6144, 4096), "output": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
ROWS = (TOKENS, 64, 8, 1)
SHORTEST = 0.02  # seconds of one measurement


def best_seconds(action, repetitions=3):
    def timed(count):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            action()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / count

    timed(2)
    count = 1 + int(SHORTEST / timed(1))
    return min(timed(count) for _ in range(repetitions))


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def attention_rows():
    query, key, value = random(1, HEADS, TOKENS, HEAD_DIM), *(random(1, KV_HEADS, TOKENS, HEAD_DIM) for _ in range(2))
    flops = 2 * TOKENS * TOKENS * HEADS * HEAD_DIM  # causal: half of all pairs
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                seconds = best_seconds(
                    lambda: functional.scaled_dot_product_attention(
                        query, key, value, is_causal=True, enable_gqa=True
                    )
                )
        except RuntimeError as error:
            print(f"{backend}: {error}")
            continue
        yield f"attention of {TOKENS} tokens, {backend.name}", seconds, "tflop_per_s", flops / seconds / 1e12


def linear_rows():
    for name, (outputs, inputs) in LINEAR.items():
        weight = random(outputs, inputs)
        for rows in ROWS:
            x = random(rows, inputs)
            seconds = best_seconds(lambda: functional.linear(x, weight))
            label = f"linear {name}, {rows} rows"
            if rows == TOKENS:
                yield label, seconds, "tflop_per_s", 2 * rows * outputs * inputs / seconds / 1e12
            else:
                yield label, seconds, "gbyte_per_s", 2 * outputs * inputs / seconds / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for GPU, version and rows")
    options = parser.parse_args()
    rows = []
    for name, seconds, unit, rate in (*attention_rows(), *linear_rows()):
        print(f"{name:48s} {seconds * 1e6:9.1f} us {rate:8.1f} {unit}")
        rows.append({"op": name, "total_ms": seconds * 1e3, unit: rate})
    if options.json:
        report = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
