"""The step log: written by workers, followed while it grows, judged after a kill."""

from pathlib import Path

import pytest

from benchmarks.reform.log import Step, StepLog, StepReader, reformed

ALL = frozenset({"a", "b"})


def test_a_reader_follows_logs_that_grow_and_appear(tmp_path: Path) -> None:
    reader, first = StepReader(tmp_path), StepLog(tmp_path, "a")
    first.add(0, ok=True)
    assert [(step.member, step.round) for step in reader.new()] == [("a", 0)]

    StepLog(tmp_path, "b").add(1, ok=False)
    first.add(2, ok=True)

    assert [(step.member, step.round, step.ok) for step in reader.new()] == [
        ("b", 1, False),
        ("a", 2, True),
    ]
    assert reader.new() == []


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    reader, path = StepReader(tmp_path), tmp_path / "a.1.jsonl"
    path.write_text('{"time": 1.0, "member": "a", ')
    assert reader.new() == []

    with path.open("a") as file:
        file.write('"round": 3, "ok": true}\n')

    assert reader.new() == [Step(1.0, "a", 3, True)]


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ([], None),
        ([Step(9.9, "b", 4, True), Step(10.1, "a", 4, True)], None),
        ([Step(10.1, "a", 4, True), Step(10.2, "b", 4, False)], None),
        ([Step(10.1, "a", 4, True), Step(10.2, "b", 5, True)], None),
        ([Step(10.1, "a", 0, True), Step(10.5, "b", 0, True)], 0.5),
        ([Step(10.1, "a", 0, True), Step(10.2, "a", 1, True), Step(10.5, "b", 1, True)], 0.5),
    ],
)
def test_a_kill_is_over_when_all_have_committed_one_round(
    steps: list[Step], seconds: float | None
) -> None:
    assert reformed(steps, killed_at=10.0, members=ALL) == pytest.approx(seconds)
