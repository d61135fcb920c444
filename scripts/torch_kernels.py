#!/usr/bin/env python3
"""The shapes of `scd bench kernels` and of `scd bench engine` through PyTorch, on one GPU: attention of a prefill, linear
layers, and a decoder layer as torch.compile makes it (32 of them are Llama-3.1-8B without embedding and head).

    python3 scripts/torch_kernels.py [--json FILE] [--tiny]        --tiny: a small shape on the CPU, to try the script
"""

import argparse
import json
import time
from dataclasses import dataclass

import provenance
import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORTEST = 0.02  # seconds of one measurement


@dataclass
class Shape:
    """Llama-3.1-8B unless told otherwise."""

    device: str = "cuda"
    tokens: int = 8192
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    inner: int = 14336
    context: int = 2048
    batches: tuple = (64, 8, 1)

    @property
    def hidden(self):
        return self.heads * self.head_dim

    @property
    def kv_width(self):
        return self.kv_heads * self.head_dim

    def linear(self):
        """(outputs, inputs) by name."""
        return {
            "qkv": (self.hidden + 2 * self.kv_width, self.hidden),
            "output": (self.hidden, self.hidden),
            "gate_up": (2 * self.inner, self.hidden),
            "down": (self.hidden, self.inner),
        }

    def random(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=torch.bfloat16)

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


TINY = Shape(device="cpu", tokens=128, heads=4, kv_heads=2, head_dim=16, inner=128, context=64, batches=(4, 1))


def best_seconds(shape, action, repetitions=3):
    def timed(count):
        shape.wait()
        begin = time.perf_counter()
        for _ in range(count):
            action()
        shape.wait()
        return (time.perf_counter() - begin) / count

    timed(2)
    count = 1 + int(SHORTEST / timed(1))
    return min(timed(count) for _ in range(repetitions))


def attention_rows(shape):
    query = shape.random(1, shape.heads, shape.tokens, shape.head_dim)
    key, value = (shape.random(1, shape.kv_heads, shape.tokens, shape.head_dim) for _ in range(2))
    flops = 2 * shape.tokens * shape.tokens * shape.heads * shape.head_dim  # causal: half of all pairs
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                seconds = best_seconds(
                    shape,
                    lambda: functional.scaled_dot_product_attention(
                        query, key, value, is_causal=True, enable_gqa=True
                    ),
                )
        except RuntimeError as error:
            print(f"{backend}: {error}")
            continue
        yield f"attention of {shape.tokens} tokens, {backend.name}", seconds, "tflop_per_s", flops / seconds / 1e12


def decode_attention_rows(shape):
    for batch in shape.batches:
        query = shape.random(batch, shape.heads, 1, shape.head_dim)
        key, value = (shape.random(batch, shape.kv_heads, shape.context, shape.head_dim) for _ in range(2))
        seconds = best_seconds(
            shape, lambda: functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        )
        read = 2 * 2 * batch * shape.context * shape.kv_width
        yield f"attention, decoding, batch {batch}, SDPA", seconds, "gbyte_per_s", read / seconds / 1e9


def linear_rows(shape):
    for name, (outputs, inputs) in shape.linear().items():
        weight = shape.random(outputs, inputs)
        for rows in (shape.tokens, *shape.batches):
            x = shape.random(rows, inputs)
            seconds = best_seconds(shape, lambda: functional.linear(x, weight))
            label = f"linear {name}, {rows} rows"
            if rows == shape.tokens:
                yield label, seconds, "tflop_per_s", 2 * rows * outputs * inputs / seconds / 1e12
            else:
                yield label, seconds, "gbyte_per_s", 2 * outputs * inputs / seconds / 1e9


class DecoderLayer(torch.nn.Module):
    """Pre-norm, grouped-query attention with RoPE, SwiGLU; keys and values of earlier tokens are given, with room for
    the new one at the end."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        for name, (outputs, inputs) in shape.linear().items():
            self.register_buffer(name, shape.random(outputs, inputs) / inputs**0.5)
        self.register_buffer("norms", torch.ones(2, shape.hidden, device=shape.device, dtype=torch.bfloat16))

    def turned(self, x, angles):
        low, high = x.float().chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)

    def forward(self, x, angles, past_keys, past_values):
        shape = self.shape
        batch, tokens, _ = x.shape
        normed = functional.rms_norm(x, (shape.hidden,), self.norms[0])
        qkv = functional.linear(normed, self.qkv)
        query, key, value = (
            part.view(batch, tokens, -1, shape.head_dim).transpose(1, 2)
            for part in qkv.split((shape.hidden, shape.kv_width, shape.kv_width), dim=-1)
        )
        query, key = self.turned(query, angles), self.turned(key, angles)
        if past_keys is not None:
            past_keys[:, :, -tokens:], past_values[:, :, -tokens:] = key, value
            key, value = past_keys, past_values
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=past_keys is None, enable_gqa=True
        )
        x = x + functional.linear(attended.transpose(1, 2).reshape(batch, tokens, shape.hidden), self.output)
        gate, up = functional.linear(functional.rms_norm(x, (shape.hidden,), self.norms[1]), self.gate_up).chunk(2, -1)
        return x + functional.linear(functional.silu(gate) * up, self.down)


@torch.inference_mode()
def layer_rows(shape):
    layer = torch.compile(DecoderLayer(shape), dynamic=False)
    weights = sum(outputs * inputs for outputs, inputs in shape.linear().values())
    frequencies = 500000.0 ** (-torch.arange(0, shape.head_dim, 2, device=shape.device) / shape.head_dim)
    x = shape.random(1, shape.tokens, shape.hidden)
    angles = torch.arange(shape.tokens, device=shape.device)[:, None] * frequencies
    seconds = best_seconds(shape, lambda: layer(x, angles, None, None))
    rate = 2 * shape.tokens * weights / seconds / 1e12  # linear layers alone, as scd bench engine counts
    yield f"decoder layer, prefill of {shape.tokens}, compiled", seconds, "tflop_per_s", rate
    for batch in shape.batches:
        x = shape.random(batch, 1, shape.hidden)
        angles = torch.full((1, 1), shape.context, device=shape.device) * frequencies
        past = [shape.random(batch, shape.kv_heads, shape.context + 1, shape.head_dim) for _ in range(2)]
        seconds = best_seconds(shape, lambda: layer(x, angles, *past))
        read = 2 * (weights + 2 * batch * shape.context * shape.kv_width)
        label = f"decoder layer, decoding batch {batch} at {shape.context}, compiled"
        yield label, seconds, "gbyte_per_s", read / seconds / 1e9


def machine(shape):
    if shape.device == "cpu":
        return {"gpu": None, "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(0)
    x = shape.random(8192, 8192)
    for _ in range(900):  # more than a second of BF16 products, under way while the clocks are read
        torch.mm(x, x)
    fields = provenance.gpu(f"GPU-{properties.uuid}" if hasattr(properties, "uuid") else 0)
    shape.wait()
    version = {"torch": torch.__version__, "cuda_runtime": torch.version.cuda}
    return {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30)} | fields | version


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file for machine, commit, command and rows")
    parser.add_argument("--tiny", action="store_true", help="a small shape on the CPU")
    options = parser.parse_args()
    shape = TINY if options.tiny else Shape()
    rows = []
    for measured in (attention_rows, decode_attention_rows, linear_rows, layer_rows):
        for name, seconds, unit, rate in measured(shape):
            print(f"{name:52s} {seconds * 1e6:9.1f} us {rate:8.1f} {unit}")
            rows.append({"op": name, "total_ms": seconds * 1e3, unit: rate})
    if options.json:
        report = {
            "machine": machine(shape),
            "commit": provenance.commit(),
            "command": provenance.command_line(),
            "rows": rows,
        }
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
