"""From training pairs to a batch of tensors."""

from typing import Any

import numpy as np
import torch


class TrackingCollator:
    """Stacks pairs of [`PairSampler`] into the arguments of a tracker. Pixels stay 8-bit: models normalise on their device.

    Example:
        >>> batch = TrackingCollator()(list(pairs.take(32)))
        >>> {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
        {'template_pixel_values': ((32, 1, 3, 128, 128), torch.uint8),
         'search_pixel_values': ((32, 3, 256, 256), torch.uint8),
         'template_boxes': ((32, 1, 4), torch.float32),
         'search_boxes': ((32, 4), torch.float32),
         'skipped': ((8,), torch.int64)}
    """

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collates pairs.

        Args:
            pairs: Rows of [`PairSampler`].

        Returns:
            One tensor for each column, stacked, and `skipped` summed over the pairs: how many clips and pairs were left
            out for each of [`CAUSES`] on the way to this batch.
        """
        if not pairs:
            raise ValueError("`pairs` is empty. A batch needs at least one pair.")
        dtypes = {
            "template_pixel_values": np.uint8,
            "search_pixel_values": np.uint8,
            "template_boxes": np.float32,
            "search_boxes": np.float32,
        }
        batch = {
            name: torch.from_numpy(np.stack([np.asarray(pair[name], dtype=dtype) for pair in pairs]))
            for name, dtype in dtypes.items()
        }
        batch["skipped"] = torch.from_numpy(sum(np.asarray(pair["skipped"], dtype=np.int64) for pair in pairs))
        return batch
