"""Notices that a machine will be taken back become SIGTERM."""

import http.server
import signal
import threading

import pytest

from ecg_jax.runtime import stop


@pytest.fixture
def server():
    """Google Cloud's metadata server, of one instance: what it answers, by the last part of the
    address."""
    answers = {"maintenance-event": "NONE", "preempted": "FALSE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[self.path.rpartition("/")[2]].encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{serving.server_port}", answers
        serving.shutdown()


@pytest.mark.parametrize(
    ("name", "value"),
    [("preempted", "TRUE"), ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")],
)
def test_a_notice_becomes_sigterm(server, monkeypatch, name, value):
    address, answers = server
    monkeypatch.setenv("GCE_METADATA_HOST", address)
    monkeypatch.setattr(stop, "POLL_SECONDS", 0.05)
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        stop.heed_notices.cache_clear()
        stop.heed_notices()
        assert not heard.wait(0.5)
        answers[name] = value
        assert heard.wait(30)
    finally:
        signal.signal(signal.SIGTERM, before)
        stop.heed_notices.cache_clear()


def test_no_notice_where_no_server_answers():
    assert not stop._notice("127.0.0.1:9", "preempted")
