import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import ct_hf
from ct_hf.tracking import VisualObjectTrackingPipeline

from .conftest import BOX


OTHER_BOX = [10.0, 12.0, 30.0, 24.0]


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("tracker")
    models("ostrack").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("visual-object-tracking", model=str(folder), device="cpu")


def expected(model, frames, box):
    session = model.start(frames[0], box)
    return [box, *(session.update(frame).box.tolist() for frame in frames[1:])]


def boxes(result):
    corners = [[entry["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")] for entry in result]
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]


def test_importing_ct_hf_registers_the_task(fresh_python, tmp_path):
    code = (
        "from transformers.pipelines import PIPELINE_REGISTRY, get_supported_tasks\n"
        "import ct_hf\n"
        "print('visual-object-tracking' in get_supported_tasks())"
    )
    assert fresh_python(code, tmp_path) == "True\n", "and nothing of a task that is registered already"
    assert ct_hf.tracking.register_pipeline() is None  # again, without a warning


def test_a_video_of_frames(pipe, models, frames):
    result = pipe({"frames": frames, "box": BOX})
    assert isinstance(pipe, VisualObjectTrackingPipeline) and len(result) == len(frames)
    np.testing.assert_allclose(boxes(result), expected(models("ostrack"), frames, BOX), atol=1e-3)
    assert result[0] == {"score": 1.0, "box": {"xmin": 40.0, "ymin": 30.0, "xmax": 60.0, "ymax": 46.0}, "lost": False}
    assert json.loads(json.dumps(result)) == result  # plain numbers


@pytest.mark.parametrize("form", ["images", "tensors", "array", "iterator"])
def test_every_form_of_frames(pipe, frames, form):
    forms = {
        "images": lambda: [Image.fromarray(frame) for frame in frames],
        "tensors": lambda: [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames],
        "array": lambda: np.stack(frames),
        "iterator": lambda: iter(frames),
    }
    assert pipe({"frames": forms[form](), "box": BOX}) == pipe({"frames": frames, "box": BOX})


def test_a_video_of_a_file_and_of_a_folder(pipe, make_video, tmp_path, frames):
    assert len(pipe({"frames": str(make_video(5)), "box": [10, 10, 20, 20]})) == 5
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "images" / f"{index}.png")
    assert pipe({"frames": tmp_path / "images", "box": BOX}) == pipe({"frames": frames, "box": BOX})


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_list_is_a_batch(pipe, models, frames, batch_size, monkeypatch):
    videos = [
        {"frames": frames, "box": BOX},
        {"frames": frames[:3], "box": OTHER_BOX},
        {"frames": frames, "box": OTHER_BOX},
    ]
    sizes = []
    forward = type(pipe.model).forward
    monkeypatch.setattr(
        type(pipe.model),
        "forward",
        lambda self, **inputs: sizes.append(len(inputs["search_pixel_values"])) or forward(self, **inputs),
    )
    results = pipe(videos, batch_size=batch_size)
    assert max(sizes) == batch_size and sum(sizes) == 7 + 2 + 7
    assert [len(result) for result in results] == [8, 3, 8]
    for result, video in zip(results, videos, strict=True):
        np.testing.assert_allclose(boxes(result), expected(models("ostrack"), **video), atol=2e-3)
    assert pipe(videos[:1]) == [pipe(videos[0])]


def test_a_generator_is_read_as_it_is_needed(pipe, frames):
    begun = []

    def videos():
        for number in range(3):
            begun.append(number)
            yield {"frames": frames[:2], "box": BOX}

    results = pipe(videos())
    next(iter(results))
    assert len(begun) <= 2
    assert len(list(pipe(videos()))) == 3


def test_lost(pipe, frames):
    video = {"frames": frames, "box": BOX}
    highest = max(entry["score"] for entry in pipe(video)[1:])
    result = pipe(video, threshold=min(1.0, highest + 1e-3), patience=3)
    assert [entry["lost"] for entry in result] == [False] * 3 + [True] * 5
    assert not any(entry["lost"] for entry in pipe(video, threshold=0.0))


def test_saves_the_tracker(pipe, frames, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = pipeline("visual-object-tracking", model=str(tmp_path / "saved"), device="cpu")
    assert again({"frames": frames, "box": BOX}) == pipe({"frames": frames, "box": BOX})


def test_a_model_at_hand(models, frames, pipe):
    ours = pipeline("visual-object-tracking", model=models("ostrack"), device="cpu")
    assert ours({"frames": frames, "box": BOX}) == pipe({"frames": frames, "box": BOX})


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        ({"frames": "nowhere.mp4", "box": BOX}, FileNotFoundError, "`source` nowhere.mp4 does not exist"),
        ({"box": BOX}, ValueError, r"`inputs` must be .*got \['box'\]"),
        ("video.mp4", ValueError, "`inputs` must be .*got str"),
        ({"frames": [], "box": BOX}, ValueError, "a video without a first frame"),
    ],
)
def test_refuses(pipe, video, error, message):
    with pytest.raises(error, match=message):
        pipe(video)


def test_refuses_boxes_and_rules(pipe, frames):
    for box, message in (
        (BOX[:3], "four finite numbers"),
        ([500, 0, 9, 9], "outside the frame"),
        ([np.nan] * 4, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe({"frames": frames, "box": box})
    with pytest.raises(ValueError, match="`patience` must be at least 1"):
        pipe({"frames": frames, "box": BOX}, patience=0)
    with pytest.raises(TypeError, match="colour"):
        pipe({"frames": frames, "box": BOX}, colour="red")


def test_a_data_set_that_knows_its_length_alone(pipe, frames):
    class Videos(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            assert number < 2, "it was asked for more than it has"
            return {"frames": frames[:3], "box": BOX}

    assert [len(tracks) for tracks in pipe(Videos())] == [3, 3]
