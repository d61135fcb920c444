"""Checks that includes follow the layering of docs/life_of_a_request.md: who may include whom.

Usage: check_layers.py SOURCE_DIR. Exits 1 and names each offending line.
"""

import pathlib
import re
import sys

# A folder may include itself, and what stands here. The longest matching prefix of a file's folder counts.
ALLOWED = {
    "kernels": [],
    "common/base": [],
    "common/config": ["common/base", "common/log", "common/metrics", "common/transport", "common/rpc"],  # their options.h
    "common/log": ["common/base"],
    "common/metrics": ["common/base"],
    "common/threads": ["common/base"],
    "common/device": ["common/base", "common/log", "kernels"],
    "common/kv": ["common/base", "kernels"],
    "common/transport": ["common/base", "common/log", "common/threads"],
    "common/codec": ["common/base", "common/kv", "kernels"],
    "common/model": ["common/base", "common/kv", "kernels"],
    "common/rebuild": ["common/base", "common/codec", "common/kv", "common/model", "kernels"],
    "common/tokenizer": ["common/base"],
    "common/schedule": [],
    "common/rpc": ["common/base", "common/log", "proto"],
    "prefill_server": ["common", "kernels", "proto"],
    "decode_server": ["common", "kernels", "proto"],
    "tools": ["common", "kernels", "proto"],
    "tests": ["common", "kernels", "proto", "prefill_server", "decode_server", "tools"],
}
# Stage folders of a server: siblings never include each other.
STAGES = {
    "prefill_server": {"request", "prefill", "encode", "ship"},
    "decode_server": {"request", "receive", "rebuild", "generate"},
}
# Third-party headers and the only places that may name them.
FOREIGN = {
    "ucp/": ["common/transport/ucx"],
    "uct/": ["common/transport/ucx"],
    "ucs/": ["common/transport/ucx"],
    "yaml-cpp/": ["common/config"],
    "spdlog/": ["common/log"],
    "prometheus/": ["common/metrics"],
    "CLI/": ["tools", "prefill_server", "decode_server", "common/config"],
    "pcre2.h": ["common/tokenizer"],
    "oneapi/": ["kernels"],
    "cuda": ["kernels"],
    "cublas": ["kernels"],
    "dnnl": ["kernels"],
}
# Everybody else knows a GPU only, but for what reports say of the machine. What it is called in a configuration and on a
# command line, "cuda:0", is a name like another.
CUDA = re.compile("cuda(?!:[0-9N])", re.IGNORECASE)
CUDA_HOMES = ["kernels", "common/device", "tests"]
CUDA_NAMES = ["tools/scd/report.cpp", "tools/scd/report.h"]
# Generated protocol headers stay at the edges of the servers.
GENERATED = re.compile(r"(scd/v1|grpc/health/v1)/.*\.pb\.h$")
GENERATED_HOMES = [
    "common/rpc",
    "prefill_server/request",
    "prefill_server/ship",
    "decode_server/request",
    "decode_server/receive",
]
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def rule_of(folder):
    matches = [prefix for prefix in ALLOWED if folder == prefix or folder.startswith(prefix + "/")]
    return max(matches, key=len) if matches else None


def within(path, prefixes):
    return any(path == p or path.startswith(p + "/") for p in prefixes)


def stage_of(parts):
    return parts[1] if len(parts) > 2 and parts[1] in STAGES.get(parts[0], ()) else None


def faults_of(root, file):
    relative = file.relative_to(root)
    folder = relative.parent.as_posix()
    rule = rule_of(folder)
    if rule is None:
        return
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{relative}:{number}"
        if CUDA.search(line) and not within(folder, CUDA_HOMES) and relative.as_posix() not in CUDA_NAMES:
            yield f"{where}: what knows CUDA belongs in {' or '.join(CUDA_HOMES[:2])} only"
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, header = match.groups()
        for foreign, homes in FOREIGN.items():
            if bracket == "<" and header.startswith(foreign) and not within(folder, homes) and rule != "tests":
                yield f"{where}: <{header}> belongs in {' or '.join(homes)} only"
        if bracket != '"':
            continue
        if GENERATED.match(header):
            if rule not in ("tools", "tests") and not within(folder, GENERATED_HOMES):
                yield f"{where}: {header} belongs in {', '.join(GENERATED_HOMES)} only"
            continue
        if rule == "tests" and "/" not in header:
            continue  # a test's own support beside it
        target = pathlib.PurePosixPath(header)
        if not within(target.parent.as_posix(), [rule] + ALLOWED[rule]):
            yield f"{where}: {rule} may not include {header}"
        own, other = stage_of(relative.parts), stage_of(target.parts)
        if own and other and relative.parts[0] == target.parts[0] and own != other:
            yield f"{where}: stage {own} includes its sibling {header}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    folders = sorted({prefix.split("/")[0] for prefix in ALLOWED})
    files = [f for top in folders for f in sorted((root / top).rglob("*")) if f.suffix in SUFFIXES]
    if not files:
        sys.exit(f"no sources below {root}")
    faults = [fault for file in files for fault in faults_of(root, file)]
    print("\n".join(faults) or f"{len(files)} files keep the layers")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
