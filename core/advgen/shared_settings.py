"""Process-wide settings of Python, numpy and torch, each with a function to read and to set it.

Torch-free: settings of torch and numpy are read only after these modules are loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

VARIABLES = ("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "CUBLAS_", "PYTORCH_", "TORCH_", "NCCL_", "ADVGEN_")
SET_BY_TORCH = ("CUDA_MODULE_LOADING",)
KERNELS = ("flash", "mem_efficient", "math", "cudnn")
ENVIRONMENT, FILTERS = "environment variables", "warnings filters"

_inference: list[Any] = []  # torch ends the mode when its guard is collected


@dataclass(frozen=True)
class Setting:
    """A setting of the process.

    Args:
        name: its name in warnings.
        read: return its value; two values are compared by ``==``.
        write: set it to a value that was read.
        owner: the module that has it; empty for Python itself.
        kept: return whether a later value still honors an earlier one.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    owner: str = ""
    kept: Callable[[Any, Any], bool] = lambda before, after: bool(before == after)


def _write_variables(before: Mapping[str, str]) -> None:
    for name in [*_variables(), *before]:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


def _variables() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name.startswith(VARIABLES) and name not in SET_BY_TORCH}


def _write_path(before: tuple[str, ...]) -> None:
    """Move the old entries to the front. New ones stay behind them, so that a plugin still finds its modules there."""
    sys.path[:] = [*before, *(entry for entry in sys.path if entry not in before)]


def _filters() -> list[tuple[Any, ...]]:
    return list(warnings.filters)


def _broad(filters: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the filters for whole built-in categories. Those for one message, module or custom category stay."""
    return [each for each in filters if each[1] is None and each[3] is None and each[2].__module__ == "builtins"]


def _write_filters(before: list[tuple[Any, ...]]) -> None:
    own = [each for each in warnings.filters if each not in before and not _broad([each])]
    warnings.resetwarnings()  # the only public call that makes Python read the list again
    warnings.filters[:] = [*own, *before]  # type: ignore[index]


def _handlers() -> dict[str, Any]:
    return {each.name: signal.getsignal(each) for each in signal.Signals}


def _write_handlers(before: Mapping[str, Any]) -> None:
    for name, handler in before.items():
        if handler is not None and signal.getsignal(signal.Signals[name]) != handler:
            signal.signal(signal.Signals[name], handler)


def _numpy() -> Any:
    return sys.modules["numpy"]


def _numpy_random() -> tuple[Any, ...]:
    name, keys, *rest = _numpy().random.get_state()
    return (name, keys.tobytes(), *rest)


def _write_numpy_random(before: tuple[Any, ...]) -> None:
    numpy = _numpy()
    numpy.random.set_state((before[0], numpy.frombuffer(before[1], dtype=numpy.uint32), *before[2:]))


def _torch() -> Any:
    return sys.modules["torch"]


def _write_device(before: str) -> None:
    _torch().set_default_device(None if before == "cpu" else before)


def _write_tensor_type(before: str) -> None:
    _torch().set_default_tensor_type("torch.FloatTensor" if before == "cpu" else f"torch.{before}.FloatTensor")


def _write_inference(before: bool) -> None:
    mode = _torch().inference_mode(before)
    mode.__enter__()
    _inference.append(mode)


def _autocast() -> dict[str, Any]:
    torch = _torch()
    on = {f"{kind} on": torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    return on | {f"{kind} dtype": torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda")}


def _write_autocast(before: Mapping[str, Any]) -> None:
    for kind in ("cpu", "cuda"):
        _torch().set_autocast_enabled(kind, before[f"{kind} on"])
        _torch().set_autocast_dtype(kind, before[f"{kind} dtype"])


def _anomaly() -> tuple[bool, bool]:
    return _torch().is_anomaly_enabled(), _torch().is_anomaly_check_nan_enabled()


def _precisions() -> list[tuple[str, Any, str]]:
    """List the attributes of both interfaces to the precision of float32, the newer one first."""
    backends = _torch().backends
    places = {"all": backends, "matmul": backends.cuda.matmul, "cudnn": backends.cudnn}
    places |= {f"cudnn.{part}": getattr(backends.cudnn, part, None) for part in ("conv", "rnn")}
    places |= {"mkldnn": backends.mkldnn}
    places |= {f"mkldnn.{part}": getattr(backends.mkldnn, part, None) for part in ("matmul", "conv", "rnn")}
    found = [(name, place, "fp32_precision") for name, place in places.items() if hasattr(place, "fp32_precision")]
    return [
        *found,
        ("matmul allow_tf32", backends.cuda.matmul, "allow_tf32"),
        ("cudnn allow_tf32", backends.cudnn, "allow_tf32"),
    ]


def _precision() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, place, attribute in _precisions():
        with contextlib.suppress(RuntimeError):  # the older interface refuses if the newer one was used
            found[name] = getattr(place, attribute)
    with contextlib.suppress(RuntimeError):
        found["matmul precision"] = _torch().get_float32_matmul_precision()
    return found


def _write_precision(before: Mapping[str, Any]) -> None:
    """Set the newer interface, then the older one, which also writes to the newer one, then the newer one again."""
    newer = [each for each in _precisions() if each[2] == "fp32_precision"]
    for name, place, attribute in (*newer, *_precisions(), *newer):
        if name in before:
            with contextlib.suppress(RuntimeError):
                setattr(place, attribute, before[name])
        if name == "matmul allow_tf32" and "matmul precision" in before:
            _torch().set_float32_matmul_precision(before["matmul precision"])


def _attributes(
    place: Callable[[], Any], *names: str
) -> tuple[Callable[[], dict[str, Any]], Callable[[Mapping[str, Any]], None]]:
    """Return a function that reads attributes of a part of torch together, and one that writes them."""

    def read() -> dict[str, Any]:
        return {name: getattr(place(), name) for name in names if hasattr(place(), name)}

    def write(before: Mapping[str, Any]) -> None:
        for name, value in before.items():
            setattr(place(), name, value)

    return read, write


def _kernels() -> dict[str, bool]:
    cuda = _torch().backends.cuda
    return {name: getattr(cuda, f"{name}_sdp_enabled")() for name in KERNELS if hasattr(cuda, f"{name}_sdp_enabled")}


def _write_kernels(before: Mapping[str, bool]) -> None:
    for name, on in before.items():
        getattr(_torch().backends.cuda, f"enable_{name}_sdp")(on)


SETTINGS = (
    Setting(ENVIRONMENT, _variables, _write_variables),
    Setting(
        "sys.path",
        lambda: tuple(sys.path),
        _write_path,
        kept=lambda before, after: bool(after[: len(before)] == before),  # entries appended at the end shadow nothing
    ),
    Setting(FILTERS, _filters, _write_filters, kept=lambda before, after: _broad(before) == _broad(after)),
    Setting("signal handlers", _handlers, _write_handlers),
    Setting("the working folder", os.getcwd, os.chdir),
    Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
    Setting("the state of random", random.getstate, random.setstate),
    Setting("numpy.seterr", lambda: dict(_numpy().geterr()), lambda before: _numpy().seterr(**before), "numpy"),
    Setting("the state of numpy.random", _numpy_random, _write_numpy_random, "numpy"),
    Setting("torch's default device", lambda: str(_torch().get_default_device()), _write_device, "torch"),
    Setting("torch's default tensor type", lambda: str(_torch()._C._get_default_device()), _write_tensor_type, "torch"),
    Setting(
        "torch's default dtype", lambda: _torch().get_default_dtype(), lambda kind: _torch().set_default_dtype(kind), "torch"
    ),
    Setting("torch's inference mode", lambda: _torch().is_inference_mode_enabled(), _write_inference, "torch"),
    Setting("torch's grad mode", lambda: _torch().is_grad_enabled(), lambda on: _torch().set_grad_enabled(on), "torch"),
    Setting("torch's autocast", _autocast, _write_autocast, "torch"),
    Setting("torch's anomaly detection", _anomaly, lambda modes: _torch().autograd.set_detect_anomaly(*modes), "torch"),
    Setting("torch's precision of float32", _precision, _write_precision, "torch"),
    Setting(
        "torch's flags of cuDNN",
        *_attributes(lambda: _torch().backends.cudnn, "enabled", "benchmark", "deterministic", "benchmark_limit"),
        "torch",
    ),
    Setting(
        "torch's reductions of half precision",
        *_attributes(
            lambda: _torch().backends.cuda.matmul,
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
        ),
        "torch",
    ),
    Setting("torch's kernels of attention", _kernels, _write_kernels, "torch"),
    Setting(
        "torch's deterministic algorithms",
        lambda: _torch().get_deterministic_debug_mode(),
        lambda mode: _torch().set_deterministic_debug_mode(mode),
        "torch",
    ),
    Setting("torch's number of threads", lambda: _torch().get_num_threads(), lambda n: _torch().set_num_threads(n), "torch"),
    Setting(
        "torch's number of interop threads",
        lambda: _torch().get_num_interop_threads(),
        lambda n: _torch().set_num_interop_threads(n),
        "torch",
    ),
    Setting(
        "the state of torch's random numbers",
        lambda: _torch().get_rng_state().numpy().tobytes(),
        lambda state: _torch().set_rng_state(_torch().frombuffer(bytearray(state), dtype=_torch().uint8)),
        "torch",
    ),
)
"""All settings that are restored, in this order."""
OWNERS = tuple(dict.fromkeys(setting.owner for setting in SETTINGS))
