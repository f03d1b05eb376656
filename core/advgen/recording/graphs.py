"""How work is recorded on a GPU: its kernels as a CUDA graph, and torch's watch for waits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """How work is recorded: as a graph of the GPU, or in tests by a tracer that is as blind to Python."""

    def record(self, work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        """Record a call; what runs its kernels again, into the tensors that it returned.

        Raises:
            RuntimeError: where it cannot be recorded.
        """
        ...

    def watched(self) -> AbstractContextManager[None]:
        """A context that raises RuntimeError, with "synchroniz" in its text, where work waits for the device."""
        ...


class CudaGraphs:
    """Backend of CUDA devices.

    All recordings share one pool of memory, as they never run at the same time: what one leaves holds until another runs.
    """

    def __init__(self) -> None:
        self.pool: Any = None

    def record(self, work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        """Nothing runs yet: the tensors hold numbers after the first replay."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own behind
        replay: Callable[[], None] = graph.replay
        return replay

    @contextmanager
    def watched(self) -> Iterator[None]:
        """As torch tells waits; those that it overlooks make the recording fail."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it may overlook some
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
