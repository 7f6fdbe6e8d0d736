"""Progress lines: nothing of what is done soon, the time left, and a rate without compilation."""

import io

from tqdm import tqdm

from ecg_jax.runtime import waiting


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(waiting.time, "monotonic", clock)
    with waiting.waiting(1000, "encoding") as wait:
        for seconds, count in ((25, 100), (4, 200), (4, 300), (10, 400), (30, 900)):
            clock.now += seconds
            wait.reached(count)
    lines = capsys.readouterr().err.splitlines()
    # The 25 s before the first hundred are not in the rate: 200 more took 8 s.
    assert lines == [
        "encoding: 300 of 1,000 records, 28 s left",
        "encoding: 900 of 1,000 records, 6 s left",
    ]


def test_a_bars_rate_leaves_compilation_out():
    clock = Clock()
    bar = tqdm(total=100, file=io.StringIO())
    bar._time = clock
    bar.start_t = bar.last_print_t = clock.now
    clock.now += 50
    waiting.leave_out(bar, 20)
    clock.now += 2
    bar.update(20)
    told = bar.format_dict
    assert (told["n"], told["initial"], told["elapsed"]) == (40, 20, 2)
    assert told["rate"] == 10
    bar.close()


def test_a_bar_that_shows_nothing_leaves_nothing_out():
    """Of a second process."""
    waiting.leave_out(tqdm(total=100, disable=True), 20)


def test_durations():
    told = [waiting.duration(s) for s in (3.4, 89, 91, 5000, 8000)]
    assert told == ["3 s", "89 s", "2 min", "83 min", "2 h 13 min"]
