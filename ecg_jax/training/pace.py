"""How fast a run is: what one who pays for a pod wants to know of it."""

import contextlib
import time
from collections.abc import Iterator


class Pace:
    """Counts updates and where their time goes, from one `row` to the next.

    Steps are dispatched ahead and their metrics read one call late, so that a row's time is that
    of the devices to within a call.
    """

    def __init__(self, records: int, chips: int, use_per_record: float = 0.0):
        """A step takes `records`, on `chips` devices; `use_per_record` is the share of a second
        that one record's arithmetic takes on one of them at its peak; 0: unknown."""
        self._records, self._chips, self._use = records, chips, use_per_record
        self._total = {"input": 0.0, "checkpoint": 0.0, "validation": 0.0}
        self._steps, self._began = 0, time.perf_counter()

    @contextlib.contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Time that the loop spends on `input`, `checkpoint` or `validation`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._total[what] += time.perf_counter() - began

    def stepped(self, steps: int) -> None:
        self._steps += steps

    @property
    def age(self) -> float:
        """Seconds since the last row."""
        return time.perf_counter() - self._began

    def row(self) -> dict[str, float]:
        """Figures since the last row; none if there was no step.

        `step_seconds` and what follows from it leave out validation and checkpoints;
        `input_wait` is the share of it that the loop waited for a batch.
        """
        steps, spent = self._steps, dict(self._total)
        training = self.age - spent["checkpoint"] - spent["validation"]
        self.__init__(self._records, self._chips, self._use)
        if not steps or training <= 0:
            return {}
        rate = steps * self._records / training / self._chips
        row = {
            "pace/step_seconds": training / steps,
            "pace/ecg_per_second_per_chip": rate,
            "pace/input_wait": spent["input"] / training,
            "pace/checkpoint_seconds": spent["checkpoint"],
            "pace/validation_seconds": spent["validation"],
        }
        return row | ({"pace/model_flop_utilisation": rate * self._use} if self._use else {})
