#!/usr/bin/env python3
"""Times of `scd bench kernels` beside PyTorch's of the same ops: op | ours | torch | ratio, below 1 where ours is sooner.

    python3 scripts/beside_torch.py KERNELS.json TORCH_KERNELS.json        what scripts/gpu_check writes
"""

import json
import sys


def times(report):
    return {row["op"]: row["total_ms"] * 1e3 for row in report["rows"]}


def joined(ours, torch):
    """(op, us, us, ratio) of PyTorch's rows; what it calls "op, KERNEL" is our op. None where we have no such row."""
    own = times(ours)
    for op, theirs in times(torch).items():
        mine = own.get(op, own.get(op.rpartition(", ")[0]))
        yield op, mine, theirs, None if mine is None else mine / theirs


def table(rows):
    cell = lambda value, digits: "-" if value is None else f"{value:.{digits}f}"
    lines = [("op", "ours us", "torch us", "ours / torch")]
    lines += [(op, cell(mine, 1), cell(theirs, 1), cell(ratio, 2)) for op, mine, theirs, ratio in rows]
    width = max(len(op) for op, *_ in lines)
    return "\n".join(f"{op:{width}s} | {mine:>9s} | {theirs:>9s} | {ratio:>12s}" for op, mine, theirs, ratio in lines)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    reports = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            reports.append(json.load(file))
    print(table(joined(*reports)))


if __name__ == "__main__":
    main()
