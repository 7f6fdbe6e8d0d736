"""One recording that knows its leads, rate and units: of a file in any format, or of an array.

    recording = ecg_jax.read("record.xml")
    recording = ecg_jax.from_array(samples, leads=["I", "II"], rate=250, units="mV")

Nothing here needs JAX.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from tfds_builders import checks, formats
from tfds_builders.errors import RecordError
from tfds_builders.formats.found import Found, checked, per_microvolt
from tfds_builders.formats.placed import place
from tfds_builders.records import to_recording

MISSING_SHARE = 0.02  # of a window that may be missing at its end: a sample more or less
_LOOKS = 50  # samples a second that the limb leads are checked by
_MOST = 32_767  # microvolts that an ECG spans at most


class Window(NamedTuple):
    """What a network is given: int16 [T, 12] microvolts, lead_mask bool [12], and what was done to
    the recording for it, a sentence each."""

    ecg: np.ndarray
    lead_mask: np.ndarray
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A recording as it was found, at its own rate.

    Attributes:
      microvolts: float64 [T, 12], leads in the order of `LEADS`; zeros where one is missing.
      lead_mask: bool [12].
      rate: Hz.
      name: the file's, or what the caller calls it.
      format: such as "GE MUSE", or "array".
      derived: leads that were computed from others.
      notes: what was left out or taken for something else, a sentence each.
      statements: what the file itself says of the ECG, in words. No figure uses it.
      ecg_samples: how many samples are of the patient; a calibration pulse may follow.
    """

    microvolts: np.ndarray
    lead_mask: np.ndarray
    rate: float
    name: str
    format: str
    derived: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    ecg_samples: int = 0

    @property
    def seconds(self) -> float:
        return len(self.microvolts) / self.rate

    @property
    def leads(self) -> list[str]:
        return [name for name, there in zip(LEADS, self.lead_mask, strict=True) if there]

    @property
    def missing(self) -> list[str]:
        return [name for name, there in zip(LEADS, self.lead_mask, strict=True) if not there]

    def describe(self) -> str:
        """What was found, in lines for a terminal."""
        spans = np.ptp(self.microvolts[: self.ecg_samples], axis=0)[self.lead_mask]
        lines = [
            f"{self.name}: {self.format}, {self.seconds:g} s at {self.rate:g} Hz",
            f"  leads    {', '.join(self.leads)}",
            f"  spans    {spans.min():,.0f} to {spans.max():,.0f} uV",
        ]
        if self.missing:
            lines.append(f"  missing  {', '.join(self.missing)}")
        lines += [f"  note     {note}" for note in self.notes]
        lines += [f"  says     {statement}" for statement in self.statements]
        return "\n".join(lines)

    def window(self, rate: int, seconds: float, start: float = 0.0, *, pad: bool = False) -> Window:
        """The stretch that a network takes, at its rate.

        Args:
          rate: Hz; another than the recording's is reached by anti-aliased resampling.
          seconds: how long.
          start: where it begins, in seconds.
          pad: whether a shorter recording is filled up with zeros, as in evaluations.

        Raises:
          UserError: the recording is too short, or does not fit 16-bit microvolts there.
        """
        first, length = round(start * self.rate), round(seconds * self.rate)
        end = self.ecg_samples or len(self.microvolts)
        there = max(min(end - first, length), 0)
        if start < 0 or not there:
            raise UserError(f"{self.name}: nothing at {start:g} s of {end / self.rate:g} s")
        if there < (1 - MISSING_SHARE) * length and not pad:
            after = f" from {start:g} s on" if start else ""
            raise UserError(
                f"{self.name}: {there / self.rate:.4g} s{after}, the model takes {seconds:g} s "
                "(pad=True, or --pad, fills up with zeros)"
            )
        try:
            made = to_recording(
                self.microvolts[first : first + there], LEADS, self.rate, rate, Path(self.name)
            )
        except RecordError as error:
            raise UserError(str(error)) from None
        samples = round(seconds * rate)
        ecg = np.zeros((samples, len(LEADS)), np.int16)
        ecg[: min(samples, len(made.ecg))] = made.ecg[:samples]
        ecg[:, ~self.lead_mask] = 0
        notes = []
        if self.rate != rate:
            notes.append(f"resampled from {self.rate:g} to {rate} Hz")
        if there < length:
            notes.append(f"zeros for the last {(length - there) / self.rate:.3g} s")
        if end > first + length or first:
            notes.append(f"{start:g} to {start + seconds:g} s of {end / self.rate:.4g} s")
        return Window(ecg, self.lead_mask, tuple(notes))


def read(
    path: str | Path,
    *,
    rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
    limb_leads: str = "checked",
) -> Recording:
    """Reads a recording of any format that `tfds_builders.formats` knows.

    Args:
      path: the file; of a WFDB record its header, or its name without a suffix.
      rate, units, leads: what CSV and NPY do not say: Hz; "mV", "uV" or the size of one step, such
        as "4.88 uV"; and the names of the columns. Other formats say all three.
      limb_leads: "checked" refuses leads I to aVF that contradict Einthoven's law; "as_given".

    Raises:
      UserError: no such file, no known format, or anything that leaves samples or leads in doubt.
    """
    path = Path(path)
    try:
        found = formats.read(path, formats.Stated(rate, units, leads))
        return _recording(found, path.name, limb_leads)
    except RecordError as error:
        raise UserError(str(error)) from None


def from_array(
    samples: np.ndarray,
    *,
    leads: Sequence[str],
    rate: float,
    units: str,
    name: str = "array",
    limb_leads: str = "checked",
) -> Recording:
    """A recording of numbers [samples, leads].

    Args:
      samples: of any number type, [T, n].
      leads: n names.
      rate: Hz.
      units: "mV", "uV", "V", or the size of one step, such as "4.88 uV".
      name: what errors and results call it.
      limb_leads: as of `read`.

    Raises:
      UserError: another shape, an amplitude that no ECG has in these units, or as `read`.
    """
    samples = np.asarray(samples)
    try:
        step = per_microvolt(units, Path(name))
        if samples.dtype.kind not in "iuf":
            raise RecordError(f"{name}: {samples.dtype} are no samples")
        whole = samples.dtype.kind != "f"
        microvolts = samples.astype(np.float64) * step
        found = Found(microvolts, tuple(leads), float(rate), "array", step if whole else 0.0)
        return _recording(checked(found, Path(name)), name, limb_leads)
    except RecordError as error:
        raise UserError(str(error)) from None


def _recording(found: Found, name: str, limb_leads: str) -> Recording:
    """Raises RecordError where no ECG looks so."""
    if limb_leads not in ("checked", "as_given"):
        raise UserError(f"limb_leads={limb_leads!r}: choose checked or as_given")
    placed = place(found, Path(name))
    own = placed.microvolts[: found.ecg_samples or len(placed.microvolts)]
    span = float(np.ptp(own, axis=0).max())
    if span < checks.MIN_AMPLITUDE_UV:
        raise RecordError(
            f"{name}: the largest lead spans {span:.3g} uV, no ECG is below "
            f"{checks.MIN_AMPLITUDE_UV} uV: is the unit wrong?"
        )
    usual = float(np.percentile(np.abs(own - np.median(own, axis=0)), 99))
    if usual > _MOST:
        raise RecordError(
            f"{name}: leads swing by {usual / 1000:,.0f} mV, no ECG does: is the unit wrong?"
        )
    if limb_leads == "checked":
        few = own[:: max(1, int(found.rate) // _LOOKS)]
        try:
            checks.check_limb_leads(few, placed.lead_mask, within=2 * found.resolution)
        except RecordError as error:
            raise RecordError(f"{name}: {error}") from None
    return Recording(
        placed.microvolts,
        placed.lead_mask,
        found.rate,
        name,
        found.format,
        placed.derived,
        placed.notes,
        found.statements,
        found.ecg_samples or len(placed.microvolts),
    )
