import ast
import dataclasses
import json
import math
import re

import pytest
from transformers import HfArgumentParser, TrainingArguments

from ct_hf.compression import CompressionArguments, ReplacementSchedule, TrackerTrainingArguments


@pytest.fixture
def arguments(tmp_path):
    def arguments(cls=CompressionArguments, **changes):
        return cls(output_dir=str(tmp_path), use_cpu=True, **changes)

    return arguments


def own_fields(cls):
    """Fields that a class adds or whose default it changes."""
    inherited = {field.name: field for field in dataclasses.fields(cls.__mro__[1])}
    return [field for field in dataclasses.fields(cls) if field is not inherited.get(field.name)]


@pytest.mark.parametrize("cls", [TrackerTrainingArguments, CompressionArguments])
def test_documented_defaults_are_the_defaults(cls):
    """New fields in the list of arguments, changed ones in the note."""
    inherited = {field.name for field in dataclasses.fields(cls.__mro__[1])}
    entry = r"^ +(\w+) \(`[^`]+`, \*optional\*(?:, defaults to `(.+?)`)?\):"
    documented = dict(re.findall(entry, cls.__doc__, re.MULTILINE))
    new = {field.name: field.default for field in own_fields(cls) if field.name not in inherited}
    assert documented.keys() == new.keys()
    for name, default in new.items():
        assert (ast.literal_eval(documented[name]) if documented[name] else None) == default, name


def test_note_tells_what_differs_from_transformers(arguments):
    note = TrackerTrainingArguments.__doc__.split("> Defaults that differ")[1].replace("\n    >", "")
    told = dict(re.findall(r"`(\w+)` ([^,]+?)(?:,| and)", note))
    args = arguments(TrackerTrainingArguments)
    for name, value in told.items():
        actual = getattr(args, name)
        if name == "report_to":
            assert actual in ([], "none", ["none"])
        elif isinstance(actual, bool | list):
            assert str(actual).replace("'", '"') == value, name
        elif isinstance(actual, str):
            assert json.dumps(actual) == value, name
        else:
            assert actual == float(value), name
    added, told_otherwise = {"learning_rate_drop", "nan_loss"}, {"hub_private_repo"}
    changed = {field.name for field in own_fields(TrackerTrainingArguments)} - added - told_otherwise
    assert changed <= told.keys()


@pytest.mark.parametrize("cls", [TrackerTrainingArguments, CompressionArguments])
def test_every_own_field_has_help(cls):
    for field in own_fields(cls):
        assert field.metadata["help"].endswith("."), field.name


def test_recipe_of_the_paper(arguments):
    """Section 4.1; the released code agrees but for weight decay, which it puts on norms and biases too."""
    args = arguments()
    assert (args.learning_rate, args.weight_decay, args.max_grad_norm) == (4e-5, 1e-4, 0.1)
    assert (args.lr_scheduler_type, args.learning_rate_drop) == ("constant", 0.8)
    assert args.optim.startswith("adamw_torch")
    assert (args.track_weight, args.guidance_weight, args.mimicking_weight) == (1.0, 1.0, 0.2)
    assert args.schedule == ReplacementSchedule(0.5, 0.1, 0.1)
    assert (args.initialization, args.path_granularity, args.train_batch_norm) == ("skip", "batch", False)
    assert args.num_stages is None and args.stage_sizes is None


def test_defaults_that_compression_needs(arguments):
    args = arguments()
    assert args.remove_unused_columns is False and args.label_names == ["search_boxes"]
    assert args.ddp_find_unused_parameters is True
    assert args.logging_nan_inf_filter is False
    assert args.accelerator_config.dispatch_batches is False


def test_users_choice_wins(arguments):
    args = arguments(ddp_find_unused_parameters=False, accelerator_config={"split_batches": True}, report_to="all")
    assert args.ddp_find_unused_parameters is False and args.accelerator_config.split_batches is True
    assert arguments(activation_checkpointing=True).ddp_find_unused_parameters is True


def test_schedule_follows_the_fields(arguments):
    args = arguments(p_init=0.3, warmup_share=0.2, finetune_share=0.4)
    assert args.schedule == ReplacementSchedule(0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_init": 0.0}, r"`p_init` must be in \(0, 1\], got 0.0"),
        ({"p_init": 1.5}, "`p_init`"),
        ({"warmup_share": -0.1}, "`warmup_share`"),
        ({"warmup_share": 0.5, "finetune_share": 0.5}, "`finetune_share`"),
        ({"path_granularity": "token"}, "`path_granularity` must be one of batch, sample, got 'token'"),
        ({"track_weight": -1.0}, "must be finite, not negative"),
        ({"guidance_weight": math.inf}, "must be finite, not negative"),
        ({"track_weight": 0.0, "guidance_weight": 0.0, "mimicking_weight": 0.0}, "one of them positive"),
        ({"learning_rate_drop": 0.0}, r"`learning_rate_drop` must be in \(0, 1\], got 0.0"),
        ({"learning_rate_drop": 1.1}, "`learning_rate_drop`"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor` is for models of language, got 0.1"),
        ({"neftune_noise_alpha": 5.0}, "`neftune_noise_alpha` is for models of language, got 5.0"),
    ],
)
def test_values_out_of_range(arguments, changes, message):
    with pytest.raises(ValueError, match=message):
        arguments(**changes)


@pytest.mark.parametrize("cls", [TrackerTrainingArguments, CompressionArguments])
def test_arguments_are_plain_values(arguments, cls):
    args = arguments(cls)
    values = json.loads(args.to_json_string())
    assert values["learning_rate"] == 4e-5 and values["learning_rate_drop"] == 0.8
    assert "schedule" not in values and values.keys() == {
        field.name for field in dataclasses.fields(cls) if field.init
    }
    assert isinstance(args.to_sanitized_dict(), dict)


def test_compilation_is_asked_for_as_ever_but_done_layer_by_layer(arguments):
    """Accelerate must not compile the whole: each path would be a graph."""
    plain = arguments()
    assert not plain.compile_layers
    for asked, backend in (({"torch_compile": True}, "inductor"), ({"torch_compile_backend": "eager"}, "eager")):
        args = arguments(**asked)
        assert args.compile_layers and args.layer_compile_backend == backend
        assert args.torch_compile is False and args.layer_compile_mode is None
    mode = "max-autotune-no-cudagraphs"
    args = arguments(torch_compile_mode=mode)
    assert args.compile_layers and args.layer_compile_mode == mode and args.torch_compile_mode is None
    with pytest.raises(ValueError, match="`torch_compile_mode` reduce-overhead records CUDA graphs"):
        arguments(torch_compile_mode="reduce-overhead")


def test_command_line(tmp_path):
    parser = HfArgumentParser(CompressionArguments)
    words = f"--output_dir {tmp_path} --use_cpu --stage_sizes 2-2-2 --p_init 0.7 --path_granularity sample"
    (args,) = parser.parse_args_into_dataclasses((words + " --train_batch_norm --num_stages 3 --max_steps 7").split())
    assert isinstance(args, TrainingArguments) and args.stage_sizes == "2-2-2" and args.num_stages == 3
    assert args.p_init == 0.7 and args.path_granularity == "sample" and args.train_batch_norm and args.max_steps == 7
    assert args.learning_rate == 4e-5 and args.label_names == ["search_boxes"]
    with pytest.raises(SystemExit):
        parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--initialization", "first"])


def test_the_newest_checkpoint_can_be_asked_for_on_a_command_line(tmp_path):
    parser = HfArgumentParser(CompressionArguments)
    for text, meant in (("True", True), ("true", True), ("outputs/checkpoint-5", "outputs/checkpoint-5")):
        arguments = ["--output_dir", str(tmp_path), "--use_cpu", "--resume_from_checkpoint", text]
        (args,) = parser.parse_args_into_dataclasses(arguments)
        assert args.resume_from_checkpoint == meant


def test_help_shows_every_field():
    text = HfArgumentParser(CompressionArguments).format_help()
    for field in own_fields(CompressionArguments):
        assert f"--{field.name}" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"mimicking_weight": 0.0, "mimicking": "gram"}, "`mimicking`, since `mimicking_weight` is 0"),
        ({"p_init": 1.0, "warmup_share": 0.2}, "`warmup_share`, since `p_init` is 1"),
        (
            {"replacement_schedule": "linear", "finetune_share": 0.2},
            "`finetune_share`, since `replacement_schedule` is",
        ),
        (
            {"lr_scheduler_type": "cosine", "learning_rate_drop": 0.5},
            "`learning_rate_drop`, since `lr_scheduler_type`",
        ),
        ({"lr_scheduler_type": "cosine", "p_init": 1.0}, None),
    ],
)
def test_settings_that_others_make_void_are_told_once(arguments, changes, told, monkeypatch):
    warnings = []
    monkeypatch.setattr("ct_hf.compression.arguments.logger.warning", warnings.append)
    arguments(CompressionArguments, **changes)
    assert (len(warnings) == 1 and told in warnings[0]) if told else not warnings


def test_a_term_of_the_loss_is_better_when_it_is_less(arguments):
    for metric, greater in (
        ("giou", False),
        ("eval_l1", False),
        ("focal", False),
        ("iou", True),
        ("tracking_auc", True),
    ):
        assert arguments(TrackerTrainingArguments, metric_for_best_model=metric).greater_is_better is greater, metric
    told = arguments(TrackerTrainingArguments, metric_for_best_model="giou", greater_is_better=True)
    assert told.greater_is_better is True


def test_settings_of_accelerate_leave_the_sharing_of_batches_alone(arguments):
    config = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    assert arguments(TrackerTrainingArguments, accelerator_config=config).accelerator_config.dispatch_batches is False


def test_a_constant_rate_without_warm_up_is_told(arguments, caplog):
    arguments(CompressionArguments, warmup_steps=100, lr_scheduler_kwargs={"min_lr": 1})
    assert (
        "`warmup_steps`, `lr_scheduler_kwargs`, since `lr_scheduler_type` is constant (constant_with_warmup"
        in caplog.text
    )
