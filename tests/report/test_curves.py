"""Curves of a training run."""

from __future__ import annotations

from matplotlib.image import imread

from datamix.report import curves


def test_curves_of_every_source_are_drawn(tmp_path):
    lines = [
        {"step": step, "loss": 1 / step, "loss/a": 2 / step, "loss/b": 3 / step, "accuracy/a": 0.5, "accuracy/b": 0.9}
        for step in (10, 20, 30)
    ]
    curves.draw(tmp_path / "two.png", ["a", "b"], "cnn on a + b", tests=lines)
    curves.draw(tmp_path / "one.png", ["a"], "cnn on a + b", tests=lines)
    two, one = (imread(tmp_path / name)[..., :3] for name in ("two.png", "one.png"))
    assert two.shape == one.shape == (396, 990, 3)
    assert (two != one).any()
    assert two.std() > 0.05


def test_the_loss_between_tests_is_drawn(tmp_path):
    lines = [{"step": 10, "loss": 1.0, "loss/a": 1.0, "accuracy/a": 0.5}]
    curves.draw(tmp_path / "with.png", ["a"], "", tests=lines, losses=[(1, 2.0), (5, 1.5), (9, 0.5)])
    curves.draw(tmp_path / "without.png", ["a"], "", tests=lines)
    drawn, other = (imread(tmp_path / name)[..., :3] for name in ("with.png", "without.png"))
    assert (drawn != other).any()


def test_a_run_of_one_test_is_drawn_too(tmp_path):
    lines = [{"step": 1, "loss": 2.3, "loss/a": 2.3, "accuracy/a": 0.1}]
    curves.draw(tmp_path / "curves.png", ["a"], "", tests=lines)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_weights_that_follow_training_are_drawn_beside_the_losses(tmp_path):
    lines = [{"step": step, "loss": 1 / step, "loss/a": 2 / step, "loss/b": 3 / step} for step in (10, 20)]
    shares = {"a": [0.5, 0.25], "b": [0.5, 0.75]}
    adapt = {"rule": "odm", "steps": [0, 10], "weights": shares, "shares": shares}
    curves.draw(tmp_path / "three.png", ["a", "b"], "cnn on a + b", tests=lines, adapt=adapt)
    three = imread(tmp_path / "three.png")[..., :3]
    assert three.shape == (396, 1485, 3)
    assert three[:, 990:].std() > 0.05


def test_a_run_is_drawn_alike_after_any_other(tmp_path):
    def draw(name: str, scale: float, num_tests: int) -> bytes:
        lines = [
            {"step": step, "loss": scale / step, "loss/a": scale, "accuracy/a": 0.5} for step in range(1, num_tests)
        ]
        curves.draw(tmp_path / name, ["a"], f"scaled by {scale}", tests=lines)
        return (tmp_path / name).read_bytes()

    first = draw("first.png", 2.0, 3)
    assert draw("other.png", 200.0, 9) != first
    assert draw("again.png", 2.0, 3) == first
