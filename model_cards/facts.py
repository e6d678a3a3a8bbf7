"""What the cards of this folder say, each a function of its own; `render.py` writes them."""

from dataclasses import dataclass, field
from typing import Any

from ct_hf.compression import StagePlan, stage_table
from ct_hf.compression.student import source_layers
from ct_hf.hub import TrackerCard


@dataclass(frozen=True)
class Student:
    """
    A card, and the tracker that it describes.

    Args:
        family: Family of the teacher, as `ct-hf convert` calls it; `"teacher"` for one that ships here.
        variant: Configuration of the teacher, as the original calls it; the folder of one that ships here.
        layers: Layers of the student.
        card: What its card says.
        overrides: Fields in which the student is unlike its teacher.
    """

    family: str
    variant: str
    layers: int
    card: TrackerCard
    overrides: dict[str, Any] = field(default_factory=dict)


NO_WEIGHTS = (
    "**Recipe only, no weights.** Nobody has trained it with this library, so nothing of its accuracy or speed is measured "
    "here, and there is nothing to load. Once somebody has trained and pushed it, `AutoModel.from_pretrained` will load it."
)
STEPS = (
    "The steps are the paper's 500 epochs of 60,000 pairs, at the 256 pairs a step of the authors' released code (8 devices of "
    "32); the paper says 128, which makes twice as many. Weights of the losses, the replacement schedule, optimizer and data, "
    "as many pairs of each set, are the paper's."
)
DATA = (
    "The training splits of LaSOT, TrackingNet, GOT-10k and COCO, as in the paper. None of them is in this repository; "
    "[docs/datasets.md](../docs/datasets.md) says how each is read and converted."
)
DATA_LICENSES = (
    "- **Training data:** GOT-10k is under CC-BY-NC-SA-4.0; COCO's annotations are under CC-BY-4.0 and its images under the "
    "terms of Flickr; for LaSOT we found no licence that allows to share it; TrackingNet's we have not read."
)
LIMITS = (
    "Not trained, so where it fails is not known. A student repeats its teacher's failures and adds its own, most where few "
    "layers must do much: distractors, long absences, fast change. Its data are videos and photographs from the web, and kinds of "
    "target, places and people that these show seldom it will follow worse; nobody has examined by how much. It follows whatever "
    "or whoever its box shows: what that is used for is its user's to answer for."
)
PAPER_COLUMNS = ("LaSOT", "LaSOText", "TNL2K", "TrackingNet", "UAV123", "FPS", "Speed-up")
PAPER_TABLE_1 = {
    "OSTrack-256": (69.1, 47.4, 54.3, 83.1, 68.3, 105),
    2: (60.4, 40.4, 48.5, 78.2, 62.5, 346),
    3: (64.9, 44.6, 52.6, 81.6, 65.4, 267),
    4: (66.1, 45.7, 53.6, 82.1, 67.4, 228),
    6: (67.5, 46.7, 54.7, 82.9, 67.9, 162),
    8: (68.4, 47.2, 55.2, 83.3, 68.2, 127),
}
PAPER_TABLE_2 = {
    "MixFormerV2-B": (70.6, 50.6, 57.4, 83.4, 69.9, 165),
    "MixFormerV2-S": (60.6, 43.6, 48.3, 75.8, 65.8, 325),
    "CT-M-S": (62.0, 44.5, 50.2, 77.7, 66.9, 325),
}


def reported(number: int, rows: dict[str, tuple[float, ...]], remark: str = "") -> str:
    """A part of a table of the paper."""
    lines = [("Tracker", *PAPER_COLUMNS), (":--", *["--:"] * len(PAPER_COLUMNS))]
    teacher_fps = next(iter(rows.values()))[-1]
    lines += [(name, *map(str, figures), f"{figures[-1] / teacher_fps:.2f}x") for name, figures in rows.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\nTable {number} of the [paper](https://huggingface.co/papers/2409.17564), as it stands in its submission to "
        "NeurIPS 2024: AUC in per cent, and frames per second of the model's forward pass on an RTX 2080 Ti. Its authors "
        f"measured this with their code and weights; we measured none of it.{remark}"
    )


def recipe(family: str, variant: str, checkpoint: str, teacher: str, plan: str, out: str, further: str = "") -> str:
    """From an original checkpoint to a student: a block of Python, and the command."""
    layers = plan.rpartition(" ")[2]
    return f"""Convert the original checkpoint; the student is what the command below will train:

```python
from ct_hf.compression import StagePlan, build_student
from ct_hf.conversion import convert_checkpoint

teacher, report = convert_checkpoint("{family}", "{variant}", "{checkpoint}")
student, initialization = build_student(teacher, StagePlan.even({plan}))
teacher.save_pretrained("{teacher}")
```

Train it, on eight devices:

```bash
accelerate launch --num_processes 8 -m ct_hf.cli compress --teacher {teacher} --num_stages {layers}{further} \\
    --train lasot:data/LaSOT trackingnet:data/TrackingNet got10k:data/GOT-10k coco:data/COCO --eval videos/val \\
    --max_steps 117188 --per_device_train_batch_size 32 --learning_rate 4e-5 --lr_scheduler_type constant \\
    --max_grad_norm 0.1 --output_dir {out}
```

The weights come to `{out}/student`, with a card of what was measured in place of this one. `--eval` takes sequences of your own to
judge it on, and `--dry_run` says size, cost and memory first."""


def stages(plan: StagePlan, remarks: str) -> str:
    """The table of stages, and what is to be said of them."""
    return f"{stage_table(plan, source_layers(plan, 'skip'))}\n\n{remarks}"


def weights_license(remark: str) -> str:
    """What is known of the licence of weights that do not exist yet."""
    return f"- **Weights:** there are none to license. Those of a student depend on its teacher's: {remark}\n{DATA_LICENSES}"


def ostrack(layers: int) -> Student:
    """A student of OSTrack-256, of the paper's Table 1."""
    plan = StagePlan.even(12, layers)
    uneven = "Twelve does not divide by eight: four stages of one layer and four of two alternate, as evenly as possible.\n  "
    authors = (
        f"\n\nThe authors' own student loads as it is: `ct-hf convert --family compresstracker --variant vitb_256_{layers} "
        "--checkpoint FILE --out ct-ostrack`."
    )
    retrained = (
        " A user who trained CT-OSTrack-4 with the authors' code reported 64.8 on LaSOT (issue 7 of their repository)."
    )
    return Student(
        "ostrack",
        "vitb_256_mae_32x4_ep300",
        layers,
        TrackerCard(
            name=f"CT-OSTrack-{layers}",
            about=f"{NO_WEIGHTS}\n\nA student of OSTrack-256 (ViT-B, 12 layers, without candidate elimination) with {layers} layers "
            "of its width, one of the five of the paper's Table 1.",
            recipe=recipe(
                "ostrack",
                "vitb_256_mae_32x4_ep300",
                "OSTrack_ep0300.pth.tar",
                "ostrack-256",
                f"12, {layers}",
                f"ct-ostrack-{layers}",
            )
            + ("" if layers == 8 else authors),
            reported=reported(
                1,
                {"OSTrack-256": PAPER_TABLE_1["OSTrack-256"], f"CT-OSTrack-{layers}": PAPER_TABLE_1[layers]},
                retrained if layers == 4 else "",
            ),
            notes=STEPS,
            stages=stages(
                plan,
                f"""- **What a layer is.** All twelve blocks are alike and take and return the same 64 + 256 tokens, so any run of them is a stage.
  {uneven if layers == 8 else ""}Layers are counted from 0.
- **What is no layer.** Patches, position tables, the final norm and the head, which the student takes from its teacher.
- **Where it starts.** Each student layer is the last teacher layer of its stage (the paper's Table 5: skip layers beat the
  leading ones and chance).
- **Candidate elimination.** A teacher converted from a checkpoint with it (`vitb_256_mae_ce_32x4_ep300`) keeps all tokens while
  it teaches; the student eliminates none unless its configuration says so.""",
            ),
            data=DATA,
            limits=LIMITS,
            licenses=weights_license(
                "OSTrack's repository is under MIT, but it starts from MAE's ViT-B, whose repository is under CC-BY-NC-4.0. Read "
                "both before you share a student."
            ),
            license="unknown",
        ),
    )


def sutrack() -> Student:
    """A student of SUTrack-B224."""
    return Student(
        "sutrack",
        "sutrack_b224",
        4,
        TrackerCard(
            name="CT-SUTrack-4",
            about=f"{NO_WEIGHTS}\n\nA student of SUTrack-B224 with 4 of its 24 layers.",
            recipe=recipe(
                "sutrack", "sutrack_b224", "SUTRACK_ep0180.pth.tar", "sutrack-b224", "24, 4", "ct-sutrack-4"
            ),
            reported="The [paper](https://huggingface.co/papers/2409.17564)'s abstract names a student of SUTrack that reaches an AUC of "
            "72.2 % on LaSOT, about 99 % of its teacher's, 2.42 times as fast. It does not say how many layers that one has, so it may "
            "be another than this; its authors measured that, we did not.",
            notes=f"""{STEPS} They are its settings for OSTrack; those for its student of SUTrack were not at hand.

Both templates and their boxes are needed in training: they tell target and background of a template apart. The task head has no
label here and learns from the teacher's alone. Sentences come as `text_features`, CLIP features of shape (batch, 768); without
them the stored feature of no sentence is used, as the original does for all of its data that has no text. A session takes one as
`model.start(frame, box, text_features=encode_sentences(["the white car in front"])[0])`, with `encode_sentences` of
`ct_hf.models.language`.""",
            stages=stages(
                StagePlan.even(24, 4),
                """- **What a layer is.** The attention blocks of Fast-iTPN (24 in the base, 12 in the tiny, 40 in the large encoder) are alike in
  shape and take and return the same tokens, so any run of them can be a stage: 6 layers a stage here, 3 of the tiny and 10 of
  the large encoder.
- **What is no layer.** The blocks before them see nothing beyond their own patch of 16x16 pixels: no attention, two merges of
  2x2, and little of the cost. They are part of the embedding, with positions, kinds of token and text, and the student keeps
  them as they are, as it keeps the last norm, the head and the task head.
- **Size.** A layer has 3.42 million parameters of the teacher's 89.6 million; the student has 21.3 million. CLIP is in neither:
  what its text tower says of no sentence is computed once, at conversion, and stored.
- **Where it starts.** Attention and MLP are added by learnt factors of each channel (LayerScale), so one layer taken out of a
  stage moves the tokens about a sixth as far as the stage of six does. Distances of hidden states are large at first: the
  mimicking loss is not near zero at the beginning, as it is where a single layer stands for few.""",
            ),
            data=f"{DATA} SUTrack itself was trained on more, with depth, thermal and event images and with sentences.",
            limits=f"{LIMITS}\n\nSessions read RGB frames. Crops of six channels, whose last three are depth, thermal or event images, are "
            "taken by the model's forward; a student that is trained on RGB alone has not seen them.",
            licenses=weights_license("SUTrack's licence we have not read, nor that of the Fast-iTPN and CLIP in it."),
            license="unknown",
        ),
    )


def odtrack() -> Student:
    """A student of ODTrack-B."""
    return Student(
        "odtrack",
        "baseline",
        4,
        TrackerCard(
            name="CT-ODTrack-4",
            about=f"{NO_WEIGHTS}\n\nA student of ODTrack's `baseline` (ViT-B, 12 layers, templates of 192 pixels, search crops of 384 "
            "pixels) with 4 layers of equal width. It keeps what makes its teacher ODTrack: several templates, chosen over the whole "
            "video, and the temporal token that each frame hands to the next.",
            recipe=recipe(
                "odtrack",
                "baseline",
                "ODTrack_ep0300.pth.tar",
                "odtrack-b",
                "12, 4",
                "ct-odtrack-4",
                " --search_frames 2",
            ),
            notes=f"""{STEPS} They are its settings for OSTrack; those for its student of ODTrack were not at hand.

Over chained frames teacher and mixed path each carry their own token, detached, as they would when tracking alone. A student
trained on single frames learns the token of a first frame only, so the command trains it on chained ones (`--search_frames 2`, as
many as the original takes): `search_pixel_values` of shape `(batch, frames, 3, 384, 384)`.""",
            stages=stages(
                StagePlan.even(12, 4),
                """`StagePlan.even(12, 4)`, the plan of CompressTracker-4. The cuts lie right before layers 3, 6 and 9, in which the teacher
eliminates candidates when it tracks alone; while compressing it keeps all tokens, so that every cut joins the same 1 + 144
tokens a template + 576 of the search crop. The student eliminates none unless its configuration says so.""",
            ),
            data=DATA,
            limits=LIMITS,
            licenses=weights_license(
                "we found no licence in ODTrack's repository. Ask its authors before you share a student."
            ),
            license="unknown",
        ),
    )


def mixformer() -> Student:
    """A student of MixFormerV2-B in the shape of S, of the paper's Table 2."""
    return Student(
        "mixformerv2",
        "mixformerv2_b",
        4,
        TrackerCard(
            name="CT-M-S",
            about=f"{NO_WEIGHTS}\n\nA student of MixFormerV2-B with 4 of its 8 layers and an MLP of 768 instead of 3072 neurons, the shape of "
            "MixFormerV2-S's layers, at B's own input sizes.",
            recipe="""A narrower MLP is none of the command's settings, so this is a script, started on eight devices by
`accelerate launch --num_processes 8 ct_m_s.py`:

```python
from ct_hf.compression import CompressionArguments, CompressionTrainer, StagePlan, build_student
from ct_hf.conversion import convert_checkpoint
from ct_hf.data import open_source, stream_pairs

teacher, report = convert_checkpoint("mixformerv2", "mixformerv2_b", "mixformerv2_base.pth.tar")
plan = StagePlan.even(8, 4)
student, initialization = build_student(teacher, plan, intermediate_size=768)
places = ("lasot:data/LaSOT", "trackingnet:data/TrackingNet", "got10k:data/GOT-10k", "coco:data/COCO")
pairs = stream_pairs({place: open_source(place) for place in places}, teacher.config, seed=42)
# The rest is the paper's by default.
args = CompressionArguments(output_dir="ct-m-s", max_steps=117_188, save_total_limit=2)
trainer = CompressionTrainer(model=student, teacher_model=teacher, args=args, train_dataset=pairs, plan=plan)
trainer.train()
trainer.save_model("ct-m-s/student")
```""",
            reported=reported(2, PAPER_TABLE_2),
            notes=f"""{STEPS}

The score branch has no label here: it learns from the teacher's scores alone. The original trains it afterwards, on pairs with
and without the target; such pairs are not drawn here.""",
            stages=stages(
                StagePlan.even(8, 4),
                """- **What a layer is.** The blocks are alike in shape and take and return the same tokens (two templates, search crop, four
  prediction tokens), so any run of them can be a stage; eight part evenly into four.
- **What is no layer.** Patches, position tables, prediction tokens and the head are the teacher's and stay as wide. There is
  no norm between the last layer and the head.
- **The MLP.** Of each MLP the 768 neurons with the largest product of incoming and outgoing norm are kept. The tokens stay 768
  wide, so stages join directly and no projections are needed.
- **Size.** 16.0 of the teacher's 58.6 million parameters, 7.7 of its 28.1 GMACs a frame with the templates counted; while
  tracking, their keys and values are made only when a template changes.
- **Not MixFormerV2-S.** The released S looks at templates of 112 and search crops of 224 pixels. A student sees its teacher's
  crops, so this one looks at 128 and 288.""",
            ),
            data=DATA,
            limits=f"{LIMITS}\n\nThe second template is renewed every 200 frames, the original's interval for LaSOT; it sets 10 for GOT-10k "
            "and 25 for TrackingNet, which is `update_interval` of the configuration.",
            licenses=weights_license(
                "MixFormerV2's repository is under MIT; what its weights were pretrained from is not said there."
            ),
            license="unknown",
        ),
        {"intermediate_size": 768},
    )


def demo() -> Student:
    """What `make demo` makes of the small teacher as it was halfway; the figures are those of the README."""
    conditions = "cpu, float32, batch size 1, 1 thread, trackers in turns, clock: crop, forward pass and box of a frame that was decoded before"
    rows = [
        ("teacher", 12, 2_390_885, 0.2559616, 67.073, 84.8, 81.4, 74.187),
        ("student", 4, 1_067_877, 0.1044096, 62.620, 81.0, 75.0, 139.697),
        ("from scratch", 4, 1_067_877, 0.1044096, 11.083, 11.4, 5.3, 134.478),
    ]
    columns = ("name", "layers", "parameters", "gmacs", "auc", "precision", "norm_precision", "fps")
    return Student(
        "teacher",
        "examples/assets/teacher_9500",
        4,
        TrackerCard(
            name="demo-student",
            place="outputs/compress/student",
            about="**Made by your own run, not released.** `make demo` compresses the [small teacher](teacher.md) as it was halfway, after "
            "9,500 steps, and leaves the weights in `outputs/compress/student`, with a card of that run. The lines below load them from there.",
            recipe="From a clone of this repository, in some minutes on two processor cores:\n\n```bash\nmake demo\n```",
            results=[dict(zip(columns, row, strict=True), conditions=conditions) for row in rows],
            evaluated_on="40 rendered sequences of another seed (10042)",
            hardware="two processor cores",
            training={
                "Steps": 350,
                "Pairs a step": 32,
                "Learning rate": "0.004, cosine",
                "Gradients": "clipped at 1",
                "Replacement": "progressive, 0.5 to 1, a path for each batch; the student alone in the last 10 %",
                "Loss weights": "ground truth 1, teacher's prediction 1, its hidden states 0.2 (mse, all stages)",
                "Seed": 42,
                "Time": "5.4 minutes after installation, 2.1 of them the compression, on cores with AVX-512 and products in bf16",
            },
            command="accelerate launch --num_cpu_threads_per_process 2 examples/compress.py --from_scratch",
            notes="One run. *From scratch* is a tracker of the student's shape, trained for as many steps on the same pairs without the "
            "teacher.",
            stages=stages(
                StagePlan.even(12, 4), "A third as deep as its teacher and as wide; layers are counted from 0."
            ),
            data="Sequences rendered on the fly by `ct_hf.data.ProceduralWorld` from drawn textures. No footage and no photographs; its "
            "teacher has seen [photographs](teacher.md#data).",
            limits="Small, made to show a compression. On 22 real sequences that none of them has seen, the teacher reaches an AUC of 57.2, "
            "this student 53.1 (92.7 %) and the one from scratch 9.6; a box that never moves scores 26.9 there. It has its "
            "teacher's [limits](teacher.md#limits-and-biases) and learnt from rendered sequences alone: what real video has and "
            "they lack, it follows worse. It follows whatever or whoever its box shows: what that is used for is its user's to "
            "answer for.",
            licenses="- **Weights:** Apache-2.0, as the [teacher's](teacher.md#licences).\n- **Training data:** rendered by ct_hf "
            "(Apache-2.0); for what the teacher was trained on see its card.",
            license="apache-2.0",
        ),
    )


STUDENTS: dict[str, Student] = {
    **{f"ct-ostrack-{layers}": ostrack(layers) for layers in (2, 3, 4, 6, 8)},
    "ct-sutrack-4": sutrack(),
    "ct-odtrack-4": odtrack(),
    "ct-m-s": mixformer(),
    "demo-student": demo(),
}
"""By the name of the card's file."""
