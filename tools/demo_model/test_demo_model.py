#!/usr/bin/env python3
"""Tests of the generator, the scores and fetch.py's failures; Python alone: no torch, no model, no network.

    python3 tools/demo_model/test_demo_model.py
"""

import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402
from facts import KINDS  # noqa: E402
from names import owner  # noqa: E402
from scoring import exact_match, f1  # noqa: E402


def rows(tasks=("qa",), split="heldout", contexts=6, questions=8, tokens=(900, 900), seed=3):
    return list(generate.generate(list(tasks), split, contexts, questions, tokens, seed))


class GeneratorTest(unittest.TestCase):
    def test_same_seed_gives_same_rows(self):
        self.assertEqual(rows(generate.TASKS), rows(generate.TASKS))

    def test_other_seed_gives_other_contexts(self):
        self.assertNotEqual(rows(seed=3)[0]["context"], rows(seed=4)[0]["context"])

    def test_more_contexts_keep_the_first_ones(self):
        self.assertEqual(rows(contexts=2), rows(contexts=3)[:len(rows(contexts=2))])

    def test_qa_answer_is_copied_from_the_context(self):
        for split in ("train", "heldout"):
            for row in rows(split=split, contexts=20):
                self.assertIn(row["answers"][0], row["context"], msg=row["question"])

    def test_record_is_one_line_of_json_with_copied_values(self):
        for row in rows(("records",), contexts=20):
            answer = row["answers"][0]
            self.assertNotIn("\n", answer)
            for key, value in json.loads(answer).items():
                self.assertIn(f'"{key}"', row["question"])
                self.assertIn(value, row["context"])

    def test_record_keys_keep_the_order_of_the_kind(self):
        orders = [list(attributes) for attributes, _ in KINDS.values()]
        for row in rows(("records",), contexts=20):
            keys = list(json.loads(row["answers"][0]))
            self.assertTrue(any(keys == [key for key in order if key in keys] for order in orders), msg=keys)

    def test_answers_lie_anywhere_in_the_context(self):
        places = [row["context"].index(row["answers"][0]) / len(row["context"]) for row in rows(contexts=40)]
        self.assertGreater(sum(place < 0.33 for place in places), 40)
        self.assertGreater(sum(place > 0.66 for place in places), 40)

    def test_contexts_hold_rivals_that_share_names(self):
        sharing = 0
        for index in range(20):
            world = generate.make_world("heldout", 900, random.Random(index))
            names = {entity.name for entity in world.entities}
            names |= {value for entity in world.entities for value in entity.stated.values() if value.istitle()}
            counts = Counter(word for name in names for word in set(name.split()) & world.source.names)
            sharing += max(counts.values()) > 1
        self.assertGreater(sharing, 17)

    def test_no_two_entities_of_a_context_have_one_name(self):
        for index in range(20):
            world = generate.make_world("train", 1500, random.Random(index))
            names = [entity.name for entity in world.entities]
            self.assertEqual(len(names), len(set(names)))

    def test_very_long_contexts_do_not_run_out_of_values(self):
        self.assertTrue(rows(contexts=3, questions=100, tokens=(8000, 8000)))

    def test_length_follows_the_argument(self):
        for tokens in (200, 500, 900, 2000):
            for row in rows(contexts=10, questions=1, tokens=(tokens, tokens)):
                estimate = generate.estimated_tokens(row["context"])
                self.assertLess(abs(estimate - tokens), 0.12 * tokens + 40)
                self.assertLess(abs(len(row["context"].split()) * 1.4 - tokens), 0.25 * tokens + 60)


class SplitTest(unittest.TestCase):
    def test_splits_share_no_name_and_no_value_pair(self):
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(generate.check_disjoint(40, seed=11), 0)

    def test_drawn_names_belong_to_their_split(self):
        for split in ("train", "heldout"):
            world = generate.make_world(split, 900, random.Random(5))
            self.assertEqual({owner(name) for name in world.source.names}, {split})


class CommandLineTest(unittest.TestCase):
    def run_script(self, *arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)

    def test_generate_refuses_a_bad_length(self):
        result = self.run_script(HERE / "generate.py", "--tokens", "20")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("100 <= MIN <= MAX <= 8000", result.stderr)

    def test_fetch_check_fails_for_an_empty_directory(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assertEqual(self.run_script(HERE / "fetch.py", "--out", directory, "--check").returncode, 1)


class ScoringTest(unittest.TestCase):
    def test_case_articles_and_marks_do_not_count(self):
        self.assertEqual(exact_match("The old grain-market.", ["old grainmarket"]), 1.0)

    def test_f1_counts_shared_words(self):
        self.assertAlmostEqual(f1("in the old market", ["old market hall"]), 2 * 2 / 6)

    def test_best_of_several_answers_counts(self):
        self.assertEqual(f1("Ada", ["Ada Elby", "Ada"]), 1.0)

    def test_empty_prediction_scores_nothing(self):
        self.assertEqual(f1("", ["Ada"]), 0.0)


if __name__ == "__main__":
    unittest.main()
