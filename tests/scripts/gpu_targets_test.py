"""scripts/gpu_targets.py: the committed results of a GPU, to the numbers that docs/results and kernels/README.md tell."""

import json
import pathlib
import shutil
import tempfile
import unittest

import gpu_targets

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs/results"
GPU = {"machine": {"gpu": "NVIDIA H200"}, "commit": "0123456789ab", "command": "scd bench --device cuda:0"}


def codec_rows(ms, inputs=10240):
    """Of four levels; the others are a hundred times as slow as the one in the middle."""
    for level in range(4):
        for op in ("pages to payloads", "payloads to pages"):
            total = 8 * ms / 2 * (1 if level == 2 else 100)
            components = 6000 * 8192
            yield {
                "codec": "rd",
                "level": level,
                "op": op,
                "prompt_tokens": 8192,
                "total_ms": total,
                "tflop_per_s": 2 * components * inputs / (total * 1e9),
                "bytes_per_token": 6000 * 2.5 / 8,
                "bits_per_component": 2.5,
            }


def pareto_rows(ttft_ms, oracle_ms=220.0, kv_bytes=131072, **other):
    place = {"regime": "handoff", "prompt_tokens": 8192, "bandwidth_gbps": 10.0} | other
    yield {"codec": "oracle", "level": 0, "ttft_ms": oracle_ms} | place
    for level in range(4):
        ms = ttft_ms if level == 2 else 1.0
        yield {
            "codec": "rd",
            "level": level,
            "ttft_ms": ms,
            "ttft_ratio_to_oracle": ms / oracle_ms,
            "bytes_per_token": kv_bytes / 64,
            "ratio_to_bf16": 64.0,
        } | place


class GpuTargets(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def take(self, **committed):
        for name, result in committed.items():
            shutil.copy(RESULTS / f"{result}.json", self.out / f"{name}.json")

    def write(self, name, rows, **other):
        (self.out / f"{name}.json").write_text(json.dumps(GPU | {"rows": list(rows)} | other))

    def lines(self):
        """The cells of each target."""
        table = gpu_targets.table(gpu_targets.targets(self.out))
        return [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[1:]]

    def codec_line(self, what):
        return self.line(f"kv_encode + kv_rebuild, {what}")

    def line(self, beginning):
        found = [line for line in self.lines() if line[0].startswith(beginning)]
        self.assertEqual(len(found), 1, beginning)
        return found[0]

    def test_an_empty_folder_measured_nothing(self):
        self.assertEqual({(line[1], line[3]) for line in self.lines()}, {("-", "not measured")})
        self.assertEqual(self.line("prefill")[4], "no engine.json")
        self.assertEqual(list(gpu_targets.origins(self.out)), [])

    def test_what_an_h200_measured(self):
        self.take(kernels="gpu_kernels_h200", engine="gpu_engine_8b_h200")
        self.assertEqual(self.line("prefill")[1:4], ["506.6 of 790.5 TFLOP/s", "64.1 % (>= 60 %)", "met"])
        self.assertEqual(
            self.line("attention")[1:], ["432.8 TFLOP/s", ">= 400 TFLOP/s", "met", "kernels.json, attention of 8192 tokens"]
        )
        self.assertEqual(self.line("decode, batch 1:")[1:4], ["2972 of 4076 GB/s", "72.9 % (>= 80 %)", "NOT MET"])
        self.assertEqual(self.line("decode, batch 64")[1:4], ["2697 of 4075 GB/s", "66.2 % (>= 60 %)", "met"])
        self.assertEqual(self.codec_line("200 components a layer: 1,024")[1:4], ["3.71 ms", "< 2 ms", "NOT MET"])
        self.assertEqual(self.codec_line("200 components a layer: of a prefill")[2], "13.1 % (< 3 %)")
        self.assertEqual(self.line("calibration")[3], "not measured")
        self.assertEqual(
            list(gpu_targets.origins(self.out)),
            ["kernels.json: NVIDIA H200, commit 7eda1c82834e", "engine.json: NVIDIA H200, commit 7eda1c82834e"],
        )

    def test_what_an_h100_measured(self):
        self.take(kernels="gpu_kernels", engine="gpu_engine_8b")
        self.assertEqual(self.line("prefill")[2:4], ["69.0 % (>= 60 %)", "met"])
        self.assertEqual(self.line("attention")[1], "438.0 TFLOP/s")
        self.assertEqual(self.line("decode, batch 1:")[2:4], ["90.7 % (>= 80 %)", "met"])
        self.assertEqual(self.line("decode, batch 64")[2:4], ["88.5 % (>= 60 %)", "met"])

    def test_figures_of_another_pair_or_of_the_cpu_are_none(self):
        self.take(codec="codec_speed", calibrate="gpu_calibrate_1b")
        self.take(**{f"pareto_{credit}": f"gpu_pareto_1b_credit_{credit}" for credit in (8, 32, 128)})
        self.assertEqual({line[3] for line in self.lines()}, {"not measured"})
        self.assertEqual(self.codec_line("middle level: 1,024")[4], "codec.json is not of a GPU")
        for credit in (8, 32, 128):
            self.assertEqual(self.line(f"hand-off, 10 Gbit/s, {credit} ")[4], f"pareto_{credit}.json is of another shape")

    def test_the_codec_counts_at_its_middle_level(self):
        self.take(engine="gpu_engine_8b_h200")
        for ms, verdict, share in ((0.8, "met", "2.8 % (< 3 %)"), (2.0, "NOT MET", "7.1 % (< 3 %)")):
            self.write("codec", codec_rows(ms))
            self.assertEqual(self.codec_line("middle level: 1,024")[1:4], [f"{ms:.2f} ms", "< 2 ms", verdict])
            self.assertEqual(self.codec_line("middle level: of a prefill")[2:4], [share, verdict])
        self.write("codec", codec_rows(0.8, inputs=5120))
        self.assertEqual(self.codec_line("middle level: 1,024")[4], "codec.json is of another shape")

    def test_times_of_two_gpus_are_not_compared(self):
        self.take(engine="gpu_engine_8b")
        self.write("codec", codec_rows(0.8))
        reason = "codec.json is of NVIDIA H200, engine.json of NVIDIA H100 80GB HBM3"
        self.assertEqual(self.codec_line("middle level: of a prefill")[3:], ["not measured", reason])

    def test_a_hand_off_counts_beside_the_consumers_own_prefill(self):
        for ms, verdict in ((44.0, "met"), (44.1, "NOT MET")):
            self.write("pareto_32", pareto_rows(ms))
            line = self.line("hand-off")
            self.assertEqual((line[1], line[3]), (f"{ms} of 220.0 ms", verdict))
            self.assertEqual(line[4], "pareto_32.json, handoff, rd@2 of oracle")
        for other in ({"regime": "prefill_in_path"}, {"prompt_tokens": 1024}, {"bandwidth_gbps": 25.0}, {"kv_bytes": 32768}):
            self.write("pareto_32", pareto_rows(1.0, **other))
            self.assertEqual(self.line("hand-off")[3], "not measured", other)

    def test_calibration_is_of_the_pair_and_of_all_tokens(self):
        row = {"codec": "rd", "level": 0, "tokens": 131072, "bytes_per_token": 126976 / 16, "ratio_to_bf16": 16.0}
        for seconds, verdict in ((599, "met"), (600, "NOT MET")):
            self.write("calibrate", [row | {"calibration_ms": 1e3 * seconds}])
            self.assertEqual(self.line("calibration")[1:4], [f"{seconds} s", "< 600 s", verdict])
        for other in ({"tokens": 65536}, {"ratio_to_bf16": 4.0}, {"calibration_ms": None}):
            self.write("calibrate", [row | {"calibration_ms": 1.0} | other])
            self.assertEqual(self.line("calibration")[3], "not measured", other)

    def test_files_that_are_no_reports_are_named(self):
        for text in ("", "[]", '{"rows": [1], "machine": {"gpu": "A"}, "commit": "a", "command": "--device cuda:0"}'):
            (self.out / "engine.json").write_text(text)
            self.assertEqual(self.line("prefill")[3:], ["not measured", "engine.json is no report of scd"])


if __name__ == "__main__":
    unittest.main()
