#!/usr/bin/env python3
"""The project's targets on a GPU beside what scripts/gpu_check measured of a model, and a pair, in the shape of
Llama-3.1-8B: target | measured | share or limit | verdict | from which file and row.

    python3 scripts/gpu_targets.py OUT_FOLDER

What no file there has, or has of another shape, length or link, or from the CPU, is not measured.
"""

import json
import pathlib
import re
import sys
from dataclasses import dataclass

TOKENS, CONTEXT = 8192, 2048
SHAPE = "llama-3.1-8b"
# Of that shape: work of a token's linear layers, weights that a decode step reads, keys and values of a token in BF16.
GFLOP, WEIGHT_GB, KV_BYTES = 13.96, 15.01, 131072
# Messages that may be under way; the first is the server's default.
CREDITS = (32, 8, 128)


class NotMeasured(Exception):
    """Why."""


@dataclass
class Found:
    measured: str
    share: str
    met: bool
    source: str


def near(value, expected):
    return abs(value - expected) < 0.05 * expected


def percent(share):
    return f"{100 * share:.1f} %"


class Report:
    """What a command of scd wrote with --json on a GPU."""

    def __init__(self, folder, name):
        self.name = name
        try:
            report = json.loads((folder / name).read_text(encoding="utf-8"))
            self.rows, self.gpu, self.commit = report["rows"], report["machine"].get("gpu"), report["commit"]
            command = report["command"]
            if not all(isinstance(row, dict) for row in self.rows):
                raise ValueError("rows that are none")
        except OSError as error:
            raise NotMeasured(f"no {name}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotMeasured(f"{name} is no report of scd") from error
        if self.gpu is None or not re.search(r"\bdevice[ =]cuda:", command):
            raise NotMeasured(f"{name} is not of a GPU")

    def matching(self, **wanted):
        rows = [row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())]
        if not rows:
            raise NotMeasured(f"{self.name} has no row of {', '.join(map(str, wanted.values()))}")
        return rows

    def row(self, *keys, **wanted):
        """The last one, in which the keys are numbers."""
        row = self.matching(**wanted)[-1]
        missing = [key for key in keys if not isinstance(row.get(key), (int, float))]
        if missing:
            raise NotMeasured(f"{self.name}: {missing[0]} is not in its row of {', '.join(map(str, wanted.values()))}")
        return row

    def check(self, fits):
        if not fits:
            raise NotMeasured(f"{self.name} is of another shape")


def middle_level(rows):
    levels = sorted({row.get("level", 0) for row in rows})
    return levels[len(levels) // 2]


def prefill_row(folder):
    report = Report(folder, "engine.json")
    keys = ("total_ms", "tokens_per_s", "tflop_per_s", "gemm_tflop_per_s", "gemm_share")
    row = report.row(*keys, phase="prefill", tokens=TOKENS)
    report.check(near(1e3 * row["tflop_per_s"] / row["tokens_per_s"], GFLOP))
    return report, row


def prefill(folder):
    _, row = prefill_row(folder)
    return Found(
        f"{row['tflop_per_s']:.1f} of {row['gemm_tflop_per_s']:.1f} TFLOP/s",
        f"{percent(row['gemm_share'])} (>= 60 %)",
        row["gemm_share"] >= 0.6,
        f"engine.json, prefill of {TOKENS}: linear layers over the whole pass",
    )


def attention(folder):
    report = Report(folder, "kernels.json")
    op = f"attention of {TOKENS} tokens"
    rate = report.row("tflop_per_s", op=op, shape=SHAPE)["tflop_per_s"]
    return Found(f"{rate:.1f} TFLOP/s", ">= 400 TFLOP/s", rate >= 400, f"kernels.json, {op}")


def decode(batch, least):
    def found(folder):
        report = Report(folder, "engine.json")
        keys = ("total_ms", "read_gbyte_per_s", "memory_gbyte_per_s", "read_share")
        row = report.row(*keys, phase="decode", tokens=CONTEXT, batch=batch)
        read = row["read_gbyte_per_s"] * row["total_ms"] * 1e-3
        report.check(near(read - batch * CONTEXT * KV_BYTES * 1e-9, WEIGHT_GB))
        return Found(
            f"{row['read_gbyte_per_s']:.0f} of {row['memory_gbyte_per_s']:.0f} GB/s",
            f"{percent(row['read_share'])} (>= {100 * least:.0f} %)",
            row["read_share"] >= least,
            f"engine.json, decode, batch {batch}, context {CONTEXT}",
        )

    return found


def artifact_codec(folder):
    """(report, ms of 1,024 tokens, rows) of the middle level of the artifact that gpu_check makes."""
    report = Report(folder, "codec.json")
    level = middle_level(report.matching(codec="rd", prompt_tokens=TOKENS))
    ms = 0
    for op in ("pages to payloads", "payloads to pages"):
        keys = ("total_ms", "tflop_per_s", "bytes_per_token", "bits_per_component")
        row = report.row(*keys, op=op, level=level, prompt_tokens=TOKENS)
        ms += row["total_ms"] * 1024 / TOKENS
        if op == "pages to payloads":
            # What a component is summed over: keys and values of three layers, of one in the last unit, and the anchor.
            components = 8 * row["bytes_per_token"] * TOKENS / row["bits_per_component"]
            report.check(near(row["tflop_per_s"] * row["total_ms"] * 1e9 / (2 * components), 3 * 2048 + 4096))
    return report, ms, f"codec.json, level {level}, pages to payloads + payloads to pages"


def made_up_codec(folder):
    """The same of the maps that bench kernels makes up, of 200 components a layer."""
    report = Report(folder, "kernels.json")
    tokens = f"1,024 of {TOKENS} tokens"
    ops = (f"rd: pages to payloads, {tokens} in batches of {TOKENS}", f"rd: payloads to pages, {tokens}")
    ms = sum(report.row("total_ms", op=op, shape=SHAPE)["total_ms"] for op in ops)
    return report, ms, f"kernels.json, rd: pages to payloads in batches of {TOKENS} + payloads to pages"


def codec(measure):
    def found(folder):
        _, ms, source = measure(folder)
        return Found(f"{ms:.2f} ms", "< 2 ms", ms < 2, source)

    return found


def codec_share(measure):
    def found(folder):
        report, ms, source = measure(folder)
        engine, row = prefill_row(folder)
        if report.gpu != engine.gpu:
            raise NotMeasured(f"{report.name} is of {report.gpu}, engine.json of {engine.gpu}")
        whole = ms * TOKENS / 1024
        share = whole / row["total_ms"]
        measured = f"{whole:.1f} of {row['total_ms']:.1f} ms"
        return Found(measured, f"{percent(share)} (< 3 %)", share < 0.03, f"{source}; engine.json, prefill of {TOKENS}")

    return found


def hand_off(credit):
    def found(folder):
        report = Report(folder, f"pareto_{credit}.json")
        place = {"regime": "handoff", "prompt_tokens": TOKENS, "bandwidth_gbps": 10}
        level = middle_level(report.matching(codec="rd", **place))
        keys = ("ttft_ms", "ttft_ratio_to_oracle", "bytes_per_token", "ratio_to_bf16")
        row = report.row(*keys, codec="rd", level=level, **place)
        report.check(near(row["bytes_per_token"] * row["ratio_to_bf16"], KV_BYTES))
        oracle = report.row("ttft_ms", codec="oracle", **place)
        ratio = row["ttft_ratio_to_oracle"]
        measured = f"{row['ttft_ms']:.1f} of {oracle['ttft_ms']:.1f} ms"
        return Found(measured, f"{ratio:.2f} (<= 0.20)", ratio <= 0.2, f"{report.name}, handoff, rd@{level} of oracle")

    return found


def calibration(folder):
    report = Report(folder, "calibrate.json")
    row = report.row("calibration_ms", "bytes_per_token", "ratio_to_bf16", codec="rd", tokens=131072)
    report.check(near(row["bytes_per_token"] * row["ratio_to_bf16"], KV_BYTES * 31 / 32))  # layer 0 is computed
    seconds = row["calibration_ms"] / 1e3
    return Found(f"{seconds:.0f} s", "< 600 s", seconds < 600, "calibrate.json, 131072 tokens")


def targets(folder):
    """(target, Found or why it was not measured) of each."""
    wanted = [
        ("prefill, 8,192 tokens: of a BF16 GEMM's rate", prefill),
        ("attention, 8,192 tokens, heads of 128", attention),
        ("decode, batch 1: of a copy's rate", decode(1, 0.8)),
        ("decode, batch 64, 2,048 tokens each: of a copy's rate", decode(64, 0.6)),
    ]
    for what, measure in (("middle level", artifact_codec), ("200 components a layer", made_up_codec)):
        wanted.append((f"kv_encode + kv_rebuild, {what}: 1,024 tokens", codec(measure)))
        wanted.append((f"kv_encode + kv_rebuild, {what}: of a prefill", codec_share(measure)))
    for credit in CREDITS:
        if credit == CREDITS[0] or (folder / f"pareto_{credit}.json").exists():
            target = f"hand-off, 10 Gbit/s, {credit} messages: first token, of the consumer's own"
            wanted.append((target, hand_off(credit)))
    wanted.append(("calibration of the pair, 131,072 tokens", calibration))
    for target, measure in wanted:
        try:
            yield target, measure(folder)
        except NotMeasured as reason:
            yield target, str(reason)


def cells(target, found):
    if isinstance(found, str):
        return target, "-", "-", "not measured", found
    return target, found.measured, found.share, "met" if found.met else "NOT MET", found.source


def table(found):
    lines = [("target", "measured", "share or limit", "verdict", "from")] + [cells(*each) for each in found]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(" | ".join(f"{cell:{width}s}" for cell, width in zip(line, widths)).rstrip() for line in lines)


def origins(folder):
    for name in ("kernels", "engine", "codec", *(f"pareto_{credit}" for credit in CREDITS), "calibrate"):
        try:
            report = Report(folder, f"{name}.json")
            yield f"{report.name}: {report.gpu}, commit {report.commit}"
        except NotMeasured:
            pass


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    print(table(targets(folder)))
    for line in origins(folder):
        print(line)


if __name__ == "__main__":
    main()
