import pickle

from ct_hf.data import SequenceError


def test_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(SequenceError("frame 3 is gone", "missing_frame")))
    assert error.cause == "missing_frame" and str(error) == "frame 3 is gone"
