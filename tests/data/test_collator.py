import numpy as np
import pytest
import torch

from ct_hf.data import CAUSES, ProceduralWorld, TrackingCollator, stream_pairs


WORLD = ProceduralWorld(length=20, size=(96, 72))


def test_batch_of_a_stream(config, take):
    pairs = take(stream_pairs(WORLD, config, seed=0), 6)
    batch = TrackingCollator()(pairs)
    assert batch.pop("name") == [pair["name"] for pair in pairs]
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "template_pixel_values": ((6, 1, 3, 32, 32), torch.uint8),
        "search_pixel_values": ((6, 3, 64, 64), torch.uint8),
        "template_boxes": ((6, 1, 4), torch.float32),
        "search_boxes": ((6, 4), torch.float32),
        "skipped": ((len(CAUSES),), torch.int64),
    }
    for index, pair in enumerate(pairs):
        np.testing.assert_array_equal(batch["search_pixel_values"][index], pair["search_pixel_values"])
        np.testing.assert_array_equal(batch["search_boxes"][index], pair["search_boxes"])


def test_counts_are_summed(config, take):
    pairs = take(stream_pairs(WORLD, config, seed=0), 3)
    for index, pair in enumerate(pairs):
        pair["skipped"] = np.eye(len(CAUSES), dtype=np.int64)[1] * index
    assert TrackingCollator()(pairs)["skipped"].tolist() == (np.eye(len(CAUSES), dtype=int)[1] * 3).tolist()


def test_lists_are_as_good_as_arrays(config, take):
    """Rows that were stored come back as lists."""
    pairs = take(stream_pairs(WORLD, config, seed=0), 2)
    for pair in pairs:
        pair.pop("name")
    stored = [{name: value.tolist() for name, value in pair.items()} for pair in pairs]
    for name, tensor in TrackingCollator()(pairs).items():
        assert torch.equal(tensor, TrackingCollator()(stored)[name])


def test_no_pairs():
    with pytest.raises(ValueError, match="`pairs` is empty"):
        TrackingCollator()([])


def test_columns_of_ones_own_are_stacked_as_they_are():
    """Crops that are normalised already stay so; a data set need not count what it skipped."""
    pixels = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 2, 2)
    batch = TrackingCollator()([{"search_pixel_values": pixels, "text_features": np.ones(5)}] * 2)
    assert_equal = torch.testing.assert_close
    assert_equal(batch["search_pixel_values"], torch.from_numpy(pixels).expand(2, -1, -1, -1), atol=0, rtol=0)
    assert batch["text_features"].dtype == torch.float32
    assert "skipped" not in batch
    with pytest.raises(ValueError, match="`search_pixel_values` is missing from a pair"):
        TrackingCollator()([{"search_pixel_values": pixels}, {}])
