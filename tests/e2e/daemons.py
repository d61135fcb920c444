"""Starts the real binaries for the end-to-end tests: port 0, files in a temporary folder, SIGTERM at the end."""

import array
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("SCD_BIN", SOURCE / "build/release/bin"))
START_SECONDS = 120
STOP_SECONDS = 60


def run(*arguments, check=True, timeout=300, **options):
    """Runs one of our binaries to its end; its output is in the failure's message."""
    command = [str(BINARIES / arguments[0]), *map(str, arguments[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class Daemon:
    """One server process. `address` is host:port of its gRPC service."""

    def __init__(self, name, folder, settings, environment=None, wait=True):
        self.name = name
        self.log_file = pathlib.Path(folder) / f"{name}-{time.monotonic_ns()}.log"
        self.port_file = self.log_file.with_suffix(".port")
        config = SOURCE / "configs/one_box" / f"{name.split('_')[0]}.yaml"
        command = [str(BINARIES / name), "--config", str(config), "--port-file", str(self.port_file)]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        variables = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})}
        self.log_handle = open(self.log_file, "w", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=self.log_handle, stderr=subprocess.STDOUT, env=variables)
        if wait:
            self.wait_until_listening()

    def wait_until_listening(self):
        deadline = time.monotonic() + START_SECONDS
        while not (self.port_file.exists() and self.port_file.read_text().strip()):
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"{self.name} does not listen after {START_SECONDS} s:\n{self.log()}")
            time.sleep(0.05)

    @property
    def address(self):
        return f"127.0.0.1:{self.port_file.read_text().strip()}"

    def log(self):
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_for_log(self, event):
        deadline = time.monotonic() + START_SECONDS
        while event not in self.log():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} logged no {event}:\n{self.log()}")
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self.log_handle.close()

    def stop(self):
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_SECONDS)
        self.log_handle.close()
        return status


def common_settings(transports="tcp"):
    return {
        "grpc.listen": "127.0.0.1:0",
        "transport.listen_host": "127.0.0.1",
        "transport.port_first": 0,
        "transport.port_last": 0,
        "transport.transports": transports,
        "model.precision": "bf16",  # on every CPU: then raw codes are exact
    }


def free_port():
    """A port that was free a moment ago, for a daemon that has to come back on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scrape(daemon):
    """What a daemon with metrics.listen set exposes: {'name{labels}': value}."""
    daemon.wait_for_log(" metrics address=")
    address = re.search(r" metrics address=(\S+)", daemon.log()).group(1)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


class Pair:
    """A prefill server and a decode server, as a context manager."""

    def __init__(self, model, *, consumer=None, adapter=None, transports="tcp", prefill=None, decode=None):
        self.folder = tempfile.TemporaryDirectory(prefix="scd-e2e-")
        common = common_settings(transports)
        # Shared memory is off by default in UCX 1.13 when peers may fail; the servers ask for it themselves.
        prefill_settings = {**common, "link.bandwidth_gbps": 0, "model.directory": model, **(prefill or {})}
        self.prefill = Daemon("prefill_server", self.folder.name, prefill_settings)
        decode_settings = {
            **common,
            "model.directory": consumer or model,
            "model.adapter": adapter or "",
            "prefill.endpoints": f"[{self.prefill.address}]",
            "codec.mode": "raw",
            "codec.artifact": "",
            **(decode or {}),
        }
        try:
            self.decode = Daemon("decode_server", self.folder.name, decode_settings)
        except BaseException:
            self.prefill.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for daemon in (self.decode, self.prefill):
            daemon.kill()
        self.folder.cleanup()

    def complete(self, prompt=None, *options, check=True, **more):
        """`scd complete --json`: the parsed object, or the finished process when check is off."""
        arguments = ["complete", "--json", "--server", self.decode.address, *options]
        done = run("scd", *arguments, check=check, input=prompt, **more)
        return json.loads(done.stdout) if check else done

    def streaming(self, prompt, *options):
        """`scd complete` as a running process with pipes: the answer on stdout, the account on stderr."""
        command = [str(BINARIES / "scd"), "complete", "--server", self.decode.address, *options, prompt]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Cluster:
    """Several prefill and several decode servers, each of which may ask any prefill server; a context manager."""

    def __init__(self, model, *, prefills, decodes, prefill=None, decode=None):
        self.folder = tempfile.TemporaryDirectory(prefix="scd-e2e-")
        self.prefill_settings = {
            **common_settings(),
            "link.bandwidth_gbps": 0,
            "metrics.listen": "127.0.0.1:0",
            "model.directory": model,
            **(prefill or {}),
        }
        self.ports = [free_port() for _ in range(prefills)]
        decode_settings = {
            **common_settings(),
            "metrics.listen": "127.0.0.1:0",
            "model.directory": model,
            "prefill.endpoints": "[" + ", ".join(f"127.0.0.1:{port}" for port in self.ports) + "]",
            "codec.mode": "raw",
            **(decode or {}),
        }
        self.prefills, self.decodes = [], []
        try:
            for index in range(prefills):
                self.prefills.append(self.start_prefill(index))
            for _ in range(decodes):
                self.decodes.append(Daemon("decode_server", self.folder.name, decode_settings))
        except BaseException:
            self.__exit__()
            raise

    def start_prefill(self, index):
        listen = {"grpc.listen": f"127.0.0.1:{self.ports[index]}"}
        return Daemon("prefill_server", self.folder.name, {**self.prefill_settings, **listen})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for daemon in self.decodes + self.prefills:
            daemon.kill()
        self.folder.cleanup()

    def complete(self, decode, prompt, *options):
        server = self.decodes[decode].address
        return json.loads(run("scd", "complete", "--json", "--server", server, *options, input=prompt).stdout)


def tiny_model(folder, name="tiny", *options):
    path = pathlib.Path(folder) / name
    run("scd", "make-model", "--shape", "tiny", "--seed", "1", "--out", path, *options)
    return path


def demo_model():
    """The converted SmolLM2 checkpoint, or None where it was never fetched."""
    cache = pathlib.Path(os.environ.get("SCD_CACHE", pathlib.Path.home() / ".cache/scd"))
    path = cache / "models/SmolLM2-135M-Instruct"
    return path if (path / "model.safetensors").exists() else None


def test_data(relative):
    root = pathlib.Path(os.environ.get("SCD_TEST_DATA", SOURCE / "../shared/data"))
    return root / relative if (root / relative).exists() else None


def write_adapter(model, folder):
    """A LoRA adapter of rank 4 on the first layer's keys and values."""
    config = json.loads((model / "config.json").read_text())
    hidden = config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    shapes = {"A": [4, hidden], "B": [config["num_key_value_heads"] * head_dim, 4]}
    header, data = {}, b""
    for module, side in itertools.product(("k_proj", "v_proj"), shapes):
        shape = shapes[side]
        values = array.array("f", [0.1 * (i * i % 7 - 2) for i in range(shape[0] * shape[1])]).tobytes()
        name = f"base_model.model.model.layers.0.self_attn.{module}.lora_{side}.weight"
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
