import pytest
import torch
from torch.testing import assert_close

from ct_hf.compression import InitializationReport, StagePlan, build_student, initialize_student
from ct_hf.compression.student import source_layers

from .tiny import NARROW, make_config, make_tracker


CHANNELS = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31]  # 16 evenly spaced of 32


def layer_of(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "layers" else None


@pytest.mark.parametrize(
    ("plan", "initialization", "sources"),
    [
        (StagePlan.even(12, 4), "skip", {0: 2, 1: 5, 2: 8, 3: 11}),
        (StagePlan.even(12, 2), "skip", {0: 5, 1: 11}),
        (StagePlan.even(12, 8), "skip", {0: 0, 1: 2, 2: 3, 3: 5, 4: 6, 5: 8, 6: 9, 7: 11}),
        (StagePlan.from_sizes([2, 2, 6, 2]), "skip", {0: 1, 1: 3, 2: 9, 3: 11}),
        (StagePlan((0, 4, 6), (0, 2, 3)), "skip", {0: 1, 1: 3, 2: 5}),
        (StagePlan.even(12, 4), "leading", {0: 0, 1: 1, 2: 2, 3: 3}),
        (StagePlan.even(12, 4), "random", {}),
    ],
)
def test_layers_come_from_the_teacher(plan, initialization, sources):
    teacher = make_tracker(plan.teacher_cuts[-1], hidden_size=16, intermediate_size=16)
    student, report = build_student(teacher, plan, initialization)
    assert report.layers == sources
    assert len(student.layers) == plan.student_cuts[-1]
    weights = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        layer = layer_of(name)
        if layer is None:
            assert torch.equal(tensor, weights[name]), name
        elif sources:
            assert torch.equal(tensor, weights[name.replace(f"layers.{layer}.", f"layers.{sources[layer]}.")]), name
        else:
            assert not any(
                torch.equal(tensor, weights[name.replace(f"layers.{layer}.", f"layers.{index}.")])
                for index in range(len(teacher.layers))
                if tensor.unique().numel() > 1
            ), name


def test_report_lists_every_tensor_once():
    teacher = make_tracker(4)
    for initialization in ("skip", "leading", "random"):
        for unlike in ("slice", "random"):
            for changes in ({}, NARROW, {"head_type": "corner"}, {"intermediate_size": 128}):
                student, report = build_student(teacher, StagePlan.even(4, 2), initialization, unlike, **changes)
                listed = [*report.copied, *report.sliced, *report.random]
                assert sorted(listed) == sorted(student.state_dict()), (initialization, unlike, changes)
                if unlike == "random":
                    assert not report.sliced


def test_report_in_words():
    _, report = build_student(make_tracker(4), StagePlan.even(4, 2))
    total = len(report.copied)
    assert str(report) == f"{total} tensors copied, 0 sliced, 0 random; student layer <- teacher layer: 0 <- 1, 1 <- 3"
    assert "none" in str(InitializationReport())


def test_random_layers_are_random_and_the_rest_is_copied():
    teacher, plan = make_tracker(4), StagePlan.even(4, 2)
    _, report = build_student(teacher, plan, "random")
    assert report.random and all(name.startswith("layers.") for name in report.random)
    assert report.copied and not any(name.startswith("layers.") for name in report.copied)


def test_student_is_a_copy():
    """Training the student never touches the teacher."""
    teacher = make_tracker(2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student, _ = build_student(teacher, StagePlan.even(2, 2))
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_student_attends_as_its_teacher_was_told_to():
    teacher = make_tracker(4)
    teacher.set_attn_implementation("eager")
    student, _ = build_student(teacher, StagePlan.even(4, 2))
    assert student.config._attn_implementation == "eager"


def test_identity_student_is_its_teacher(tiny_inputs):
    teacher = make_tracker(3)
    student, _ = build_student(teacher, StagePlan.even(3, 3))
    with torch.no_grad():
        assert torch.equal(student.eval()(**tiny_inputs).pred_boxes, teacher(**tiny_inputs).pred_boxes)


def test_student_has_no_elimination_and_no_drop_path_unless_asked():
    teacher = make_tracker(4, elimination_layers=[1], drop_path_rate=0.2)
    student, _ = build_student(teacher, StagePlan.even(4, 2))
    assert student.config.elimination_layers == [] and student.config.drop_path_rate == 0.0
    asked, _ = build_student(teacher, StagePlan.even(4, 2), elimination_layers=[1], drop_path_rate=0.1)
    assert asked.config.elimination_layers == [1] and asked.config.drop_path_rate == 0.1
    assert teacher.config.elimination_layers == [1] and teacher.config.num_hidden_layers == 4


# Unlike widths


@pytest.fixture
def narrowed():
    """Teacher of width 32 with 2 heads of 16; student of width 16 with 1 head of 16; 48 of 64 neurons."""
    teacher = make_tracker(4)
    student, report = build_student(teacher, StagePlan.even(4, 2), num_attention_heads=1, **NARROW)
    return teacher, student, report


def test_channels_are_evenly_spaced(narrowed):
    """The same channels of the stream everywhere: patches, positions, norms, rows and columns that face the stream."""
    teacher, student, report = narrowed
    theirs, ours = teacher.state_dict(), student.state_dict()
    for name in ("embeddings.patch_projection.weight", "embeddings.patch_projection.bias", "layernorm.weight"):
        assert torch.equal(ours[name], theirs[name][CHANNELS]), name
    name = "embeddings.search_position_embeddings"
    assert torch.equal(ours[name], theirs[name][:, :, CHANNELS])
    assert torch.equal(ours["layers.0.layernorm_before.bias"], theirs["layers.1.layernorm_before.bias"][CHANNELS])
    name = "head.score.convolutions.0.weight"
    assert torch.equal(ours[name], theirs[name][:, CHANNELS])
    assert "head.score.convolutions.1.weight" in report.copied and name in report.sliced


def test_heads_are_kept_whole(narrowed):
    """One of two heads: the second, channels 16 to 31."""
    teacher, student, _ = narrowed
    theirs, ours = teacher.layers[3].attention, student.layers[1].attention
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(getattr(ours, name).weight, getattr(theirs, name).weight[16:][:, CHANNELS]), name
        assert torch.equal(getattr(ours, name).bias, getattr(theirs, name).bias[16:]), name
    assert torch.equal(ours.o_proj.weight, theirs.o_proj.weight[CHANNELS][:, 16:])


def test_as_many_narrower_heads_are_cut_evenly():
    teacher = make_tracker(2)
    student, _ = build_student(teacher, StagePlan.even(2, 2), **NARROW)
    assert student.config.num_attention_heads == 2
    assert torch.equal(
        student.layers[0].attention.k_proj.bias, teacher.layers[0].attention.k_proj.bias[CHANNELS]
    )  # every second channel of each head


def test_strongest_neurons_are_kept(narrowed):
    """The 48 of 64 neurons with the largest product of norms, in their order; the same ones in both linear layers."""
    teacher, student, _ = narrowed
    theirs, ours = teacher.layers[1].mlp, student.layers[0].mlp
    strength = [theirs.fc1.weight[index].norm() * theirs.fc2.weight[:, index].norm() for index in range(64)]
    kept = sorted(sorted(range(64), key=lambda index: -strength[index])[:48])
    assert torch.equal(ours.fc1.weight, theirs.fc1.weight[kept][:, CHANNELS])
    assert torch.equal(ours.fc1.bias, theirs.fc1.bias[kept])
    assert torch.equal(ours.fc2.weight, theirs.fc2.weight[CHANNELS][:, kept])
    assert torch.equal(ours.fc2.bias, theirs.fc2.bias[CHANNELS])


def test_dead_neurons_change_nothing_when_cut(tiny_inputs):
    """A teacher half of whose neurons do nothing is cut without loss."""
    teacher = make_tracker(2)
    with torch.no_grad():
        for layer in teacher.layers:
            layer.mlp.fc2.weight[:, ::2] = 0
    student, report = build_student(teacher, StagePlan.even(2, 2), intermediate_size=32)
    assert {name.split(".")[-2] for name in report.sliced} == {"fc1", "fc2"}
    with torch.no_grad():
        assert_close(student.eval()(**tiny_inputs).score_map, teacher(**tiny_inputs).score_map)


def test_unlike_tensors_may_stay_random():
    teacher, plan = make_tracker(2), StagePlan.even(2, 2)
    torch.manual_seed(3)
    untouched = type(teacher)(teacher.config.for_student(2, **NARROW))
    torch.manual_seed(3)
    student, report = build_student(teacher, plan, unlike="random", **NARROW)
    assert {"embeddings.patch_projection.weight", "layers.0.mlp.fc1.weight"} <= set(report.random)
    for name, tensor in student.state_dict().items():
        expected = untouched if name in report.random else teacher
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_wider_tensors_stay_random():
    teacher = make_tracker(2)
    _, report = build_student(teacher, StagePlan.even(2, 2), intermediate_size=128)
    assert {name.split(".")[-2] for name in report.random} == {"fc1", "fc2"}
    assert "layers.0.mlp.fc2.bias" in report.copied


# What is refused


def test_overrides_must_be_fields():
    with pytest.raises(ValueError, match="`hidden_width` is not a field of OSTrackConfig"):
        build_student(make_tracker(2), StagePlan.even(2, 2), hidden_width=16)


def test_overrides_must_fit_the_teacher():
    with pytest.raises(ValueError, match="`search_size` of the student is 96 but the teacher's is 64"):
        build_student(make_tracker(2), StagePlan.even(2, 2), search_size=96)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"initialization": "first"}, '"skip", "leading" or "random", got \'first\''), ({"unlike": "pad"}, "`unlike`")],
)
def test_unknown_choices(arguments, message):
    teacher = make_tracker(2)
    student = type(teacher)(make_config(2))
    with pytest.raises(ValueError, match=message):
        initialize_student(student, teacher, StagePlan.even(2, 2), **arguments)


@pytest.mark.parametrize(("heads", "own"), [(2, 4), (8, 2), (8, 4), (4, 1)])
def test_more_or_wider_heads_than_the_teacher_has_are_not_copies(heads, own):
    """Channels are spread evenly then; none stands twice, as two that are equal would stay so for ever."""
    teacher = make_tracker(2, num_attention_heads=heads)
    student, _ = build_student(teacher, StagePlan.even(2, 2), hidden_size=16, num_attention_heads=own)
    rows = student.layers[0].attention.q_proj.weight.detach()
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_report_names_every_tensor_that_is_not_a_copy():
    """For the log and the card."""
    student, report = build_student(make_tracker(2), StagePlan.even(2, 2), **NARROW)
    text = str(report)
    assert report.sliced
    assert all(f"sliced {name}" in text for name in report.sliced)
    assert all(f"random {name}" in text for name in report.random)


def test_layers_follow_from_the_plan():
    with pytest.raises(ValueError, match="`num_hidden_layers` of the student follows from its stages"):
        build_student(make_tracker(4), StagePlan.even(4, 2), num_hidden_layers=3)


def test_a_deeper_student_starts_as_layers_that_there_are():
    deeper = StagePlan((0, 2, 4), (0, 3, 6))
    assert list(source_layers(deeper, "skip").values()) == [0, 0, 1, 2, 2, 3]
    assert source_layers(deeper, "leading") == {0: 0, 1: 1, 2: 2, 3: 3}
