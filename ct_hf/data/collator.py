"""From training pairs to a batch of tensors."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate


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

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor | list[str]]:
        """Collates pairs.

        Args:
            pairs: Rows of [`PairSampler`].

        Returns:
            One tensor for each column, stacked as it is (float64 becomes float32), a list for one of strings, and `skipped`,
            where it is there, summed over the pairs: how many clips and pairs were left out for each of [`CAUSES`] on the way
            to this batch.

        Raises:
            ValueError: there is no pair, or the pairs have columns of unlike shape.
        """
        if not pairs:
            raise ValueError("`pairs` is empty. A batch needs at least one pair.")
        batch = {}
        for name in pairs[0]:
            if isinstance(pairs[0][name], str):
                batch[name] = [pair.get(name, "") for pair in pairs]
                continue
            try:
                # In a worker this stacks straight into memory that the trainer's process shares.
                column = default_collate([np.asarray(pair[name]) for pair in pairs])
            except (KeyError, RuntimeError) as error:
                raise ValueError(f"column `{name}` is missing from a pair, or not of one shape: {error}") from error
            batch[name] = column.float() if column.dtype == torch.float64 else column
        if "skipped" in batch:
            batch["skipped"] = batch["skipped"].sum(dim=0)
        return batch
