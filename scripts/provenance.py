"""Where a measurement comes from: commit, command, GPU, driver and clocks. What cannot be read is None, with the reason."""

import os
import pathlib
import shlex
import subprocess
import sys

# Fields of nvidia-smi by the names that `scd bench` gives them (tools/scd/report.h).
FIELDS = {
    "gpu_driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "sm_clock_max_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "memory_clock_max_mhz": "clocks.max.mem",
}


def command_line():
    return shlex.join(["python3", *sys.argv])


def commit():
    """$SCD_COMMIT, or what git says of this checkout; None where neither is."""
    if os.environ.get("SCD_COMMIT"):
        return os.environ["SCD_COMMIT"]
    here = pathlib.Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return described.stdout.strip() or None


def parsed(line):
    """A line of nvidia-smi's CSV without units: numbers are clocks, anything like [N/A] is not known."""
    values = dict(zip(FIELDS, (value.strip() for value in line.split(",")), strict=True))
    driver = values.pop("gpu_driver")
    fields = {"gpu_driver": driver if driver[:1].isdigit() else None}
    fields |= {name: int(value) if value.isdigit() else None for name, value in values.items()}
    missing = [FIELDS[name] for name in values if fields[name] is None]
    return fields | ({"clocks_unknown": f"nvidia-smi has no {', '.join(missing)}"} if missing else {})


def gpu(gpu_id, program="nvidia-smi"):
    """FIELDS of the GPU with that UUID, index or place on the bus, now."""
    query = [program, f"--id={gpu_id}", f"--query-gpu={','.join(FIELDS.values())}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        return parsed(said.strip())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return dict.fromkeys(FIELDS) | {"clocks_unknown": f"{program}: {error}"}
