"""Compression of MixFormerV2: two templates, prediction tokens, distributions, and a score that only a teacher teaches."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan, build_student, draw_path
from ct_hf.models import MixFormerV2Config, MixFormerV2Model

from .tiny import all_paths, gradients


NARROW = {"hidden_size": 16, "intermediate_size": 48}
WIDTHS = {"equal": {}, "unlike": NARROW}
BRANCHES = {"score branch": True, "no score branch": False}
PLAN = StagePlan((0, 1, 3, 6), (0, 1, 2, 3))


def make_teacher(layers=6, score_branch=True, seed=0, spread=0.1):
    """A tracker whose weights are spread out, so that every layer and token says something of its own."""
    torch.manual_seed(seed)
    config = MixFormerV2Config(
        template_size=32,
        search_size=64,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_bins=16,
        score_branch=score_branch,
    )
    model = MixFormerV2Model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2e6
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
    return model.eval()


def make_batch(size=8, seed=0):
    """Normalised crops of noise with random labels within them."""
    generator = torch.Generator().manual_seed(seed)
    center = 0.3 + 0.4 * torch.rand(size, 2, generator=generator)
    extent = 0.2 + 0.3 * torch.rand(size, 2, generator=generator)
    return {
        "template_pixel_values": torch.randn(size, 2, 3, 32, 32, generator=generator),
        "search_pixel_values": torch.randn(size, 3, 64, 64, generator=generator),
        "template_boxes": torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(size, 2, 4).contiguous(),
        "search_boxes": torch.cat([center, extent], dim=1),
    }


@pytest.mark.parametrize("score_branch", BRANCHES.values(), ids=BRANCHES)
def test_identity_student_has_nothing_to_learn_from_the_teacher(score_branch):
    """On every path: no mimicking loss, no guidance beyond rounding, and a gradient of exactly zero."""
    teacher, plan = make_teacher(3, score_branch), StagePlan.even(3, 3)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan, track_weight=0.0).train()
    names = {"guidance_distribution", "guidance_giou", "guidance_l1", "mimicking"}
    for path in all_paths(3):
        output = mixed(paths=[path] * 2, **make_batch(2))
        assert set(output.loss_dict) == names | ({"guidance_score"} if score_branch else set())
        assert output.loss_dict["mimicking"].item() == 0.0
        # Not GIoU: a random tracker's right edge may be left of its left one, and a box without area overlaps nothing.
        for name in set(output.loss_dict) - {"guidance_giou"}:
            assert output.loss_dict[name].item() == pytest.approx(0, abs=1e-5), name
        for name, gradient in gradients(mixed, output.loss).items():
            assert gradient is None or not gradient.any(), (path, name)


def test_mimicking_compares_templates_search_and_prediction_tokens():
    """Each group counts a third, however many tokens it has."""
    teacher = make_teacher(6)
    student, _ = build_student(teacher, PLAN, "leading")
    mixed = MixedTracker(student, teacher, PLAN, mimicking_weight=1.0).train()
    batch = make_batch(2)
    pixels = {name: value for name, value in batch.items() if name != "search_boxes"}
    with torch.no_grad():
        ours, theirs = student.embed(**pixels), teacher.embed(**pixels)
        expected = []
        for stage in range(3):
            for index in PLAN.student_stage(stage):
                ours = student.layers[index](ours)
            for index in PLAN.teacher_stage(stage):
                theirs = teacher.layers[index](theirs)
            squares = (ours.hidden_states - theirs.hidden_states) ** 2
            expected.append(sum(part.mean() for part in squares.split([2 * 4, 16, 4], dim=1)) / 3)
        terms = mixed(paths=[(True,) * 3] * 2, **batch).loss_dict
    torch.testing.assert_close(terms["mimicking"], sum(expected) / 3)


def test_score_branch_has_no_label():
    """Of ground truth it learns nothing, of the teacher it does."""
    teacher = make_teacher(6)
    student, _ = build_student(teacher, PLAN, "leading")
    for weights, learns in (({"guidance_weight": 0.0}, False), ({}, True)):
        mixed = MixedTracker(student, teacher, PLAN, mimicking_weight=0.0, **weights).train()
        found = gradients(mixed, mixed(paths=[(True,) * 3] * 8, **make_batch()).loss)
        for name, gradient in found.items():
            if name.startswith("student.head.score."):
                assert (gradient is not None and gradient.any().item()) == learns, name


GROUPS = {
    "track": ({"guidance_weight": 0, "mimicking_weight": 0}, ["giou", "l1"]),
    "guidance": (
        {"track_weight": 0, "mimicking_weight": 0},
        ["guidance_distribution", "guidance_score", "guidance_giou", "guidance_l1"],
    ),
    "mimicking": ({"track_weight": 0, "guidance_weight": 0}, ["mimicking"]),
}


def overfit(mixed, steps, learning_rate=3e-3):
    """Losses of the student's own path on eight fixed pairs, before and after training on random paths."""
    batch, stages = make_batch(), mixed.plan.num_stages

    def losses():
        with torch.no_grad():
            return {
                name: value.item() for name, value in mixed(paths=[(True,) * stages] * 8, **batch).loss_dict.items()
            }

    before = losses()
    optimizer = torch.optim.AdamW(mixed.parameters(), lr=learning_rate)
    for step in range(steps):
        path = draw_path(min(1.0, 0.5 + step / steps), stages, 0, step)
        loss = mixed(paths=[path] * 8, **batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before, losses()


@pytest.fixture(scope="module")
def trained_teacher():
    """A teacher that knows the eight pairs: one that does not contradicts their labels."""
    teacher, batch = make_teacher(6).train(), make_batch()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(150):
        loss = teacher(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.eval()


def fresh_student(teacher, **changes):
    """A student that knows nothing of its teacher's, not even of its head."""
    torch.manual_seed(5)
    student = type(teacher)(teacher.config.for_student(PLAN.student_cuts[-1], **changes))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return student


@pytest.mark.parametrize("group", GROUPS)
def test_each_loss_falls_by_itself(group, trained_teacher):
    weights, names = GROUPS[group]
    mixed = MixedTracker(fresh_student(trained_teacher), trained_teacher, PLAN, **weights).train()
    before, after = overfit(mixed, steps=100)
    assert list(before) == names
    for name in names:
        assert after[name] < 0.8 * before[name], (name, before, after)


@pytest.mark.parametrize("widths", WIDTHS)
def test_eight_pairs_are_learnt(widths, trained_teacher):
    torch.manual_seed(9)
    student = fresh_student(trained_teacher, **WIDTHS[widths])
    before, after = overfit(MixedTracker(student, trained_teacher, PLAN).train(), steps=200)
    assert sum(after.values()) < 0.4 * sum(before.values()), (before, after)


@pytest.mark.parametrize("changes", [{"intermediate_size": 16}, NARROW], ids=["narrow MLP", "narrow"])
def test_student_saves_loads_and_tracks(changes, tmp_path):
    teacher = make_teacher(6)
    student, _ = build_student(teacher, PLAN, **changes)
    mixed = MixedTracker(student, teacher, PLAN).train()
    overfit(mixed, steps=2)
    student.eval().save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.state_dict().keys() == student.state_dict().keys()
    assert all(torch.equal(tensor, student.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    batch = make_batch(2)
    with torch.no_grad():
        output = mixed(paths=[(True,) * 3] * 2, **batch) if widths_are_equal(student, teacher) else student(**batch)
        for other in (student(**batch), loaded(**batch)):
            assert torch.equal(other.pred_boxes, output.pred_boxes) and torch.equal(other.score, output.score)
    frames = np.random.default_rng(0).integers(0, 256, (4, 80, 100, 3), dtype=np.uint8)
    sessions = [model.start(frames[0], [40.0, 30.0, 20.0, 16.0]) for model in (student, loaded)]
    for frame in frames[1:]:
        tracks = [session.update(frame) for session in sessions]
        assert np.array_equal(tracks[0].box, tracks[1].box) and tracks[0].score == tracks[1].score
        assert np.isfinite(tracks[0].box).all()


def widths_are_equal(student, teacher):
    return student.config.hidden_size == teacher.config.hidden_size


def test_narrow_mlp_keeps_the_strongest_neurons():
    """What the four-layer student of B with S's MLP is built by."""
    teacher = make_teacher(8)
    plan = StagePlan.even(8, 4)
    student, report = build_student(teacher, plan, intermediate_size=16)
    sliced = {f"layers.{layer}.mlp.{name}" for layer in range(4) for name in ("fc1.weight", "fc1.bias", "fc2.weight")}
    assert set(report.sliced) == sliced and not report.random
    assert report.layers == {0: 1, 1: 3, 2: 5, 3: 7}
    for ours, theirs in report.layers.items():
        narrow, wide = student.layers[ours].mlp, teacher.layers[theirs].mlp
        strength = wide.fc1.weight.norm(dim=1) * wide.fc2.weight.norm(dim=0)
        kept = strength.argsort(descending=True)[:16].sort().values
        assert torch.equal(narrow.fc1.weight, wide.fc1.weight[kept])
        assert torch.equal(narrow.fc1.bias, wide.fc1.bias[kept])
        assert torch.equal(narrow.fc2.weight, wide.fc2.weight[:, kept])
    assert torch.equal(student.head.dense.weight, teacher.head.dense.weight)


def test_narrow_head_is_cut_at_the_same_channels_everywhere():
    """Layer, norm and next layer of the head lose the same channels; whole bins stay."""
    teacher = make_teacher(6)
    student, _ = build_student(teacher, PLAN, hidden_size=16)
    kept = ((torch.arange(16) + 0.5) * 2).long()
    ours, theirs = student.head, teacher.head
    assert torch.equal(ours.dense.weight, theirs.dense.weight[kept][:, kept])
    assert torch.equal(ours.dense_norm.weight, theirs.dense_norm.weight[kept])
    assert torch.equal(ours.bins.weight, theirs.bins.weight[:, kept])
    assert torch.equal(ours.bins_norm.weight, theirs.bins_norm.weight)


def test_unlike_students_are_refused():
    teacher = make_teacher(6)
    for changes, message in (
        ({"search_size": 80}, "`search_size` of the student is 80 but the teacher's is 64"),
        ({"template_size": 48}, "`template_size` of the student is 48"),
        ({"num_templates": 1}, "`num_templates` of MixFormerV2 must be 2"),
        ({"num_bin": 8}, "`num_bin` is not a field of MixFormerV2Config"),
    ):
        with pytest.raises(ValueError, match=message):
            build_student(teacher, PLAN, **changes)


@pytest.mark.parametrize(
    ("branch", "changes", "message"),
    [
        (True, {"num_bins": 8}, "`num_bins` of the student is 8"),
        (False, {"score_branch": True}, "`score_branch` of the"),
    ],
)
def test_guidance_between_unlike_heads_is_refused(branch, changes, message):
    teacher = make_teacher(6, branch)
    student, _ = build_student(teacher, PLAN, **changes)
    with pytest.raises(ValueError, match=message):
        MixedTracker(student, teacher, PLAN).train()(paths=[(True,) * 3] * 2, **make_batch(2))
