"""SIGTERM, noted while a run trains and obeyed at the next step."""

import signal
import sys
import threading

import jax

from ecg_jax.runtime import hosts


class Stop:
    """SIGTERM, as schedulers send it before they take a machine back.

    While updates are made it is noted in `asked`, so that the state can be saved. Before and after
    there is nothing to save: a process that is alone ends at once, with status 0.
    """

    def __init__(self):
        self.training = False
        self._preemption = hosts.Preemption()
        alone = jax.process_count() == 1  # several leave the signal to JAX
        if alone and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._preemption.note()
        if not self.training:
            print("stopped by SIGTERM: the same command goes on from here")
            sys.exit(0)

    @property
    def asked(self) -> bool:
        return self._preemption.asked

    def at(self, step: int) -> bool:
        """Whether to stop at this step, which all processes answer alike."""
        return self._preemption.at(step)
