"""`transformers.pipeline("visual-object-tracking")`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from ..models.image_processing_tracker import Frame
from ..models.session import Track
from .batch import track_videos
from .lost import LOW_SCORE, PATIENCE, LostWatch
from .video import Video, VideoError, open_video


TASK = "visual-object-tracking"


class VisualObjectTrackingPipeline(Pipeline):
    """
    Follows a target through a video, from its box in the first frame.

    ```python
    >>> from transformers import pipeline
    >>> import ct_hf

    >>> tracker = pipeline("visual-object-tracking", model="examples/assets/teacher")
    >>> tracks = tracker({"frames": "video.mp4", "box": [129, 80, 64, 78]})
    >>> tracks[-1]
    {'score': 0.74, 'box': {'xmin': 140.2, 'ymin': 71.5, 'xmax': 203.9, 'ymax': 148.0}, 'lost': False}
    ```

    A list is a batch: of several videos, or of several targets in one, `batch_size` (1 by default) are tracked in lock-step,
    see [`track_videos`].
    """

    _load_processor = False
    _load_image_processor = False  # a session makes its own from the configuration
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __call__(self, inputs: dict[str, Any] | Iterable[dict[str, Any]], **kwargs: Any) -> Any:
        """
        Track.

        Args:
            inputs (`dict`, or `list`, data set or generator of them):
                `frames`: path of a video file, folder of images or camera, see [`open_video`], or frames as PIL images,
                uint8 arrays or tensors, in their order. `box`: `[x, y, w, h]` of the target in pixels of the first frame.
            batch_size (`int`, *optional*, defaults to 1):
                Videos of a list that are tracked at once.
            threshold (`float`, *optional*, defaults to 0.25):
                Scores below it are low, see [`LostWatch`].
            patience (`int`, *optional*, defaults to 5):
                How many low scores in a row make a target lost.

        Returns:
            `list[dict]`, one a frame, the first being the box that was given with score 1:
            - **score** (`float`): confidence in [0, 1].
            - **box** (`dict[str, float]`): `xmin`, `ymin`, `xmax`, `ymax` in pixels of the frame.
            - **lost** (`bool`): whether the target counts as lost.

            A list of them for a list. A video that breaks off gives the frames up to there, with a warning.

        Raises:
            ValueError: a video lacks `frames` or `box`, has another key, cannot be opened, or its box cannot be used.
        """
        return super().__call__(inputs, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the tracker, see [`~transformers.PreTrainedModel.save_pretrained`]; the pipeline itself comes with ct_hf."""
        self.model.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Push the tracker, private by default, as its own `push_to_hub` does; the pipeline itself comes with ct_hf."""
        return self.model.push_to_hub(repo_id, **options)

    def _sanitize_parameters(
        self, threshold: float | None = None, patience: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"threshold": threshold, "patience": patience}
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            LostWatch(**given)  # refused now, not after the video
        return {}, {}, given

    def preprocess(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Open a video and check what was given."""
        if not isinstance(inputs, dict) or set(inputs) != {"frames", "box"}:
            got = sorted(map(str, inputs)) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(
                f'`inputs` must be {{"frames": path or list of frames, "box": [x, y, w, h]}}, or a list of such, got {got}.'
            )
        frames = inputs["frames"]
        frames = open_video(frames) if isinstance(frames, str | Path | int) else frames
        # A video of its own kind: a list of tensors would be moved to the device as a whole.
        return {"frames": frames if isinstance(frames, Video) else _Frames(frames), "box": inputs["box"]}

    def _forward(self, model_inputs: dict[str, Any]) -> list[Track]:
        tracks = next(self._track([model_inputs], 1))
        if not tracks:
            raise VideoError(
                "`inputs` has a video without a first frame that can be read, of which the log says more."
            )
        return tracks

    def postprocess(
        self, model_outputs: Sequence[Track], threshold: float = LOW_SCORE, patience: int = PATIENCE
    ) -> list[dict[str, Any]]:
        """Tracks as dictionaries of plain numbers."""
        watch = LostWatch(threshold, patience)
        result = []
        for track in model_outputs:
            low, high = track.box[:2], track.box[:2] + track.box[2:]
            names = ("xmin", "ymin", "xmax", "ymax")
            box = dict(zip(names, np.concatenate([low, high]).tolist(), strict=True))
            result.append({"score": track.score, "box": box, "lost": watch.update(track.score)})
        return result

    def get_iterator(
        self,
        inputs: Iterable[dict[str, Any]],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """Videos in lock-step; `num_workers` is not used, since frames are read as they are needed."""
        if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):  # a data set may know no end but its length
            each_input = map(inputs.__getitem__, range(len(inputs)))
        else:
            each_input = inputs
        videos = (self.preprocess(each, **preprocess_params) for each in each_input)
        for tracks in self._track(videos, batch_size):
            yield self.postprocess(tracks, **postprocess_params)

    def _track(self, videos: Iterable[dict[str, Any]], batch_size: int) -> Iterator[list[Track]]:
        pairs = ((video["frames"], video["box"]) for video in videos)
        with self.device_placement():
            yield from track_videos(self.model.eval(), pairs, batch_size=batch_size)


class _Frames:
    """Frames that are at hand, hidden from what moves lists of tensors."""

    def __init__(self, frames: Iterable[Frame]):
        self.frames = frames

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


def register_pipeline() -> None:
    """Make the task known to `transformers.pipeline`; once is enough."""
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(TASK, VisualObjectTrackingPipeline, pt_model=AutoModel, type="video")


__all__ = ["TASK", "VisualObjectTrackingPipeline", "register_pipeline"]
