"""Every test that needs a GPU is run by `scripts/gpu_check BUNDLE OUT tests` and by `scripts/test --preset emulated`.

Usage: check_gpu_tests.py SOURCE_DIR. Exits 1 and names each test that no filter of one of them takes. A test needs a
GPU if it or its fixture says SCD_SKIP_WITHOUT_GPU; its program is the scd_test that has its source.
"""

import fnmatch
import pathlib
import re
import sys
from dataclasses import dataclass

MACRO = "SCD_SKIP_WITHOUT_GPU"
# Braces in them are none of the code's.
COMMENT, RAW = r"//[^\n]*|/\*.*?\*/", r'R"(\w*)\(.*?\)\1"'
STRING, CHARACTER = r'"(?:\\.|[^"\\\n])*"', r"(?<!\w)'(?:\\[^\n']+|[^'\\\n])'"
NOT_CODE = re.compile("|".join([COMMENT, RAW, STRING, CHARACTER]), re.DOTALL)
INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)
TEST = re.compile(r"^(?:TYPED_)?TEST(?:_F|_P)?\((\w+),\s*(\w+)\)\s*{", re.MULTILINE)
FIXTURE = re.compile(r"^(?:class|struct) (\w+)(?: final)?\s*:\s*([^{;]+){", re.MULTILINE)
INSTANCE = re.compile(r"^INSTANTIATE_(?:TYPED_)?TEST_SUITE_P\((\w*),\s*(\w+),", re.MULTILINE)
CHECK = re.compile(r'^  check \w+ "\$bin/(\w+)"(?: --gtest_filter=\'([^\']*)\')?', re.MULTILINE)
BASE = re.compile(r"(?:\w+::)*(\w+)(?:<[^{]*>)?\s*(?:,|$)")


@dataclass
class Block:
    """From its first line to its closing brace."""

    names: tuple
    begin: int
    end: int

    def holds(self, place):
        return self.begin <= place < self.end


class Source:
    def __init__(self, path):
        text = path.read_text(encoding="utf-8")
        self.includes = INCLUDE.findall(text)
        self.code = NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
        self.skips = [match.start() for match in re.finditer(rf"^(?!\s*#).*\b{MACRO}\b", self.code, re.MULTILINE)]
        self.tests = list(self.blocks(TEST))
        self.fixtures = list(self.blocks(FIXTURE))
        self.prefixes = INSTANCE.findall(self.code)

    def blocks(self, pattern):
        for match in pattern.finditer(self.code):
            depth, end = 1, match.end()
            while depth and end < len(self.code):
                depth += {"{": 1, "}": -1}.get(self.code[end], 0)
                end += 1
            yield Block(match.groups(), match.start(), end)

    def skips_in(self, block):
        return any(block.holds(place) for place in self.skips)


def with_headers(root, path, seen):
    """The source at the path and the test headers that it includes."""
    if path in seen or not path.is_file():
        return
    seen[path] = Source(path)
    for header in seen[path].includes:
        for candidate in (root / header, path.parent / header):
            if candidate.is_relative_to(root / "tests"):
                with_headers(root, candidate, seen)


def skipping_fixtures(sources):
    bases, skipping = {}, set()
    for source in sources:
        for fixture in source.fixtures:
            name, parents = fixture.names
            bases[name] = set(BASE.findall(parents.strip()))
            if source.skips_in(fixture):
                skipping.add(name)
    grew = True
    while grew:
        derived = {name for name, parents in bases.items() if parents & skipping} - skipping
        skipping |= derived
        grew = bool(derived)
    return skipping


def tests_that_skip(root, path):
    """As GoogleTest names them; what a parameter is called is not known here."""
    sources = {}
    with_headers(root, path, sources)
    skipping = skipping_fixtures(sources.values())
    for test in sources[path].tests:
        suite, name = test.names
        if suite not in skipping and not sources[path].skips_in(test):
            continue
        prefixes = [prefix for prefix, of in sources[path].prefixes if of == suite]
        yield from [f"{prefix}/{suite}.{name}/?" for prefix in prefixes] or [f"{suite}.{name}"]


def programs(root):
    """(name, its sources) of each scd_test."""
    for lists in sorted((root / "tests").rglob("CMakeLists.txt")):
        for call in re.findall(r"scd_test\(([^)]*)\)", lists.read_text(encoding="utf-8")):
            words = call.split()
            sources = [lists.parent / word for word in words if word.endswith(".cpp")]
            yield words[words.index("NAME") + 1], sources


def filters(root):
    """What section tests of gpu_check gives each program: (wanted, unwanted) patterns."""
    script = (root / "scripts/gpu_check").read_text(encoding="utf-8")
    section = re.search(r"^if wanted tests; then\n(.*?)^fi$", script, re.MULTILINE | re.DOTALL)
    for name, patterns in CHECK.findall(section[1] if section else ""):
        wanted, _, unwanted = (patterns or "*").partition("-")
        yield name, (wanted.split(":"), unwanted.split(":") if unwanted else [])


def emulated(root):
    """The programs that scripts/test builds for the emulated GPU, and which of their tests it runs."""
    script = (root / "scripts/test").read_text(encoding="utf-8")
    targets = re.search(r"^  emulated\)\n\s*targets=\(([^)]*)\)", script, re.MULTILINE)
    chosen = re.search(r"^gpu_tests='([^']*)'", script, re.MULTILINE)
    return (targets[1].split() if targets else [], re.compile(chosen[1] if chosen else "(?!)"))


def runs(test, wanted, unwanted):
    takes = lambda patterns: any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)
    return takes(wanted) and not takes(unwanted)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    known, built, faults, found = dict(filters(root)), set(), [], 0
    targets, chosen = emulated(root)
    for program, sources in programs(root):
        built.update(sources)
        for source in sources:
            for test in tests_that_skip(root, source):
                found += 1
                where = f"{source.relative_to(root)}: {program} {test}"
                if program not in known or not runs(test, *known[program]):
                    faults.append(f"{where}: no filter of scripts/gpu_check runs it")
                if program not in targets or not chosen.search(test):
                    faults.append(f"{where}: scripts/test --preset emulated does not run it")
    for path in sorted((root / "tests").rglob("*")):
        if path.suffix not in (".h", ".cpp"):
            continue
        source = Source(path)
        if source.skips and path.suffix == ".cpp" and path not in built:
            faults.append(f"{path.relative_to(root)}: says {MACRO} and is in no scd_test")
        for place in source.skips:
            if not any(block.holds(place) for block in source.tests + source.fixtures):
                line = source.code.count("\n", 0, place) + 1
                faults.append(f"{path.relative_to(root)}:{line}: {MACRO} neither in a test nor in a fixture")
    if not found:
        faults.append(f"no test below {root} says {MACRO}")
    print("\n".join(faults) or f"scripts/gpu_check and the emulated preset run all {found} tests that need a GPU")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
