"""As much of torch as tools/compare/torch_kernels.py calls, which computes nothing: for the names of its rows."""

import enum
import sys
from unittest.mock import MagicMock

__version__ = "stub"
SDPBackend = enum.Enum("SDPBackend", ["FLASH_ATTENTION", "CUDNN_ATTENTION"])


class Module:
    def register_buffer(self, name, value):
        pass


stub = MagicMock(Module=Module, SDPBackend=SDPBackend, bfloat16=None, float32=None)
for name in ("nn", "nn.functional", "nn.attention"):
    sys.modules[f"{__name__}.{name}"] = stub
nn = stub


def inference_mode():
    return lambda function: function


def randn(*shape, **_):
    return MagicMock(element_size=lambda: 2)


def __getattr__(name):
    return getattr(stub, name)
