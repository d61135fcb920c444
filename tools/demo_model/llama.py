"""A compact Llama forward pass in torch, for training adapters (BF16) and for reference evaluation (FP32 or BF16).

Only what the demo pair needs: default RoPE, tied or untied output, no bias. The caller supplies attention as a
function (see `Attend`), so that packed training batches and cached decoding share one forward pass.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from safetensors import safe_open

PROJECTIONS = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}
# Projections that read the same input run as one matrix product.
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))

# (layer, q [tokens, heads, head_dim], k, v [tokens, kv_heads, head_dim]) -> [tokens, heads * head_dim]
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# (layer, projection group) -> (A [rank, in], B [out, rank]), scale included
LowRank = Callable[[int, tuple[str, ...]], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    rms_eps: float

    @classmethod
    def from_config(cls, config: dict) -> "Shape":
        if config["model_type"] != "llama" or config.get("rope_scaling") or config.get("attention_bias"):
            raise ValueError("this reference runs plain Llama checkpoints only (no rope_scaling, no attention_bias)")
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(hidden, config["num_hidden_layers"], heads, config["num_key_value_heads"],
                   config.get("head_dim") or hidden // heads, config["intermediate_size"],
                   config["rope_theta"], config["rms_norm_eps"])


class RmsNorm(torch.autograd.Function):
    """Statistics in FP32; the weight is frozen."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.float()
        inverse = torch.rsqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1] + eps)
        normalised = (wide * inverse).to(x.dtype)
        ctx.save_for_backward(normalised, inverse, weight)
        return normalised * weight

    @staticmethod
    def backward(ctx, *gradients):
        normalised, inverse, weight = ctx.saved_tensors
        gradient = gradients[0] * weight
        mean = (gradient * normalised).sum(-1, keepdim=True, dtype=torch.float32) / weight.shape[0]
        return torch.addcmul(gradient, normalised, mean.to(weight.dtype), value=-1) * inverse.to(weight.dtype), None, None


class SwiGlu(torch.autograd.Function):
    """[tokens, gate | up] -> silu(gate) * up."""

    @staticmethod
    def forward(ctx, gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        ctx.save_for_backward(gate_up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, *gradients):
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        torch.mul(gradients[0], F.silu(gate), out=result[:, up.shape[1]:])
        result[:, :up.shape[1]] = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return result


def swap_halves(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Llama:
    """Frozen weights; `low_rank` adds an adapter's term to every projection."""

    def __init__(self, directory: Path, dtype: torch.dtype):
        self.shape = Shape.from_config(json.loads((directory / "config.json").read_text()))
        self.dtype = dtype
        with safe_open(directory / "model.safetensors", "pt") as file:
            self.tensors = {name: file.get_tensor(name).to(dtype) for name in file.keys()}
        self.low_rank: LowRank | None = None
        self.output = self.tensors.get("lm_head.weight", self.tensors["model.embed_tokens.weight"])
        self.grouped: dict[tuple[int, tuple[str, ...]], torch.Tensor] = {}
        self.group_weights()

    def weight_name(self, layer: int, projection: str) -> str:
        return f"model.layers.{layer}.{PROJECTIONS[projection]}.{projection}.weight"

    def group_weights(self) -> None:
        for layer in range(self.shape.layers):
            for group in GROUPS:
                self.grouped[layer, group] = torch.cat([self.tensors[self.weight_name(layer, name)] for name in group])

    def linear(self, layer: int, group: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.grouped[layer, group])
        if self.low_rank is None:
            return y
        a, b = self.low_rank(layer, group)
        return torch.addmm(y, F.linear(x, a), b.t())

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return RmsNorm.apply(x, self.tensors[name], self.shape.rms_eps)

    def rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.shape.head_dim // 2
        frequency = torch.exp(torch.arange(half) * (-math.log(self.shape.rope_theta) / half))
        angle = (positions[:, None].float() * frequency).repeat(1, 2)[:, None, :]
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, attend: Attend) -> torch.Tensor:
        """ids, positions [tokens] -> final normalised hidden states [tokens, hidden]."""
        shape, count = self.shape, len(ids)
        cosine, sine = self.rotation(positions)
        q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        x = self.tensors["model.embed_tokens.weight"][ids]
        for layer in range(shape.layers):
            name = f"model.layers.{layer}"
            qkv = self.linear(layer, GROUPS[0], self.norm(f"{name}.input_layernorm.weight", x))
            qk, v = (part.reshape(count, -1, shape.head_dim) for part in qkv.split((q_width + kv_width, kv_width), -1))
            qk = qk * cosine + swap_halves(qk) * sine
            mixed = attend(layer, qk[:, :shape.heads], qk[:, shape.heads:], v)
            x = x + self.linear(layer, GROUPS[1], mixed)
            gate_up = self.linear(layer, GROUPS[2], self.norm(f"{name}.post_attention_layernorm.weight", x))
            x = x + self.linear(layer, GROUPS[3], SwiGlu.apply(gate_up))
        return self.norm("model.norm.weight", x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.output).float()


class MaskedAttention(torch.autograd.Function):
    """Plain attention with a hand-written backward pass: on AMX several times faster than torch's fused CPU kernel.

    q [kv_heads, group * queries, d], k and v [kv_heads, keys, d]; `mask` [queries, m] is added to the scores of the
    last m keys, every query sees the keys before them.
    """

    @staticmethod
    def forward(ctx, q, k, v, mask):
        queries, masked = mask.shape
        scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
        scores.view(q.shape[0], -1, queries, k.shape[1])[..., k.shape[1] - masked:] += mask
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(q, k, v, weights)
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx, *gradients):
        q, k, v, weights = ctx.saved_tensors
        d_mixed = gradients[0].contiguous()
        d_weights = torch.bmm(d_mixed, v.transpose(1, 2))
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        scale = q.shape[-1] ** -0.5
        d_q = torch.bmm(d_scores, k) * scale
        d_k = torch.bmm(d_scores.transpose(1, 2), q * scale)
        return d_q, d_k, torch.bmm(weights.transpose(1, 2), d_mixed), None


def masked_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """q [queries, heads, d], k and v [keys, kv_heads, d] -> [queries, heads * d]; mask as in MaskedAttention."""
    queries, heads, width = q.shape
    kv_heads = k.shape[1]
    grouped = q.view(queries, kv_heads, -1, width).permute(1, 2, 0, 3).reshape(kv_heads, -1, width)
    mixed = MaskedAttention.apply(grouped, k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous(), mask)
    return mixed.view(kv_heads, -1, queries, width).permute(2, 0, 1, 3).reshape(queries, heads * width)


def causal_mask(count: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((count, count), -torch.inf, dtype=dtype).triu(1)


def causal_attention(_layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int = 256) -> torch.Tensor:
    """In blocks of queries, so that the upper triangle is hardly computed."""
    count = q.shape[0]
    mask = causal_mask(min(block, count), q.dtype)
    blocks = []
    for start in range(0, count, block):
        end = min(start + block, count)
        rows = end - start
        blocks.append(masked_attention(q[start:end], k[:end], v[:end], mask[:rows, :rows]))
    return torch.cat(blocks)
