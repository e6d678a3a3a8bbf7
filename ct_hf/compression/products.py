"""Matrix products in fp32 on a CPU, by the faster of torch's two libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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


__all__ = ["fast_products"]
