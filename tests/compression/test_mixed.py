from collections import Counter

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan, build_student

from .plain import plain_terms
from .tiny import (
    NARROW,
    SEARCH,
    TEMPLATE,
    WIDTHS,
    all_paths,
    gradients,
    make_batch,
    make_mixed,
    make_student,
    make_tracker,
    rows_of,
)


def assert_same_gradients(actual, expected, atol):
    """Also the same parameters are without any."""
    assert actual.keys() == expected.keys()
    assert {name for name in actual if actual[name] is None} == {name for name in expected if expected[name] is None}
    for name, gradient in expected.items():
        if gradient is not None:
            assert_close(actual[name], gradient, atol=atol, rtol=atol, msg=lambda text, name=name: f"{name}: {text}")


def calls_of(tracker):
    """Counts how often each layer, the embedding and the head of a tracker run."""
    calls = Counter()
    for index, layer in enumerate(tracker.layers):
        # At the beginning of a layer's own computation: checkpointing is between that and the hooks of the layer.
        next(layer.children()).register_forward_pre_hook(lambda *_, index=index: calls.update([index]))
    tracker.embeddings.register_forward_pre_hook(lambda *_: calls.update(["embed"]))
    tracker.head.register_forward_pre_hook(lambda *_: calls.update(["head"]))
    return calls


# The path against a computation written out plainly


def check_against_plain(mixed, path, batch, atol):
    expected = plain_terms(mixed, path, batch)
    expected_loss = sum(expected.values())
    expected_gradients = gradients(mixed, expected_loss)
    output = mixed(paths=[path] * len(batch["search_boxes"]), **batch)
    assert output.loss_dict.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(
            output.loss_dict[name], value, atol=atol, rtol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert_close(output.loss, expected_loss, atol=atol, rtol=atol)
    assert_same_gradients(gradients(mixed, output.loss), expected_gradients, atol)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("layers", "stages"), [(4, 4), (6, "2-1-3")], ids=["1-1-1-1", "2-1-3"])
def test_reused_prefix_equals_the_plain_computation(layers, stages, widths):
    """Loss and every gradient, for every path."""
    mixed, batch = make_mixed(layers, stages, student_changes=WIDTHS[widths]), make_batch()
    for path in all_paths(mixed.plan.num_stages):
        check_against_plain(mixed, path, batch, atol=1e-6)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("layers", "stages"), [(4, 4), (6, "2-1-3")], ids=["1-1-1-1", "2-1-3"])
def test_reused_prefix_equals_the_plain_computation_in_float64(layers, stages, widths):
    mixed = make_mixed(layers, stages, torch.float64, student_changes=WIDTHS[widths], mimicking_weight=0.7)
    batch = make_batch(dtype=torch.float64)
    for path in all_paths(mixed.plan.num_stages):
        check_against_plain(mixed, path, batch, atol=1e-10)


@pytest.mark.parametrize("head_type", ["center", "corner"])
def test_students_of_several_layers_a_stage(head_type):
    teacher = make_tracker(6, head_type=head_type).double()
    plan = StagePlan((0, 2, 6), (0, 1, 3))
    student, _ = build_student(teacher, plan, "leading")
    mixed = MixedTracker(student.double(), teacher, plan).train()
    for path in all_paths(2):
        check_against_plain(mixed, path, make_batch(dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("widths", WIDTHS)
def test_paths_of_samples_are_the_mean_of_single_runs(widths):
    """Loss, every gradient and every prediction in the batch's order, all paths in one batch."""
    mixed = make_mixed(4, 3, torch.float64, student_changes=WIDTHS[widths])
    paths = all_paths(3)
    paths = [paths[index] for index in (4, 0, 6, 2, 5, 1, 3)]
    batch = make_batch(len(paths), dtype=torch.float64)
    singles, sums, terms = [], Counter(), Counter()
    for row, path in enumerate(paths):
        single = mixed(paths=[path], **rows_of(batch, slice(row, row + 1)))
        singles.append(single)
        terms.update({name: value.item() / len(paths) for name, value in single.loss_dict.items()})
        for name, gradient in gradients(mixed, single.loss / len(paths)).items():
            if gradient is not None:
                sums[name] = sums[name] + gradient
    output = mixed(paths=paths, **batch)
    assert {name: value.item() for name, value in output.loss_dict.items()} == pytest.approx(terms, abs=1e-10)
    actual = gradients(mixed, output.loss)
    assert_same_gradients(actual, {name: sums.get(name) for name in actual}, atol=1e-10)
    for name in ("pred_boxes", "score_logits", "size_map"):
        assert_close(output[name], torch.cat([single[name] for single in singles]), atol=1e-10, rtol=0)


def test_identity_student_has_nothing_to_learn_from_the_teacher():
    """Zero mimicking loss and exactly zero guidance gradient on every path."""
    teacher = make_tracker(3)
    plan = StagePlan.even(3, 3)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan, track_weight=0.0).train()
    for path in all_paths(3):
        output = mixed(paths=[path] * 2, **make_batch())
        assert output.loss_dict["mimicking"].item() == 0.0
        assert output.loss_dict["guidance_map"].item() == pytest.approx(0, abs=1e-5)
        for name, gradient in gradients(mixed, output.loss).items():
            assert gradient is None or gradient.abs().max() == 0, (path, name)


# The student and what becomes of it


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("elimination", [None, [1, 2]], ids=["all tokens", "teacher with elimination"])
def test_path_of_students_is_the_exported_student(widths, elimination, tmp_path):
    """At p = 1 the projections have gone: bit for bit, in memory and after saving and loading."""
    mixed = make_mixed(4, 2, teacher_changes={"elimination_layers": elimination}, student_changes=WIDTHS[widths])
    batch = make_batch()
    with torch.no_grad():
        output = mixed(paths=[(True, True)] * 2, **batch)
        mixed.student.save_pretrained(tmp_path)
        for student in (mixed.student.eval(), AutoModel.from_pretrained(tmp_path)):
            alone = student(**batch)
            for name in ("pred_boxes", "score", "score_logits", "size_map", "offset_map"):
                assert torch.equal(output[name], alone[name]), name
            for name, value in alone.loss_dict.items():
                assert torch.equal(output.loss_dict[name], value), name


@pytest.mark.parametrize("widths", WIDTHS)
def test_evaluation_mode_is_the_student(widths):
    """Bit for bit, whatever the paths."""
    mixed, batch = make_mixed(student_changes=WIDTHS[widths]).eval(), make_batch()
    calls = calls_of(mixed.teacher)
    with torch.no_grad():
        alone = mixed.student(**batch)
        for paths in (None, [(True, False)] * 2):
            output = mixed(paths=paths, **batch)
            assert output.keys() == alone.keys() and output.loss_dict.keys() == alone.loss_dict.keys()
            assert torch.equal(output.loss, alone.loss) and torch.equal(output.pred_boxes, alone.pred_boxes)
    assert not calls
    assert mixed.config is mixed.student.config


def test_projections_exist_only_between_unlike_widths():
    assert {name.split(".")[0] for name in make_mixed().state_dict()} == {"student"}
    mixed = make_mixed(student_changes=NARROW)
    extra = {name: tuple(value.shape) for name, value in mixed.state_dict().items() if not name.startswith("student.")}
    assert extra == {
        f"{name}.{stage}.{part}": shape
        for stage in range(2)
        for name, part, shape in (
            ("to_student", "weight", (16, 32)),
            ("to_student", "bias", (16,)),
            ("to_teacher", "weight", (32, 16)),
            ("to_teacher", "bias", (32,)),
        )
    }


# The teacher


def test_teacher_is_frozen_and_unregistered():
    mixed = make_mixed()
    teachers = {id(tensor) for tensor in (*mixed.teacher.parameters(), *mixed.teacher.buffers())}
    assert not teachers & {id(tensor) for tensor in (*mixed.parameters(), *mixed.buffers())}
    assert not any("teacher" in name for name, _ in mixed.named_modules() if name.split(".")[0] != "to_teacher")
    assert all(name.startswith("student.") for name in mixed.state_dict())
    for mode in (True, False, True):
        mixed.train(mode)
        assert not any(module.training for module in mixed.teacher.modules())
        assert not any(parameter.requires_grad for parameter in mixed.teacher.parameters())


def test_teacher_handed_over_in_training_mode_is_put_to_rest():
    teacher = make_tracker(4).train()
    student, plan = make_student(teacher)
    mixed = MixedTracker(student, teacher, plan).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in mixed.teacher.parameters())


def test_teacher_with_drop_path_answers_the_same_each_time():
    """The released code leaves it in training mode, so that its targets are noisy."""
    mixed, batch = make_mixed(teacher_changes={"drop_path_rate": 0.5}), make_batch()
    for path in all_paths(2):
        assert torch.equal(mixed(paths=[path] * 2, **batch).loss, mixed(paths=[path] * 2, **batch).loss)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_training_changes_nothing_of_the_teacher(train_batch_norm):
    mixed, batch = make_mixed(train_batch_norm=train_batch_norm), make_batch()
    before = {name: value.clone() for name, value in mixed.teacher.state_dict().items()}
    optimizer = torch.optim.AdamW(mixed.parameters(), lr=1e-2)
    for path in all_paths(2):
        mixed(paths=[path] * 2, **batch).loss.backward()
        assert all(parameter.grad is None for parameter in mixed.teacher.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in mixed.teacher.state_dict().items())


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_batch_norm_of_the_student(train_batch_norm):
    """By default it runs on the statistics it was initialised with, and only its weights learn."""
    mixed, batch = make_mixed(train_batch_norm=train_batch_norm), make_batch()
    norms = {name: module for name, module in mixed.student.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    assert norms and all(norm.training is train_batch_norm for norm in norms.values())
    output = mixed(paths=[(False, True)] * 2, **batch)
    for name, norm in norms.items():
        assert torch.equal(norm.running_mean, before[name]) is not train_batch_norm, name
    found = gradients(mixed, output.loss)
    assert all(found[f"student.{name}.weight"] is not None for name in norms)
    assert not any(module.training for module in mixed.eval().modules())


# Candidate elimination


def test_no_token_is_eliminated_while_compressing():
    mixed = make_mixed(
        4, 2, teacher_changes={"elimination_layers": [1, 2]}, student_changes={"elimination_layers": [0]}
    )
    counts = []
    for layer in (*mixed.teacher.layers, *mixed.student.layers):
        layer.register_forward_hook(lambda _, __, state: counts.append(state.hidden_states.shape[1]))
    for path in all_paths(2):
        mixed(paths=[path] * 2, **make_batch())
    assert counts and set(counts) == {TEMPLATE + SEARCH}
    counts.clear()
    mixed.teacher(**make_batch())
    mixed.eval()(**make_batch())
    assert min(counts) < TEMPLATE + SEARCH, "eliminated when they run by themselves"


# What a path costs


@pytest.mark.parametrize(
    ("path", "layers_run"),
    [
        ((True, True, True, True), [1, 1, 1, 1]),
        ((False, False, False, True), [1, 1, 1, 1]),
        ((False, True, False, True), [1, 1, 2, 1]),
        ((True, False, False, False), [1, 2, 2, 2]),
    ],
)
def test_teacher_prefix_is_not_computed_twice(path, layers_run):
    """The guidance pass runs each teacher layer once, the path those behind its first student stage once more."""
    mixed = make_mixed(4, 4)
    teacher_calls, student_calls = calls_of(mixed.teacher), calls_of(mixed.student)
    mixed(paths=[path] * 2, **make_batch())
    assert [teacher_calls[layer] for layer in range(4)] == layers_run
    assert teacher_calls["embed"] == teacher_calls["head"] == 1
    assert [student_calls[layer] for layer in range(4)] == [int(value) for value in path]
    assert student_calls["embed"] == int(path[0]) and student_calls["head"] == 1


@pytest.mark.parametrize(
    ("weights", "path", "layers_run", "head"),
    [
        ({"guidance_weight": 0, "mimicking_weight": 0}, (True, True, True), [0, 0, 0], 0),
        ({"guidance_weight": 0, "mimicking_weight": 0}, (True, False, True), [0, 1, 0], 0),
        ({"guidance_weight": 0, "mimicking_weight": 0}, (False, True, True), [1, 0, 0], 0),
        ({"guidance_weight": 0, "mimicking_weight": 0}, (False, True, False), [1, 0, 1], 0),
        ({"guidance_weight": 0}, (True, True, True), [1, 1, 1], 0),
        ({"mimicking_weight": 0}, (True, True, True), [1, 1, 1], 1),
        ({"track_weight": 0}, (True, True, True), [1, 1, 1], 1),
    ],
)
def test_weight_of_zero_takes_term_and_cost_away(weights, path, layers_run, head):
    mixed = make_mixed(3, 3, **weights)
    calls = calls_of(mixed.teacher)
    output = mixed(paths=[path] * 2, **make_batch())
    assert [calls[layer] for layer in range(3)] == layers_run and calls["head"] == head
    terms = {
        "track_weight": {"focal", "giou", "l1"},
        "guidance_weight": {"guidance_map", "guidance_giou", "guidance_l1"},
        "mimicking_weight": {"mimicking"},
    }
    assert set(output.loss_dict) == set().union(*(names for weight, names in terms.items() if weight not in weights))
    assert_close(output.loss, sum(output.loss_dict.values()))


def test_without_comparison_no_teacher_runs_at_all():
    mixed = make_mixed(3, 3, guidance_weight=0, mimicking_weight=0)
    calls, batch = calls_of(mixed.teacher), make_batch()
    output = mixed(paths=[(True,) * 3] * 2, **batch)
    assert not calls
    assert_close(output.loss, mixed.student(**batch).loss)


def test_weights_multiply_their_terms():
    batch, path = make_batch(), [(True, False)] * 2
    ones = make_mixed(track_weight=1, guidance_weight=1, mimicking_weight=1)(paths=path, **batch).loss_dict
    other = make_mixed(track_weight=2, guidance_weight=3, mimicking_weight=5)(paths=path, **batch).loss_dict
    factors = {name: round((other[name] / ones[name]).item(), 4) for name in ones}
    assert factors == {
        **dict.fromkeys(("focal", "giou", "l1"), 2),
        **dict.fromkeys(("guidance_map", "guidance_giou", "guidance_l1"), 3),
        "mimicking": 5,
    }
    default = make_mixed()
    assert (default.track_weight, default.guidance_weight, default.mimicking_weight) == (1.0, 1.0, 0.2)


@pytest.mark.parametrize("widths", WIDTHS)
def test_activation_checkpointing_changes_nothing(widths):
    """Loss and gradients equal; layers that carry gradient run again in the backward pass, also the teacher's."""
    mixed, batch = make_mixed(4, 2, student_changes=WIDTHS[widths]), make_batch()
    plain = {path: mixed(paths=[path] * 2, **batch).loss for path in all_paths(2)}
    plain_gradients = {path: gradients(mixed, loss) for path, loss in plain.items()}
    mixed.activation_checkpointing_enable()
    teacher_calls, student_calls = calls_of(mixed.teacher), calls_of(mixed.student)
    expected = {
        (True, True): ([1, 1, 1, 1], [2, 2]),
        (True, False): ([1, 1, 3, 3], [2, 0]),
        (False, True): ([1, 1, 1, 1], [0, 2]),
    }
    for path in all_paths(2):
        teacher_calls.clear(), student_calls.clear()
        loss = mixed(paths=[path] * 2, **batch).loss
        assert_close(loss, plain[path], atol=1e-6, rtol=1e-6)
        assert_same_gradients(gradients(mixed, loss), plain_gradients[path], atol=1e-6)
        counts = [teacher_calls[layer] for layer in range(4)], [student_calls[layer] for layer in range(2)]
        assert counts == expected[path], path


# What is refused


@pytest.mark.parametrize(
    "paths", [[(True, True)], [(True, True)] * 3, [(True,)] * 2, [(True, True), (True, True, True)], []]
)
def test_paths_must_fit_batch_and_stages(paths):
    with pytest.raises(ValueError, match="`paths` must hold one path of 2 stages for each of 2 samples"):
        make_mixed()(paths=paths, **make_batch())


def test_path_without_student_is_refused():
    with pytest.raises(ValueError, match="`paths` holds a path without any student stage"):
        make_mixed()(paths=[(True, True), (False, False)], **make_batch())


def test_plan_is_checked():
    with pytest.raises(ValueError, match="has 6 teacher layers but the teacher has 4"):
        MixedTracker(make_tracker(2), make_tracker(4), StagePlan.even(6, 2))


def test_unlike_heads_are_refused_unless_nothing_is_guided():
    teacher = make_tracker(4, head_type="corner")
    student, plan = make_student(make_tracker(4), 2)
    with pytest.raises(ValueError, match="a CornerHead cannot guide a CenterHead.*`guidance_weight` to 0"):
        MixedTracker(student, teacher, plan)
    mixed = MixedTracker(student, teacher, plan, guidance_weight=0.0).train()
    assert mixed(paths=[(True, False)] * 2, **make_batch()).loss.isfinite()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mimicking": "l1"}, "`mimicking` must be one of mse, smooth_l1, cosine, gram, got 'l1'"),
        ({"mimicking_stages": "lasst"}, "`mimicking_stages` must be one of all, student, last, got 'lasst'"),
    ],
)
def test_misspelt_settings_are_refused(setting, message):
    teacher = make_tracker(4)
    student, plan = make_student(teacher, 2)
    with pytest.raises(ValueError, match=message):
        MixedTracker(student, teacher, plan, **setting)


def test_one_object_cannot_be_both():
    tracker = make_tracker(2)
    with pytest.raises(ValueError, match="`student` and `teacher` are one object"):
        MixedTracker(tracker, tracker, StagePlan.even(2, 2))


def test_teacher_takes_the_students_type():
    """Hub repositories in half precision load so; the student is trained in fp32."""
    teacher = make_tracker(4)
    student, plan = make_student(teacher, 2)
    mixed = MixedTracker(student, teacher.to(torch.bfloat16), plan).train()
    assert mixed(paths=[(False, True)] * 2, **make_batch()).loss.dtype == torch.float32
    mixed.double()
    assert mixed(paths=[(False, True)] * 2, **make_batch(dtype=torch.float64)).loss.dtype == torch.float64


def test_layers_of_the_teacher_itself_are_refused():
    """They would be frozen with it, and nothing would learn."""
    teacher = make_tracker(4)
    student = type(teacher)(teacher.config.for_student(2))
    student.layers = torch.nn.ModuleList([teacher.layers[1], teacher.layers[3]])
    with pytest.raises(ValueError, match=r"share \d+ tensors, such as layers.0.* Copy them by `copy.deepcopy`"):
        MixedTracker(student, teacher, StagePlan.even(4, 2))


def test_a_student_of_another_width_may_be_of_bf16():
    mixed = make_mixed(student_changes=NARROW)
    again = MixedTracker(mixed.student.to(torch.bfloat16), mixed.teacher, mixed.plan).train()
    output = again(paths=[(True, False)] * 2, **make_batch(dtype=torch.bfloat16))
    output.loss.backward()
    assert output.loss.isfinite() and again.to_teacher[0].weight.grad.isfinite().all()
