"""SIGTERM and Ctrl-C, noted while a run trains and obeyed at the next step."""

import functools
import os
import signal
import sys
import threading
import urllib.error
import urllib.request

import jax

from ecg_jax.errors import INTERRUPTED
from ecg_jax.runtime import hosts

# What a program ends with whose run is not finished (EX_TEMPFAIL): to a scheduler, and to `&&`, 0
# would be the end of the job.
UNFINISHED = 75
NOTICES = ("maintenance-event", "preempted")  # of Google Cloud's metadata server
CALM = ("NONE", "FALSE")
POLL_SECONDS = 5.0


class Stop:
    """SIGTERM, as schedulers send it before they take a machine back, and Ctrl-C.

    While updates are made it is noted in `asked`, so that the state can be saved. Before and after
    there is nothing to save: a process that is alone ends at once, with `status`. A second Ctrl-C
    does not wait for the step.
    """

    def __init__(self):
        self.training = False
        self.status, self.by = UNFINISHED, "SIGTERM"
        self._preemption = hosts.Preemption()
        self._alone = jax.process_count() == 1  # several leave SIGTERM to JAX
        if threading.current_thread() is threading.main_thread():
            if self._alone:
                signal.signal(signal.SIGTERM, self._note)
            signal.signal(signal.SIGINT, self._interrupt)
        heed_notices()

    def _interrupt(self, *_: object) -> None:
        if not self.training or self.status == INTERRUPTED:
            raise KeyboardInterrupt
        self.status, self.by = INTERRUPTED, "Ctrl-C"
        if self._alone:
            self._preemption.note()
        else:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX finds a step that all can stop at

    def _note(self, *_: object) -> None:
        self._preemption.note()
        if not self.training:
            print("stopped by SIGTERM: the same command goes on from here")
            sys.exit(UNFINISHED)

    @property
    def asked(self) -> bool:
        return self._preemption.asked

    def at(self, step: int) -> bool:
        """Whether to stop at this step, which all processes answer alike."""
        return self._preemption.at(step)


@functools.cache
def heed_notices() -> None:
    """On Google Cloud, a notice that the machine is about to be taken back, or maintained, becomes
    SIGTERM. Each host asks its own metadata server, which `GCE_METADATA_HOST` names elsewhere."""
    server = os.environ.get("GCE_METADATA_HOST", "")
    if not server and hosts.cluster(os.environ) == "tpu":
        server = "metadata.google.internal"
    if server:
        threading.Thread(target=_heed, args=(server,), name="notices", daemon=True).start()


def _heed(server: str) -> None:
    pause = threading.Event()
    while not any(_notice(server, name) for name in NOTICES):
        pause.wait(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _notice(server: str, name: str) -> bool:
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode().strip().upper() not in CALM
    except (urllib.error.URLError, OSError):
        return False
