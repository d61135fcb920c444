"""A LoRA adapter over every projection of a Llama model, stored in PEFT's format."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llama import GROUPS, PROJECTIONS, Llama


class Adapter:
    """A and B of every projection in FP32; B starts at zero, A as PEFT initialises it (Kaiming uniform)."""

    def __init__(self, model: Llama, rank: int, alpha: int, seed: int):
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        self.model = model
        generator = torch.Generator().manual_seed(seed)
        self.parameters: dict[str, torch.Tensor] = {}
        for layer in range(model.shape.layers):
            for projection in PROJECTIONS:
                outputs, inputs = model.tensors[model.weight_name(layer, projection)].shape
                bound = 1 / math.sqrt(inputs)
                a = torch.rand(rank, inputs, generator=generator) * (2 * bound) - bound
                self.parameters[self.key(layer, projection, "A")] = a
                self.parameters[self.key(layer, projection, "B")] = torch.zeros(outputs, rank)
        self.cast: dict = {}

    @staticmethod
    def key(layer: int, projection: str, side: str) -> str:
        return f"base_model.model.model.layers.{layer}.{PROJECTIONS[projection]}.{projection}.lora_{side}.weight"

    def require_gradients(self) -> list[torch.Tensor]:
        return [tensor.requires_grad_() for tensor in self.parameters.values()]

    def begin_step(self) -> None:
        """Casts and groups the factors once a step: A stacked, B block-diagonal."""
        dtype = self.model.dtype
        for layer in range(self.model.shape.layers):
            for group in GROUPS:
                a = torch.cat([self.parameters[self.key(layer, name, "A")] for name in group])
                b = torch.block_diag(*[self.parameters[self.key(layer, name, "B")] for name in group])
                self.cast[layer, group] = (a.to(dtype), (b * self.scale).to(dtype))

    def low_rank(self, layer: int, group: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cast[layer, group]

    def load(self, directory: Path) -> None:
        """Takes over a stored adapter of the same rank and alpha."""
        config = json.loads((directory / "adapter_config.json").read_text())
        if (config["r"], config["lora_alpha"]) != (self.rank, self.alpha):
            raise ValueError(f"{directory}: r {config['r']} and lora_alpha {config['lora_alpha']}, "
                             f"expected {self.rank} and {self.alpha}")
        stored = load_file(directory / "adapter_model.safetensors")
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(stored[name])

    def save(self, directory: Path) -> None:
        """BF16 weights and adapter_config.json, each renamed into place."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().to(torch.bfloat16) for name, tensor in self.parameters.items()}
        partial = directory / "adapter_model.safetensors.partial"
        save_file(weights, partial, metadata={"format": "pt"})
        partial.chmod(0o644)
        os.replace(partial, directory / "adapter_model.safetensors")
        partial = directory / "adapter_config.json.partial"
        partial.write_text(json.dumps(peft_config(self.rank, self.alpha), indent=2) + "\n")
        os.replace(partial, directory / "adapter_config.json")


def peft_config(rank: int, alpha: int) -> dict:
    return {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "SmolLM2-135M-Instruct", "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layers_pattern": None,
        "layers_to_transform": None, "lora_alpha": alpha, "lora_bias": False, "lora_dropout": 0.0,
        "modules_to_save": None, "peft_type": "LORA", "r": rank, "rank_pattern": {}, "revision": None,
        "target_modules": list(PROJECTIONS), "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False,
    }


def merge(model: Llama, directory: Path) -> None:
    """Adds a stored adapter to the model's weights: in FP32, rounded once to BF16, then to the model's type."""
    config = json.loads((directory / "adapter_config.json").read_text())
    if config["peft_type"] != "LORA" or config["rank_pattern"] or config["alpha_pattern"] or config["use_dora"]:
        raise ValueError(f"{directory}: only plain LoRA adapters without patterns are supported here")
    scale = config["lora_alpha"] / config["r"]
    factors = load_file(directory / "adapter_model.safetensors")
    for layer in range(model.shape.layers):
        for projection in PROJECTIONS:
            name = model.weight_name(layer, projection)
            a, b = (factors[Adapter.key(layer, projection, side)].float() for side in "AB")
            merged = model.tensors[name].float() + scale * (b @ a)
            model.tensors[name] = merged.to(torch.bfloat16).to(model.dtype)
    model.group_weights()
