import io

import numpy as np
import pytest
from PIL import Image

from ct_hf.compression import plot_training
from ct_hf.evaluation import save_plot

from .training import make_trainer


def history(steps=30, **more):
    return [
        {
            "step": step,
            "loss": 8.0,
            "replacement_rate": min(1.0, 0.5 + step / 40),
            "student_share": step % 3 / 2,
            "focal": 3.0 / (step + 1),
            "mimicking": 0.2,
            "iou": 0.3 + 0.01 * step,
            "grad_norm": 1.0,
            "learning_rate": 1e-3,
            "epoch": 0.1,
            "skipped_corrupt_image": 2,
            "num_input_tokens_seen": 100 * step,
            **more,
        }
        for step in range(steps)
    ]


def lines(figure):
    return [{line.get_label(): np.array(line.get_xydata()) for line in panel.lines} for panel in figure.axes]


def test_rate_terms_and_what_is_followed():
    rows = [*history(), {"step": 20, "eval_tracking_auc": 41.0}, {"step": 29, "eval_tracking_auc": 44.0}]
    rate, losses, followed = lines(plot_training(rows))
    assert set(rate) == {"replacement rate", "stages run in the student"}
    np.testing.assert_allclose(rate["replacement rate"][:, 1], [min(1.0, 0.5 + step / 40) for step in range(30)])
    assert set(losses) == {"focal", "mimicking"}
    assert followed["AUC of sequences"].tolist() == [[20, 41], [29, 44]]
    overlap = followed["overlap of training pairs"]
    assert len(overlap) == 21 and overlap[0, 1] == pytest.approx(100 * np.mean([0.3 + 0.01 * n for n in range(10)]))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_real_history_makes_a_picture(tmp_path, theme):
    trainer = make_trainer(tmp_path)
    trainer.train()
    assert all(row["pairs_per_second"] > 0 for row in trainer.state.log_history if "loss" in row)
    file = save_plot(plot_training(trainer.state.log_history, theme=theme), tmp_path / "training.png")
    image = Image.open(io.BytesIO(file.read_bytes()))
    assert image.width == 3200
    assert len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_nothing_logged_is_told():
    with pytest.raises(ValueError, match="`history` holds no log of a training step"):
        plot_training([{"train_runtime": 3.0}])
