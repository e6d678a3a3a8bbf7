"""Matrix products by the faster library keep their precision, and the setting is as it was afterwards."""

import pytest
import torch

from ct_hf.compression import products
from ct_hf.compression.products import fast_products, is_bf16_faster

from .tiny import make_pairs
from .training import make_trainer


CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def setting():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_products_keep_fp32_and_the_setting_comes_back():
    left, right = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(0))
    with fast_products(CPU):
        product = left @ right
    torch.testing.assert_close(product.double(), left.double() @ right.double(), atol=1e-4, rtol=0)
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_setting_comes_back_after_an_error():
    with pytest.raises(RuntimeError, match="broken"), fast_products(CPU):
        raise RuntimeError("broken")
    assert torch.get_float32_matmul_precision() == "highest"


def test_where_products_would_be_rounded_nothing_changes(monkeypatch):
    monkeypatch.setattr(products, "_stays_exact", lambda: False)
    with fast_products(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_rounded_products_are_noticed(monkeypatch):
    product = torch.Tensor.__matmul__

    def rounded(left, right):
        if left.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            return product(left.bfloat16(), right.bfloat16()).float()
        return product(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not products._stays_exact.__wrapped__()


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_other_devices_are_left_alone(device):
    with fast_products(torch.device(device)):
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_precision_that_the_user_chose_stays():
    torch.set_float32_matmul_precision("high")
    with fast_products(CPU):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "high"


def test_a_precision_chosen_by_the_newer_settings_stays(monkeypatch):
    def refuse():
        raise RuntimeError("you have used mix of the legacy and new APIs")  # torch's answer once both were used

    before = torch.backends.mkldnn.matmul.fp32_precision
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    with fast_products(CPU):
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_steps_of_a_training_use_them(tmp_path, monkeypatch):
    monkeypatch.setattr(products, "_stays_exact", lambda: True)
    trainer = make_trainer(tmp_path, train_dataset=make_pairs(4), max_steps=1)
    seen = []
    forward = trainer.compute_loss

    def watched(*args, **kwargs):
        seen.append(torch.get_float32_matmul_precision())
        return forward(*args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", watched)
    trainer.train()
    assert seen == ["medium"]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("slow", [torch.bfloat16, torch.float32])
def test_the_faster_type_is_measured(monkeypatch, slow):
    seconds = [0.0]
    product = torch.Tensor.__matmul__

    def multiply(left, right):
        seconds[0] += 2.0 if left.dtype == slow else 1.0
        return product(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", multiply)
    monkeypatch.setattr(products, "perf_counter", lambda: seconds[0])
    assert is_bf16_faster.__wrapped__() == (slow == torch.float32)
