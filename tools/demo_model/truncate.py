"""Cuts a LoRA adapter down to a lower rank: of each update B A the best approximation of that rank (truncated SVD).

    python tools/demo_model/truncate.py ADAPTER --rank 12 --out DIR

Prints the share of the updates' energy that is kept. lora_alpha falls with the rank, so that the scale stays.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from convert import bfloat16_bytes, write_safetensors


def read_bfloat16(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:header_end]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, expected BF16")
        begin, end = (header_end + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(content[begin:end], dtype="<u2").astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


def truncated(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A [rank, inputs], B [outputs, rank] and the share of the energy of B A that they keep."""
    q_a, r_a = np.linalg.qr(a.T.astype(np.float64))
    q_b, r_b = np.linalg.qr(b.astype(np.float64))
    u, s, v = np.linalg.svd(r_b @ r_a.T)
    root = np.sqrt(s[:rank])
    return (root[:, None] * (q_a @ v[:rank].T).T, (q_b @ u[:, :rank]) * root, float((s[:rank] ** 2).sum() / (s**2).sum()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = json.loads((arguments.adapter / "adapter_config.json").read_text())
    if not 0 < arguments.rank < config["r"]:
        print(f"truncate: --rank {arguments.rank}: expected 1 to {config['r'] - 1}, the adapter has {config['r']}", file=sys.stderr)
        return 1
    tensors = read_bfloat16(arguments.adapter / "adapter_model.safetensors")
    kept, shares = {}, []
    for name in sorted(tensors):
        if ".lora_A." not in name:
            continue
        of_b = name.replace(".lora_A.", ".lora_B.")
        a, b, share = truncated(tensors[name], tensors[of_b], arguments.rank)
        shares.append(share)
        for key, values in ((name, a), (of_b, b)):
            kept[key] = (list(values.shape), bfloat16_bytes(values.astype(np.float32)))
    alpha = config["lora_alpha"] * arguments.rank / config["r"]
    config["lora_alpha"] = int(alpha) if alpha.is_integer() else alpha
    config["r"] = arguments.rank
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_safetensors(arguments.out / "adapter_model.safetensors", kept)
    (arguments.out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{len(shares)} updates, rank {arguments.rank}: {100 * np.mean(shares):.1f} % of their energy on average, {100 * min(shares):.1f} % at least")
    return 0


if __name__ == "__main__":
    sys.exit(main())
