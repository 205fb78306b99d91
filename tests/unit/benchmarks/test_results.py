"""Benchmark reports: statistics with known answers, and pages that keep what is not theirs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import publish, results
from benchmarks.results import Bar, Report, at_least, at_most, figure, paired_ratio, ratio


def report() -> Report:
    return Report(
        name="demo",
        command="make bench",
        machine={"cores": "2"},
        versions={"python": "3.11"},
        figures=[figure("kill", "dssync", "re-form", "ms", [40.0, 50.0, 60.0])],
        ratios=[ratio("kill", "re-form", ("dssync", [1.0, 1.0]), ("peer", [2.0, 2.0]))],
        bars=[at_most("re-form", 50.0, 100.0, "ms")],
    )


def test_a_figure_is_made_of_values_that_were_seen() -> None:
    found = figure("kill", "dssync", "re-form", "ms", list(range(1, 201)))

    assert (found.n, found.min, found.median, found.p99, found.max) == (200, 1, 100.5, 198, 200)


@pytest.mark.parametrize("samples", [[], [1.0, math.inf], [math.nan]])
def test_no_figure_is_made_of_nothing(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="are no finite measurements"):
        figure("kill", "dssync", "re-form", "ms", samples)


def test_the_interval_of_a_ratio_holds_the_truth_and_repeats() -> None:
    random = np.random.default_rng(1)
    ours, peer = (("a", random.normal(mean, 1.0, 400)) for mean in (20.0, 10.0))

    found = ratio("case", "time", ours, peer)

    assert found.low < 2.0 < found.high
    assert found.high - found.low < 0.15
    assert found == ratio("case", "time", ours, peer)
    assert found != ratio("case", "time", ours, peer, seed=1)


def test_noise_that_hits_both_halves_of_a_pair_cancels() -> None:
    noise = np.random.default_rng(1).uniform(1.0, 10.0, 100)

    found = paired_ratio("case", "time", ("a", 1.03 * noise), ("b", noise))

    assert [found.ratio, found.low, found.high] == pytest.approx([1.03, 1.03, 1.03])


def test_bars_say_what_was_promised() -> None:
    assert at_most("p50", 101.0, 100.0, "ms") == Bar("p50", "≤ 100 ms", 101.0, False)
    assert at_least("speed", 2.0, 2.0, "") == Bar("speed", "≥ 2", 2.0, True)


def test_a_report_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    path = results.save(report(), tmp_path / "bench")

    again = results.read(path)
    assert json.loads(path.read_bytes())["ratios"][0]["ratio"] == 0.5
    assert (list(again.figures), list(again.ratios), list(again.bars)) == (
        report().figures,
        report().ratios,
        report().bars,
    )


def test_publishing_rewrites_one_block_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Title\n\n<!-- begin demo -->\nstale\n<!-- end demo -->\n\nProse.\n")

    publish.publish(report(), page, tmp_path)

    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- begin demo -->\n| Case | Subject |")
    assert text.endswith("`make bench` on cores 2; python 3.11.\n<!-- end demo -->\n\nProse.\n")
    assert "| kill | dssync | re-form | ms | 3 | 40 | 50 | 60 | 60 |" in text
    assert "| kill | re-form | dssync / peer | 0.5 | 0.5 to 0.5 |" in text
    assert "| re-form | ≤ 100 ms | 50 | yes |" in text
    assert "stale" not in text


def test_a_page_without_the_block_gets_one_and_then_keeps_it() -> None:
    first = publish.with_block("", "demo", "one")

    assert first == "# Benchmarks\n\n## demo\n\n<!-- begin demo -->\none\n<!-- end demo -->\n"
    assert publish.with_block(first, "demo", r"\1") == first.replace("one", r"\1")


def test_the_same_measurements_draw_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        publish.plot_distributions(tmp_path / name, "Re-form", "ms", {"dssync": [1, 2, 3]})

    drawing = (tmp_path / "a.svg").read_text()
    assert drawing == (tmp_path / "b.svg").read_text()
    assert drawing.startswith("<?xml")
