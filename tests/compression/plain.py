"""What a mixed path computes, written out plainly."""

import contextlib

import torch

from ct_hf.compression import MixedTracker

from .tiny import SEARCH, TEMPLATE


def plain_terms(
    mixed: MixedTracker, path: tuple[bool, ...], batch: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """
    Losses of one path for a whole batch, nothing shared and nothing saved: the teacher runs alone, then the path runs layer
    by layer from its beginning.
    """
    student, teacher, plan = mixed.student, mixed.teacher, mixed.plan
    labels = batch["search_boxes"]
    pixels = {name: value for name, value in batch.items() if name != "search_boxes"}
    with torch.no_grad():
        state = teacher.embed(**pixels, keep_all_tokens=True)
        targets = []
        for stage in range(plan.num_stages):
            for layer in plan.teacher_stage(stage):
                state = teacher.layers[layer](state)
            targets.append(state.hidden_states)
        teacher_output = teacher.decode(state)

    mimicking, now_in_student = 0.0, path[0]
    with contextlib.nullcontext() if path[0] else torch.no_grad():
        state = (student if path[0] else teacher).embed(**pixels, keep_all_tokens=True)
    for stage, in_student in enumerate(path):
        with contextlib.nullcontext() if any(path[: stage + 1]) else torch.no_grad():
            if in_student != now_in_student:
                projection = (mixed.to_student if in_student else mixed.to_teacher)[stage - 1]
                state = state.replace(hidden_states=projection(state.hidden_states))
            layers = plan.student_stage(stage) if in_student else plan.teacher_stage(stage)
            for layer in layers:
                state = (student if in_student else teacher).layers[layer](state)
        now_in_student = in_student
        hidden = mixed.to_teacher[stage](state.hidden_states) if in_student else state.hidden_states
        squares = (hidden - targets[stage]) ** 2
        assert squares.shape[1] == TEMPLATE + SEARCH
        mimicking = mimicking + (squares[:, :TEMPLATE].mean() + squares[:, TEMPLATE:].mean()) / 2
    if not now_in_student:
        state = state.replace(hidden_states=mixed.to_student[-1](state.hidden_states))
    output = student.decode(state)
    terms = {name: mixed.track_weight * value for name, value in student.compute_loss(output, labels).items()}
    for name, value in student.compute_guidance(output, teacher_output).items():
        terms[name] = mixed.guidance_weight * value
    return terms | {"mimicking": mixed.mimicking_weight * mimicking / plan.num_stages}
