"""The mixed path over frames that a memory chains: each trunk carries its own."""

import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan, build_student
from ct_hf.models import ODTrackConfig, ODTrackModel

from .test_mixed_learning import overfit
from .tiny import WIDTHS, all_paths, gradients


FRAMES, TEMPLATES = 3, 2
SIZES = {"special": 1, "template": 4 * TEMPLATES, "search": 16}


def make_tracker(layers, seed=0, spread=0.1, **changes):
    """A tracker whose weights are spread out, so that every layer says something of its own."""
    fields = {
        "template_size": 32,
        "search_size": 64,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "head_channels": 16,
        "num_templates": TEMPLATES,
    }
    torch.manual_seed(seed)
    model = ODTrackModel(ODTrackConfig(num_hidden_layers=layers, **{**fields, **changes}))
    assert sum(parameter.numel() for parameter in model.parameters()) < 2e6
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(spread * torch.randn(tensor.shape))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model.eval()


def make_batch(size=2, frames=FRAMES, seed=0, dtype=torch.float32):
    """Chained search crops of noise with a label each."""
    generator = torch.Generator().manual_seed(seed)
    center = 0.3 + 0.4 * torch.rand(size, frames, 2, generator=generator)
    extent = 0.2 + 0.3 * torch.rand(size, frames, 2, generator=generator)
    batch = {
        "template_pixel_values": torch.randn(size, TEMPLATES, 3, 32, 32, generator=generator),
        "search_pixel_values": torch.randn(size, frames, 3, 64, 64, generator=generator),
        "search_boxes": torch.cat([center, extent], dim=2),
    }
    return {name: value.to(dtype) for name, value in batch.items()}


def make_mixed(teacher, sizes, dtype=torch.float32, seed=5, spread=0.05, changes=None, **arguments):
    plan = StagePlan.from_sizes(sizes)
    torch.manual_seed(seed)
    student, _ = build_student(teacher, plan, **(changes or {}))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    return MixedTracker(student.to(dtype), teacher.to(dtype), plan, **arguments).to(dtype).train()


def plain_chain(mixed, path, batch):
    """Terms of the loss of one path, frame by frame and layer by layer, nothing shared; and the last memory."""
    student, teacher, plan = mixed.student, mixed.teacher, mixed.plan
    templates, terms, memory, teacher_memory = batch["template_pixel_values"], [], None, None
    for frame in range(batch["search_pixel_values"].shape[1]):
        search, labels = batch["search_pixel_values"][:, frame], batch["search_boxes"][:, frame]
        targets = []
        with torch.no_grad():
            state = teacher.embed(templates, search, memory=teacher_memory, keep_all_tokens=True)
            first = state
            for stage in range(plan.num_stages):
                for layer in plan.teacher_stage(stage):
                    state = teacher.layers[layer](state)
                targets.append(state)
            teacher_output = teacher.decode(state)
            teacher_memory = teacher_output.memory

        state = student.embed(templates, search, memory=memory, keep_all_tokens=True) if path[0] else first
        mimicking, in_student = 0.0, path[0]
        for stage, now in enumerate(path):
            if now != in_student:
                projection = (mixed.to_student if now else mixed.to_teacher)[stage - 1]
                state = state.replace(hidden_states=projection(state.hidden_states))
            in_student, tracker = now, student if now else teacher
            for layer in plan.student_stage(stage) if now else plan.teacher_stage(stage):
                state = tracker.layers[layer](state)
            hidden = mixed.to_teacher[stage](state.hidden_states) if now else state.hidden_states
            parts = ((hidden - targets[stage].hidden_states) ** 2).split(list(SIZES.values()), dim=1)
            mimicking = mimicking + sum(part.mean() for part in parts) / len(parts)
        if not in_student:
            state = state.replace(hidden_states=mixed.to_student[-1](state.hidden_states))
        output = student.decode(state)
        memory = output.memory
        found = {name: mixed.track_weight * value for name, value in student.compute_loss(output, labels).items()}
        for name, value in student.compute_guidance(output, teacher_output).items():
            found[name] = mixed.guidance_weight * value
        terms.append(found | {"mimicking": mixed.mimicking_weight * mimicking / plan.num_stages})
    return {name: sum(each[name] for each in terms) / len(terms) for name in terms[0]}, memory


@pytest.mark.parametrize("widths", WIDTHS)
def test_chained_frames_equal_the_plain_computation(widths):
    """Every term and every gradient of every path, for a plan that is not even."""
    mixed = make_mixed(make_tracker(5), [2, 1, 2], torch.float64, changes=WIDTHS[widths])
    batch = make_batch(dtype=torch.float64)
    for path in all_paths(3):
        expected, memory = plain_chain(mixed, path, batch)
        expected_gradients = gradients(mixed, sum(expected.values()))
        output = mixed(paths=[path] * 2, **batch)
        assert output.pred_boxes.shape == (2, FRAMES, 4)
        assert output.loss_dict.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(output.loss_dict[name], value, atol=1e-10, rtol=1e-10)
        assert_close(output.loss, sum(expected.values()), atol=1e-10, rtol=1e-10)
        assert_close(output.memory.temporal_token, memory.temporal_token, atol=1e-10, rtol=0)
        for name, gradient in gradients(mixed, output.loss).items():
            assert (gradient is None) == (expected_gradients[name] is None), (path, name)
            if gradient is not None:
                assert_close(gradient, expected_gradients[name], atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("widths", WIDTHS)
def test_samples_of_unlike_paths_keep_their_own_memory(widths):
    """All paths in one batch: losses are means of single runs, boxes those of single runs, in the batch's order."""
    mixed = make_mixed(make_tracker(4), [2, 2], torch.float64, changes=WIDTHS[widths])
    paths = [all_paths(2)[index] for index in (2, 0, 1)]
    batch = make_batch(len(paths), dtype=torch.float64)
    singles = [
        mixed(paths=[path], **{name: value[row : row + 1] for name, value in batch.items()})
        for row, path in enumerate(paths)
    ]
    output = mixed(paths=paths, **batch)
    for name, value in output.loss_dict.items():
        assert_close(value, sum(single.loss_dict[name] for single in singles) / len(singles), atol=1e-10, rtol=0)
    assert_close(output.pred_boxes, torch.cat([single.pred_boxes for single in singles]), atol=1e-10, rtol=0)
    tokens = torch.cat([single.memory.temporal_token for single in singles])
    assert_close(output.memory.temporal_token, tokens, atol=1e-10, rtol=0)


def test_memory_makes_a_difference_and_carries_no_gradient():
    """The second frame is unlike a first frame; with the first frame's loss alone, later frames change nothing."""
    mixed, batch = make_mixed(make_tracker(4), [2, 2]), make_batch(frames=2)
    path = [(True, True)] * 2
    chained = mixed(paths=path, **batch)
    second = {
        **batch,
        "search_pixel_values": batch["search_pixel_values"][:, 1],
        "search_boxes": batch["search_boxes"][:, 1],
    }
    alone = mixed(paths=path, **second)
    assert not torch.allclose(chained.pred_boxes[:, 1], alone.pred_boxes, atol=1e-4)
    assert not chained.memory.temporal_token.requires_grad
    found = torch.autograd.grad(
        chained.pred_boxes[:, 1].sum(), mixed.student.embeddings.search_position_embeddings, retain_graph=True
    )[0]
    carried = mixed.student(
        **{**batch, "search_pixel_values": batch["search_pixel_values"][:, 0], "search_boxes": None}
    )
    again = mixed.student(**{**second, "memory": carried.memory})
    expected = torch.autograd.grad(again.pred_boxes.sum(), mixed.student.embeddings.search_position_embeddings)[0]
    assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_identity_student_has_nothing_to_learn_on_any_path():
    """Over chained frames: no mimicking loss and no gradient of guidance, exactly."""
    teacher = make_tracker(3)
    plan = StagePlan.even(3, 3)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan, track_weight=0.0).train()
    for path in all_paths(3):
        output = mixed(paths=[path] * 2, **make_batch())
        assert output.loss_dict["mimicking"].item() == 0.0
        for name, gradient in gradients(mixed, output.loss).items():
            assert gradient is None or gradient.abs().max() == 0, (path, name)


def test_no_token_is_eliminated_while_compressing():
    mixed, counts = make_mixed(make_tracker(4, elimination_layers=[1, 2]), [2, 2]), []
    for layer in (*mixed.teacher.layers, *mixed.student.layers):
        layer.register_forward_hook(lambda _, __, state: counts.append(state.hidden_states.shape[1]))
    for path in all_paths(2):
        mixed(paths=[path] * 2, **make_batch())
    assert set(counts) == {sum(SIZES.values())}


@pytest.mark.parametrize("widths", WIDTHS)
def test_activation_checkpointing_changes_nothing(widths):
    mixed, batch = make_mixed(make_tracker(4), [1, 3], changes=WIDTHS[widths]), make_batch()
    plain = {path: mixed(paths=[path] * 2, **batch).loss for path in all_paths(2)}
    plain_gradients = {path: gradients(mixed, loss) for path, loss in plain.items()}
    mixed.activation_checkpointing_enable()
    for path in all_paths(2):
        loss = mixed(paths=[path] * 2, **batch).loss
        assert_close(loss, plain[path], atol=1e-6, rtol=1e-6)
        for name, gradient in gradients(mixed, loss).items():
            if gradient is not None:
                assert_close(gradient, plain_gradients[path][name], atol=1e-5, rtol=1e-4)


# Learning


GROUPS = {
    "track": ({"guidance_weight": 0, "mimicking_weight": 0}, ["focal", "giou", "l1"]),
    "guidance": ({"track_weight": 0, "mimicking_weight": 0}, ["guidance_map", "guidance_giou", "guidance_l1"]),
    "mimicking": ({"track_weight": 0, "guidance_weight": 0}, ["mimicking"]),
}


@pytest.mark.parametrize("group", GROUPS)
def test_each_loss_falls_by_itself(group):
    weights, names = GROUPS[group]
    mixed = make_mixed(make_tracker(4), [1, 3], changes={"initialization": "random"}, **weights)
    before, after = overfit(mixed, 100, 3e-3, make_batch(8, frames=2))
    assert list(before) == names
    for name in names:
        assert after[name] < 0.8 * before[name], (name, before, after)


@pytest.fixture(scope="module")
def trained_teacher():
    """A teacher that knows the eight chains of frames: one that does not contradicts their labels."""
    teacher, batch = make_tracker(4, spread=0.02).train(), make_batch(8, frames=2)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(150):
        loss = teacher(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.eval()


def test_eight_chains_are_learnt(trained_teacher, tmp_path):
    """A plan that is not even, a narrower student; what was learnt saves, loads strictly, is itself bit for bit, and tracks."""
    plan = StagePlan.from_sizes([1, 3])
    torch.manual_seed(5)
    student, _ = build_student(trained_teacher, plan, "random", **WIDTHS["unlike"])
    for name, module in student.named_modules():  # of the teacher's head, which knows them, nothing either
        if name.startswith("head") and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    batch = make_batch(8, frames=2)
    before, after = overfit(MixedTracker(student, trained_teacher, plan).train(), 200, 6e-3, batch)
    assert sum(after.values()) < 0.4 * sum(before.values()), (before, after)

    student.eval().save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        ours, theirs = student(**batch), loaded(**batch)
    for name in ("loss", "pred_boxes", "score_logits", "size_map", "offset_map"):
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(ours.memory.temporal_token, theirs.memory.temporal_token)
    frames = np.random.default_rng(0).integers(0, 256, (5, 80, 100, 3), dtype=np.uint8)
    session = loaded.start(frames[0], [40, 30, 20, 16])
    assert all(np.isfinite(session.update(frame).box).all() for frame in frames[1:])


def test_memory_of_another_width_is_refused():
    """A student's token does not fit its wider teacher."""
    teacher = make_tracker(2)
    student, _ = build_student(teacher, StagePlan.even(2, 1), **WIDTHS["unlike"])
    inputs = {name: value for name, value in make_batch(frames=1).items() if name != "search_boxes"}
    memory = copy.deepcopy(student.eval())(**inputs).memory
    with pytest.raises(
        ValueError, match=r"`memory` must hold a temporal token of shape \(2, 1, 32\), got shape \(2, 1, 16\)"
    ):
        teacher(**inputs, memory=memory)
