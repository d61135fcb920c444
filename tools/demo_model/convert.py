"""GGUF of a tied-embedding Llama model -> Hugging Face directory in BF16 (used by fetch.py).

Weights are dequantised to FP32 and rounded once to BF16 (nearest, ties to even). GGUF stores the rows of q and k
permuted (rotary pairs side by side); they go back to Hugging Face's order (first half, second half). The output is
tied, so only model.embed_tokens.weight is stored. Bytes written do not depend on the machine.
"""

import json
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
EOS_IDS = [0, 2]
CONTROL_TOKEN = 3


def hugging_face_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, tensor, suffix = name.split(".")
    return f"model.layers.{layer}.{LAYER_TENSORS[tensor]}.{suffix}"


def half_split_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """[heads * (pair, 2), in] -> [heads * (2, pair), in]."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def bfloat16_bytes(values: np.ndarray) -> bytes:
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").tobytes()


def write_safetensors(path: Path, tensors: dict[str, tuple[list[int], bytes]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, payload) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(payload)]}
        offset += len(payload)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, payload in tensors.values():
            file.write(payload)


def convert_weights(reader: gguf.GGUFReader, heads: int, kv_heads: int) -> dict[str, tuple[list[int], bytes]]:
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            values = half_split_rows(values, heads)
        elif ".attn_k." in tensor.name:
            values = half_split_rows(values, kv_heads)
        tensors[hugging_face_name(tensor.name)] = (list(values.shape), bfloat16_bytes(values))
    return dict(sorted(tensors.items()))


def model_config(field: Callable[[str], Any]) -> dict[str, Any]:
    heads = field("llama.attention.head_count")
    hidden = field("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": float(np.format_float_positional(np.float32(field("llama.attention.layer_norm_rms_epsilon")))),
        "rope_scaling": None,
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": field("llama.vocab_size"),
    }


def tokenizer_json(field: Callable[[str], Any]) -> dict[str, Any]:
    tokens = field("tokenizer.ggml.tokens")
    kinds = field("tokenizer.ggml.token_type")
    added = [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True}
             for index, (token, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL_TOKEN]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: index for index, token in enumerate(tokens)},
                  "merges": field("tokenizer.ggml.merges")},
    }


def tokenizer_config(field: Callable[[str], Any]) -> dict[str, Any]:
    tokens = field("tokenizer.ggml.tokens")
    return {
        "add_prefix_space": False,
        "bos_token": tokens[field("tokenizer.ggml.bos_token_id")],
        "chat_template": field("tokenizer.chat_template"),
        "eos_token": tokens[field("tokenizer.ggml.eos_token_id")],
        "model_max_length": field("llama.context_length"),
        "pad_token": tokens[field("tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": tokens[field("tokenizer.ggml.unknown_token_id")],
    }


def convert(gguf_file: Path, out: Path, say: Callable[[str], None]) -> None:
    """Writes the Hugging Face directory `out` (which exists and is empty)."""
    reader = gguf.GGUFReader(gguf_file)

    def field(key: str) -> Any:
        return reader.fields[key].contents()

    say(f"converting {len(reader.tensors)} tensors to BF16")
    config = model_config(field)
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": EOS_IDS, "pad_token_id": config["pad_token_id"]}
    documents = {"config.json": (config, 2), "generation_config.json": (generation, 2),
                 "tokenizer.json": (tokenizer_json(field), 1), "tokenizer_config.json": (tokenizer_config(field), 2)}
    for name, (document, indent) in documents.items():
        (out / name).write_text(json.dumps(document, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    weights = convert_weights(reader, config["num_attention_heads"], config["num_key_value_heads"])
    write_safetensors(out / "model.safetensors", weights)
