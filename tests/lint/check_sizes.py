"""No source file grows past 500 lines: split it by what its parts do. Usage: check_sizes.py SOURCE_DIR."""

import pathlib
import sys

LIMIT = 500
FOLDERS = ("kernels", "common", "prefill_server", "decode_server", "tools", "tests", "scripts")
SUFFIXES = {".h", ".cpp", ".cu", ".py", ".proto"}

root = pathlib.Path(sys.argv[1])
long_files = []
for folder in FOLDERS:
    for file in sorted((root / folder).rglob("*")):
        if file.suffix in SUFFIXES:
            lines = len(file.read_text(encoding="utf-8").splitlines())
            if lines > LIMIT:
                long_files.append(f"{file.relative_to(root)}: {lines} lines, at most {LIMIT}")
print("\n".join(long_files) or "every file fits")
sys.exit(bool(long_files))
