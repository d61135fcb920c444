"""scripts/beside_torch.py joins rows of two reports by what they measured."""

import pathlib
import unittest

import beside_torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def report(**times):
    return {"rows": [{"op": op.replace("_", " "), "total_ms": ms} for op, ms in times.items()]}


class BesideTorch(unittest.TestCase):
    def test_rows_are_joined_by_op_and_by_op_and_kernel(self):
        ours = report(linear_qkv=0.5, attention=1.2, rope=0.1)
        torch = {"rows": [{"op": "attention, CUDNN", "total_ms": 0.8}, {"op": "linear qkv", "total_ms": 0.25}]}
        rows = list(beside_torch.joined(ours, torch))
        self.assertEqual([row[0] for row in rows], ["attention, CUDNN", "linear qkv"])
        self.assertAlmostEqual(rows[0][3], 1.5)
        self.assertAlmostEqual(rows[1][3], 2.0)

    def test_what_only_torch_measured_has_no_ratio(self):
        text = beside_torch.table(beside_torch.joined(report(), report(some_op=7)))
        self.assertEqual([cell.strip() for cell in text.splitlines()[1].split("|")], ["some op", "-", "7000.0", "-"])

    def test_both_sides_call_the_same_by_the_same_name(self):
        ours = (ROOT / "tools/scd/bench_kernels.cpp").read_text(encoding="utf-8")
        torch = (ROOT / "scripts/torch_kernels.py").read_text(encoding="utf-8")
        for name in (
            "attention of ",
            "attention, decoding, batch ",
            "decoder layer, prefill of ",
            "decoder layer, decoding batch ",
            "linear ",
        ):
            self.assertIn(f'"{name}', ours)
            self.assertIn(f'f"{name}{{', torch)


if __name__ == "__main__":
    unittest.main()
