"""Folders in the published layouts, and what the builders make of them."""

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from tfds_builders import prepare
from tfds_builders.build import VERSION


@pytest.fixture
def build(tmp_path) -> Callable[..., tfds.core.DatasetBuilder]:
    """build(name, source, *options): prepares it and reads it back without the builder's code."""

    def run(name: str, source: Path, *options: str) -> tfds.core.DatasetBuilder:
        data_dir = tmp_path / "data"
        arguments = [name, "--source", str(source), "--data_dir", str(data_dir), *options]
        assert prepare.main(arguments) == 0
        rate = options[options.index("--rate") + 1] if "--rate" in options else "500"
        return tfds.builder_from_directory(data_dir / name / f"rate{rate}" / str(VERSION))

    return run


@pytest.fixture
def examples() -> Callable[[tfds.core.DatasetBuilder], dict[str, tuple[str, dict]]]:
    """examples(builder): {record id: (split, example)} of all splits."""
    return lambda builder: {
        example["record_id"].decode(): (split, example)
        for split in builder.info.splits
        for example in builder.as_data_source(split)
    }


@pytest.fixture
def connections() -> list:
    """One entry for each connection that `serve` was asked for."""
    return []


@pytest.fixture
def serve(connections) -> Iterator[Callable[[Path], str]]:
    """serve(folder): the address of a server of the folder's files, until the test ends."""
    servers = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def setup(self):
            super().setup()
            connections.append(self.client_address)

        def log_message(self, *_):
            pass

    def serving(folder: Path) -> str:
        server = ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()
