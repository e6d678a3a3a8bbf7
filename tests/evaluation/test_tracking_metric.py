import evaluate
import numpy as np
import pytest
import torch

from ct_hf.evaluation import PROTOCOLS, score_sequences, tracking_metric
from ct_hf.evaluation.tracking_metric import TrackingMetric


TRUTH = np.tile(np.array([[0.0, 0.0, 10.0, 10.0]]), (3, 1))
BOXES = TRUTH + [[0, 0, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
LONGER = np.tile(BOXES, (2, 1)), np.tile(TRUTH, (2, 1))


@pytest.fixture
def metric(tmp_path):
    def make(protocol, **kwargs):
        return TrackingMetric(protocol, cache_dir=str(tmp_path), **kwargs)

    return make


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("keep_in_memory", [False, True])
def test_batches_of_unlike_lengths_give_what_one_call_gives(metric, protocol, keep_in_memory):
    module = metric(protocol, keep_in_memory=keep_in_memory)
    sizes = [(20, 20), (30, 10), (40, 40)]
    module.add_batch(predictions=[BOXES, LONGER[0]], references=[TRUTH, LONGER[1]], image_sizes=sizes[:2])
    module.add_batch(predictions=[BOXES], references=[TRUTH], image_sizes=sizes[2:])
    expected = score_sequences(
        [BOXES, LONGER[0], BOXES], [TRUTH, LONGER[1], TRUTH], protocol=protocol, image_sizes=sizes
    )
    assert module.compute() == expected


def test_flags_of_some_sequences(metric):
    module, visible = metric("lasot"), np.array([True, False, True])
    module.add(prediction=BOXES, reference=TRUTH, visible=visible)
    module.add(prediction=BOXES, reference=TRUTH)
    module.add_batch(predictions=[BOXES] * 2, references=[TRUTH] * 2, visible=[None, [1, 0, 1]])
    flags = [visible, None, None, visible]
    assert module.compute() == score_sequences([BOXES] * 4, [TRUTH] * 4, protocol="lasot", visible=flags)


def test_everything_at_once(metric):
    given = {"cover": [[8, 0, 8]], "image_sizes": [(20, 20)]}
    result = metric("got10k").compute(predictions=[BOXES], references=[TRUTH], **given)
    assert result["ao"] == 100


def test_nan_and_none_and_tensors(metric):
    module = metric("uav")
    absent = TRUTH.tolist()
    absent[1] = [None] * 4
    for truth in (absent, np.array(absent, dtype=float), torch.tensor(np.array(absent, dtype=float))):
        module.add(prediction=torch.tensor(BOXES), reference=truth)
    result = module.compute()
    assert result["per_sequence"] == [result["per_sequence"][0]] * 3
    assert result["precision"] == 100 and result["op50"] == pytest.approx(200 / 3)


def test_can_be_used_again_after_an_error(metric):
    module = metric("otb")
    module.add(prediction=np.full((3, 4), np.nan), reference=TRUTH)
    with pytest.raises(ValueError, match=r"`predictions\[0\]` frame 0: got \[nan"):
        module.compute()
    assert module.compute(predictions=[TRUTH], references=[TRUTH])["precision"] == 100


def test_what_is_missing_is_named(metric):
    for protocol in (None, "vot"):
        with pytest.raises(ValueError, match="`config_name` must be a protocol, one of otb"):
            metric(protocol)
    with pytest.raises(ValueError, match="`image_sizes` is None, but protocol `got10k` clips"):
        metric("got10k").compute(predictions=[BOXES], references=[TRUTH])
    with pytest.raises(ValueError, match="`predictions` and `references` are both needed"):
        metric("otb").add_batch(references=[TRUTH])
    with pytest.raises(ValueError, match="number of predictions"):
        metric("otb").add_batch(predictions=[BOXES], references=[TRUTH, TRUTH])
    with pytest.raises(ValueError, match="Bad inputs.*flags"):
        metric("otb").add_batch(predictions=[BOXES], references=[TRUTH], flags=[None])


def test_combines_with_another_protocol(metric):
    both = evaluate.combine({"a": metric("otb"), "b": metric("trackingnet")})
    result = both.compute(predictions=[BOXES], references=[TRUTH])
    assert result["a_precision"] == 100
    assert result["success"] < 100


def test_loads_by_path_without_the_network(tmp_path, fresh_python):
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import evaluate\n"
        f"metric = evaluate.load({tracking_metric.__file__!r}, 'otb')\n"
        "rows = [[[0, 0, 10, 10], [0, 0, 10, 10]]]\n"
        "metric.add_batch(predictions=rows, references=rows)\n"
        "print(metric.name, metric.compute()['precision'])\n"
    )
    assert fresh_python(code, tmp_path).split() == ["tracking_metric", "100.0"]
