"""Turns a CUDA source into C++ that tests/cuda_on_cpu runs on the CPU. Usage: translate.py SOURCE TARGET.

What C++ has no word for is replaced where it stands, so that lines keep their numbers: launches, __shared__ variables
and parameters in constant memory. Everything else is left to the headers beside this file.
"""

import pathlib
import re
import sys

SHARED = re.compile(r"(?<!extern )__shared__\s+((?:unsigned )?[\w:]+)\s+([^;=]+);")
DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w:]+(?: char)?)\s+(\w+)\[\];")
CONSTANT = re.compile(r"__grid_constant__ const (\w+) ")
NAMESPACE = "::scd::cuda_on_cpu::"


def shared_variables(match):
    kind, declarators = match.groups()
    made = []
    for declarator in declarators.split(","):
        name, extents = re.fullmatch(r"\s*(\w+)((?:\[.*\])?)\s*", declarator).groups()
        made.append(f"static {NAMESPACE}Shared<{kind}{extents}> {name}_of_blocks; auto& {name} = {name}_of_blocks.of_block();")
    return " ".join(made)


def kernel_before(text, end):
    """Where the kernel's name begins that ends at `end`, template arguments included."""
    begin = end
    if text[begin - 1] == ">":
        depth = 0
        while True:
            begin -= 1
            depth += {">": 1, "<": -1}.get(text[begin], 0)
            if depth == 0:
                break
    return re.search(r"[\w:]+$", text[:begin]).start()


def launches(text):
    while (opening := text.find("<<<")) >= 0:
        begin = kernel_before(text, opening)
        kernel = text[begin:opening]
        closing = text.index(">>>", opening)
        arguments = re.compile(r">>>\s*\(\s*").match(text, closing).end()
        comma = "" if text[arguments] == ")" else ", "
        call = (f'{NAMESPACE}launch({NAMESPACE}Launch("{kernel}", {text[opening + 3:closing]}), '
                f"[](const auto&... given) {{ {kernel}(given...); }}{comma}")
        lost = text.count("\n", closing, arguments)
        text = text[:begin] + call + "\n" * lost + text[arguments:]
    return text


def translated(text):
    text = DYNAMIC.sub(rf"\1* const \2 = reinterpret_cast<\1*>({NAMESPACE}dynamic_shared_memory());", text)
    text = SHARED.sub(shared_variables, text)
    text = CONSTANT.sub(r"const \1& ", text)
    return launches(text)


def main():
    source, target = (pathlib.Path(argument) for argument in sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(f'#line 1 "{source}"\n' + translated(source.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
