"""Matrix products on a CPU: in fp32 by the faster of torch's two libraries, and whether bf16 is faster still."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter

import torch


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """
    Let oneDNN take the matrix products in fp32 on a CPU, where that does not cost precision.

    torch gives them to MKL, which leaves AVX-512 unused on other CPUs than Intel's: there oneDNN is about twice as fast. It is
    only asked where products may be rounded to bf16; whether they then are is a matter of the CPU (they are where it has AMX)
    and measured once. On such CPUs, on other devices and where the user has chosen a precision, nothing changes.

    Args:
        device (`torch.device`): where the products are taken.
    """
    if device.type != "cpu" or not _is_default() or not _stays_exact():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _is_default() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except (
        RuntimeError
    ):  # a precision was chosen by torch's newer settings, `torch.backends.fp32_precision` and others
        return False


@cache
def _stays_exact() -> bool:
    """Whether oneDNN computes in fp32 though it may compute in bf16."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    errors = []
    for precision in ("medium", "highest"):
        torch.set_float32_matmul_precision(precision)
        errors.append((left @ right - exact).abs().max().item())
    return errors[0] <= 4 * errors[1]  # rounding to bf16 makes it some thousand times as large


@cache
def is_bf16_faster() -> bool:
    """Whether this CPU multiplies matrices faster in bf16: with instructions for it twice as fast, without a tenth."""
    seconds = []
    for dtype in (torch.bfloat16, torch.float32):
        left, right = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        _ = left @ right  # the first one of a kind prepares itself
        started = perf_counter()
        for _ in range(3):
            left @ right
        seconds.append(perf_counter() - started)
    return seconds[0] < seconds[1]


__all__ = ["fast_products", "is_bf16_faster"]
