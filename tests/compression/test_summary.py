import re

import pytest
import torch

from ct_hf.compression import MixedTracker, StagePlan, build_student, describe_compression
from ct_hf.compression.summary import activation_bytes
from ct_hf.models.cost import count_gmacs, count_parameters

from .plain import plain_terms
from .tiny import NARROW, make_tracker


@pytest.fixture
def described():
    def described(stages=2, batch_size=16, **changes):
        teacher, plan = make_tracker(4), StagePlan.even(4, stages)
        student, report = build_student(teacher, plan, **changes)
        return student, teacher, describe_compression(student, teacher, plan, report, batch_size)

    return described


def test_tells_stages_and_initialisation(described):
    _, _, text = described()
    lines = text.splitlines()
    assert lines[0] == "stages: StagePlan(2-2 -> 1-1)"
    assert "teacher layers 0-1" in lines[1] and "student layer 0" in lines[1] and "from teacher layer 1" in lines[1]
    assert "teacher layers 2-3" in lines[2] and "student layer 1" in lines[2] and "from teacher layer 3" in lines[2]
    assert re.search(r"initialisation: \d+ tensors copied, 0 sliced, 0 random", text)
    _, _, text = described(initialization="random")
    assert [line.split("initialised ")[1] for line in text.splitlines()[1:3]] == ["at random"] * 2


def test_tells_size_and_cost(described):
    student, teacher, text = described()
    for name, tracker in (("teacher", teacher), ("student", student)):
        parameters, cost = count_parameters(tracker) / 1e6, count_gmacs(tracker)
        line = f"{name}: {len(tracker.layers)} layers, {parameters:.2f} M parameters, {cost:.3f} GMACs a frame"
        assert line in text.splitlines()
    assert "projections" not in text
    assert "projections while training: 0.00 M parameters" in described(**NARROW)[2]


def test_tells_memory():
    """Four numbers for each trained parameter, one for each of the teacher's, and the activations of the worst path."""
    wide = {"hidden_size": 128, "intermediate_size": 512}
    teacher, plan = make_tracker(4, **wide), StagePlan.even(4, 2)
    student, report = build_student(teacher, plan)
    static = 4 * (4 * count_parameters(student) + count_parameters(teacher)) / 2**20
    mixed = MixedTracker(student, teacher, plan)
    worst = max(activation_bytes(mixed, path) for path in [(True, True), (True, False), (False, True)]) / 2**20
    for batch_size in (64, 640):
        text = describe_compression(student, teacher, plan, report, batch_size)
        found = re.search(r"memory .*: (\d+) MiB for weights.* (\d+) MiB of activations for (\d+) pairs", text)
        assert int(found[1]) == round(static) and int(found[3]) == batch_size
        assert int(found[2]) == pytest.approx(worst * batch_size, rel=0.01, abs=1)


def test_what_is_not_guided_may_have_another_head():
    teacher, plan = make_tracker(4, head_type="corner"), StagePlan.even(4, 2)
    student, report = build_student(make_tracker(4), plan)
    with pytest.raises(ValueError, match="cannot guide"):
        describe_compression(student, teacher, plan, report, 4)
    assert "MiB of activations" in describe_compression(student, teacher, plan, report, 4, guidance_weight=0)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_trackers_as_they_were(training):
    teacher, plan = make_tracker(4), StagePlan.even(4, 2)
    student, report = build_student(teacher, plan)
    student.train(training)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    describe_compression(student, teacher, plan, report, 4)
    assert {module.training for module in student.modules()} == {training}
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


# Memory of activations


def saved_in_graph(mixed, path):
    """Bytes of all tensors that the graph of the plain computation holds for its backward pass."""
    batch = {
        "template_pixel_values": torch.zeros(1, 1, 3, 32, 32),
        "search_pixel_values": torch.zeros(1, 3, 64, 64),
        "search_boxes": torch.full((1, 4), 0.5),
    }
    loss = sum(plain_terms(mixed, path, batch).values())
    weights = {tensor.data_ptr() for tensor in (*mixed.parameters(), *mixed.teacher.parameters())}
    nodes, queue, storages = set(), [loss.grad_fn], {}
    while queue:
        node = queue.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        queue.extend(following for following, _ in node.next_functions)
        for name in dir(node):
            value = getattr(node, name) if name.startswith("_saved_") else None
            for tensor in value if isinstance(value, tuple) else (value,):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in weights:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("widths", [{}, NARROW], ids=["equal", "unlike"])
def test_activations_agree_with_the_graph(widths):
    teacher, plan = make_tracker(6), StagePlan.even(6, 3)
    mixed = MixedTracker(build_student(teacher, plan, **widths)[0], teacher, plan).train()
    for path in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        assert activation_bytes(mixed, path) == pytest.approx(saved_in_graph(mixed, path), rel=0.3), path


def test_activations_grow_with_teacher_layers_that_carry_gradient():
    """A prefix in the teacher costs nothing, teacher stages behind the first student stage cost their layers."""
    teacher, plan = make_tracker(8), StagePlan.even(8, 4)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan)
    only = [activation_bytes(mixed, tuple(stage == first for stage in range(4))) for first in (3, 2, 1, 0)]
    assert only == sorted(only) and only[0] < 0.6 * only[-1]
    assert only[0] < activation_bytes(mixed, (True,) * 4) < only[-1]


def test_activation_checkpointing_saves_memory():
    teacher, plan = make_tracker(8), StagePlan.even(8, 4)
    mixed = MixedTracker(build_student(teacher, plan)[0], teacher, plan)
    plain = activation_bytes(mixed, (True, False, False, False))
    mixed.activation_checkpointing_enable()
    assert activation_bytes(mixed, (True, False, False, False)) < 0.6 * plain
