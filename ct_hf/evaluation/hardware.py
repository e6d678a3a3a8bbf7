"""What a speed was measured on, in words: speeds of two machines are not to be compared."""

import os
import platform
from pathlib import Path

import torch


_CPU_INFO = Path("/proc/cpuinfo")


def describe_device(device: torch.device, num_processes: int = 1) -> str:
    """
    Name a device and what it is.

    Args:
        device (`torch.device`): where a tracker's weights are.
        num_processes (`int`, *optional*, defaults to 1): processes that share the work.

    Returns:
        `str`: such as `"cuda:0 (NVIDIA A100-SXM4-80GB)"` or `"cpu (AMD EPYC 7B13, 2 cores, AVX2), 2 processes"`.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = f"{_processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    else:
        name = platform.machine()
    return f"{device} ({name}), {num_processes} processes" if num_processes > 1 else f"{device} ({name})"


def _processor() -> str:
    """Its model, where the system tells; else its architecture."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, names), platform.processor() or platform.machine())


__all__ = ["describe_device"]
