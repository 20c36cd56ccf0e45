"""The log: one line per step, also after a torn line and a resume; TensorBoard holds the same numbers."""

import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mimic_wds.training.trackers import LOG_NAME, TENSORBOARD_NAME, LogRecord, Trackers, loss_summary, read_log


def record(step: int, loss: float, skipped: str = "") -> LogRecord:
    return LogRecord(
        step=step,
        epoch=step / 4,
        loss=loss,
        lr=0.1,
        grad_norm=2.0,
        pairs_per_s=64.0,
        loader_wait=0.25,
        skipped=skipped,
    )


def test_a_resumed_run_repeats_no_step(tmp_path, capsys):
    with Trackers(tmp_path, 0, 10) as trackers:
        for step in (1, 2, 3, 4, 5):
            trackers.log(record(step, 1 / step))
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    with Trackers(tmp_path, 3, 10) as trackers:
        trackers.log(record(4, 0.5))
        trackers.log(record(5, 0.4))
    lines = read_log(tmp_path / LOG_NAME)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in lines] == [1, 1 / 2, 1 / 3, 0.5, 0.4]
    assert capsys.readouterr().out.count("step") == 7


def test_every_line_is_strict_json_and_says_what_was_skipped(tmp_path, capsys):
    with Trackers(tmp_path, 0, 10) as trackers:
        trackers.log(record(1, math.nan, "loss"))
    (line,) = (tmp_path / LOG_NAME).read_text().splitlines()
    values = json.loads(line, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
    assert values["loss"] is None
    assert values["skipped"] == "loss"
    assert "SKIPPED: loss not finite" in capsys.readouterr().out


def test_tensorboard_holds_the_same_losses(tmp_path):
    with Trackers(tmp_path, 0, 10) as trackers:
        for step in (1, 2, 3):
            trackers.log(record(step, 1 / step))
    board = EventAccumulator(str(tmp_path / TENSORBOARD_NAME)).Reload()
    losses = [(event.step, round(event.value, 6)) for event in board.Scalars("loss")]
    assert losses == [(1, 1.0), (2, 0.5), (3, 0.333333)]


def test_loss_summary_compares_the_first_line_with_the_last_ones(tmp_path):
    with Trackers(tmp_path, 0, 10) as trackers:
        for step, loss in enumerate([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2], start=1):
            trackers.log(record(step, loss))
    assert loss_summary(tmp_path / LOG_NAME) == "loss 1.000 -> 0.300"
