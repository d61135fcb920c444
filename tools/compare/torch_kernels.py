"""The ops of `scd bench kernels` through PyTorch, in the same shapes: attention, linear layers, and a decoder layer as
torch.compile makes it. scd holds this file and runs it; what an op is called here, it is called there.

    python3 torch_kernels.py [SHAPE]        SHAPE: what differs from Shape below, as JSON

Lines of JSON come back: {"torch": version}, or why there is none as {"missing": reason}; then {"op", "kernel", "ms"} a
measurement, `kernel` being which of PyTorch's it was, null where PyTorch was not asked for one.
"""

import itertools
import json
import os
import sys
import time
from dataclasses import dataclass

# For the lines alone: what others print goes to stderr.
ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def answer(**fields):
    print(json.dumps(fields), file=ANSWERS, flush=True)


try:
    import torch
    import torch.nn.functional as functional
    from torch.nn.attention import SDPBackend, sdpa_kernel
except (ImportError, OSError) as error:
    answer(missing=f"python3: {error}")
    sys.exit()

SHORTEST = 0.02  # seconds of one measurement
CACHES = 256 << 20  # bytes: no cache holds them


@dataclass
class Shape:
    """A layer of Llama-3.1-8B unless told otherwise."""

    device: str = "cuda:0"
    dtype: str = "bfloat16"
    threads: int = 0  # of the CPU; 0: PyTorch's choice
    tokens: int = 8192
    context: int = 2048
    batches: tuple = (1, 8, 16, 64)
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    inner: int = 14336
    repetitions: int = 3

    @property
    def on_gpu(self):
        return self.device != "cpu"

    @property
    def width(self):
        return self.heads * self.head_dim

    @property
    def kv_width(self):
        return self.kv_heads * self.head_dim

    def linear(self):
        """(outputs, inputs) by name."""
        return {
            "qkv": (self.width + 2 * self.kv_width, self.hidden),
            "output": (self.hidden, self.width),
            "gate_up": (2 * self.inner, self.hidden),
            "down": (self.hidden, self.inner),
        }

    def random(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=getattr(torch, self.dtype))

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()


def best_ms(shape, action):
    """As best_seconds() of scd."""

    def timed(count):
        shape.wait()
        begin = time.perf_counter()
        for _ in range(count):
            action()
        shape.wait()
        return (time.perf_counter() - begin) / count

    timed(2)
    count = 1 + int(SHORTEST / timed(1))
    return 1e3 * min(timed(count) for _ in range(shape.repetitions))


def attention_rows(shape):
    query = shape.random(1, shape.heads, shape.tokens, shape.head_dim)
    key, value = (shape.random(1, shape.kv_heads, shape.tokens, shape.head_dim) for _ in range(2))
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                ms = best_ms(
                    shape,
                    lambda: functional.scaled_dot_product_attention(
                        query, key, value, is_causal=True, enable_gqa=True
                    ),
                )
        except RuntimeError as error:
            print(f"torch: {backend.name}: {error}", file=sys.stderr)
            continue
        yield f"attention of {shape.tokens} tokens", backend.name, ms
    for batch in shape.batches:
        query = shape.random(batch, shape.heads, 1, shape.head_dim)
        key, value = (shape.random(batch, shape.kv_heads, shape.context, shape.head_dim) for _ in range(2))
        ms = best_ms(shape, lambda: functional.scaled_dot_product_attention(query, key, value, enable_gqa=True))
        yield f"attention, decoding, batch {batch}", None, ms


def linear_rows(shape):
    for name, (outputs, inputs) in shape.linear().items():
        one = shape.random(outputs, inputs)
        copies = 1 + CACHES // (outputs * inputs * one.element_size())
        weights = itertools.cycle([one, *(one.clone() for _ in range(copies - 1))])
        for rows in (shape.tokens, *shape.batches):
            x = shape.random(rows, inputs)
            yield f"linear {name}, {rows} rows", None, best_ms(shape, lambda: functional.linear(x, next(weights)))


class DecoderLayer(torch.nn.Module):
    """Pre-norm, grouped-query attention with RoPE, SwiGLU; keys and values of earlier tokens are given, with room for
    the new one at the end."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        for name, (outputs, inputs) in shape.linear().items():
            self.register_buffer(name, shape.random(outputs, inputs) / inputs**0.5)
        self.register_buffer("norms", torch.ones(2, shape.hidden, device=shape.device, dtype=getattr(torch, shape.dtype)))

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
            for part in qkv.split((shape.width, shape.kv_width, shape.kv_width), dim=-1)
        )
        query, key = self.turned(query, angles), self.turned(key, angles)
        if past_keys is not None:
            past_keys[:, :, -tokens:], past_values[:, :, -tokens:] = key, value
            key, value = past_keys, past_values
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=past_keys is None, enable_gqa=True
        )
        x = x + functional.linear(attended.transpose(1, 2).reshape(batch, tokens, shape.width), self.output)
        gate, up = functional.linear(functional.rms_norm(x, (shape.hidden,), self.norms[1]), self.gate_up).chunk(2, -1)
        return x + functional.linear(functional.silu(gate) * up, self.down)


def compiled_kernels(shape, layer, *inputs):
    """(kernel, ms) of the layer, compiled; on a GPU recorded, too, as scd's decode steps are."""
    torch.compiler.reset()  # one shape each: no limit of recompilations, no guards of the others
    compiled = torch.compile(layer, dynamic=False)
    yield "compiled", best_ms(shape, lambda: compiled(*inputs))
    if shape.on_gpu:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                compiled(*inputs)
        except RuntimeError as error:
            print(f"torch: the compiled layer cannot be recorded: {error}", file=sys.stderr)
            return
        yield "compiled, CUDA graph", best_ms(shape, graph.replay)


@torch.inference_mode()
def layer_rows(shape):
    layer = DecoderLayer(shape)
    frequencies = 500000.0 ** (-torch.arange(0, shape.head_dim, 2, device=shape.device) / shape.head_dim)
    x = shape.random(1, shape.tokens, shape.hidden)
    angles = torch.arange(shape.tokens, device=shape.device)[:, None] * frequencies
    for kernel, ms in compiled_kernels(shape, layer, x, angles, None, None):
        yield f"decoder layer, prefill of {shape.tokens}", kernel, ms
    for batch in shape.batches:
        x = shape.random(batch, 1, shape.hidden)
        angles = torch.full((1, 1), shape.context, device=shape.device) * frequencies
        past = [shape.random(batch, shape.kv_heads, shape.context + 1, shape.head_dim) for _ in range(2)]
        for kernel, ms in compiled_kernels(shape, layer, x, angles, *past):
            yield f"decoder layer, decoding batch {batch} at {shape.context}", kernel, ms


def main():
    shape = Shape(**json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    if shape.on_gpu and not torch.cuda.is_available():
        answer(missing=f"torch {torch.__version__} finds no GPU that it can use")
        return
    if shape.on_gpu:
        torch.cuda.set_device(torch.device(shape.device).index or 0)
    if shape.threads:
        torch.set_num_threads(shape.threads)
    answer(torch=torch.__version__)
    for what, rows_of in (
        ("attention", attention_rows),
        ("linear layers", linear_rows),
        ("a decoder layer, which is compiled first", layer_rows),
    ):
        print(f"torch: {what} ...", file=sys.stderr)
        for op, kernel, ms in rows_of(shape):
            answer(op=op, kernel=kernel, ms=ms)


if __name__ == "__main__":
    main()
