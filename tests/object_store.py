"""A stand-in for an object store, in a folder that several processes may share.

As in gs:// and s3://, there are objects by name and nothing else: no folders, no locks, nothing is
appended or renamed, and an object is there once it is written to its end. `OBJECT_STORE` names the
folder; each object is one file, whose name is the object's, quoted. fsspec finds it by `register`;
orbax, which asks for gs:// by Google's JSON interface, by `served`.

    python tests/object_store.py PROGRAM ARGS

runs a program such as `ecg_jax.train` with gs:// and s3:// in it.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import fsspec

STALE_SECONDS = 5.0  # of a lock, where SHALLOW is set


class Store(fsspec.AbstractFileSystem):
    protocol = ("gcs", "gs", "s3")
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).rpartition("://")[2].strip("/")

    def _file(self, path):
        return Path(os.environ["OBJECT_STORE"], quote(self._strip_protocol(path), safe=""))

    def _objects(self):
        folder = Path(os.environ["OBJECT_STORE"])
        files = [p for p in folder.iterdir() if not p.name.startswith(".")]
        return {unquote(p.name): p for p in files}

    def ls(self, path, detail=True, **_):
        path, found = self._strip_protocol(path), {}
        for name, file in self._objects().items():
            if name == path:
                found[name] = {"name": name, "size": file.stat().st_size, "type": "file"}
            elif name.startswith(path + "/"):
                child = f"{path}/{name[len(path) + 1 :].partition('/')[0]}"
                whole = child == name
                size = file.stat().st_size if whole else 0
                kind = "file" if whole else "directory"
                found[child] = {"name": child, "size": size, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def info(self, path, **_):
        path = self._strip_protocol(path)
        if "/" not in path:
            return {"name": path, "size": 0, "type": "directory"}
        for entry in self.ls(path):
            if entry["name"] == path:
                return entry
        return {"name": path, "size": 0, "type": "directory"}

    def _open(self, path, mode="rb", **_):
        assert mode in ("rb", "wb"), f"an object store cannot open with {mode}"
        if mode == "wb":
            return _Writer(self._file(path))
        if not self._file(path).exists():
            raise FileNotFoundError(path)
        return self._file(path).open("rb")

    def rm_file(self, path):
        self._file(path).unlink(missing_ok=True)  # "folders" are given, too

    def mkdir(self, path, **_):
        pass

    def makedirs(self, path, **_):
        pass

    def rmdir(self, path):
        pass

    def cp_file(self, *_, **__):
        raise AssertionError("nothing is copied or renamed in the store")


class _Writer(io.BytesIO):
    """An object that is there once it is closed, and not where the writer died."""

    def __init__(self, file):
        super().__init__()
        self._file = file

    def close(self):
        if not self.closed:
            with tempfile.NamedTemporaryFile(
                dir=self._file.parent, prefix=".part", delete=False
            ) as part:
                part.write(self.getvalue())
            Path(part.name).replace(self._file)
        super().close()


class _Google(BaseHTTPRequestHandler):
    """The part of Google's JSON interface that tensorstore uses: media, conditions, deletion."""

    folder: Path
    lock = threading.Lock()

    def _asked(self):
        """(an object's file, the options of the address)"""
        url = urlsplit(self.path)
        options = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        name = options.get("name") or unquote(name[1:])
        return self.folder / quote(f"{bucket}/{name}", safe=""), options

    def _answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        file, options = self._asked()
        if not file.exists():
            return self._answer(404)
        content, generation = file.read_bytes(), file.stat().st_mtime_ns
        if options.get("ifGenerationNotMatch") == str(generation):
            return self._answer(304)
        size, (first, _, last) = len(content), self.headers.get("Range", "=-")[6:].partition("-")
        if not first:
            return self._answer(200, content, x_goog_generation=generation)
        content = content[int(first) : int(last) + 1 if last else None]
        place = f"bytes {first}-{int(first) + len(content) - 1}/{size}"
        return self._answer(206, content, Content_Range=place, x_goog_generation=generation)

    def do_POST(self):
        file, options = self._asked()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            before = file.stat().st_mtime_ns if file.exists() else 0
            if options.get("ifGenerationMatch", str(before)) != str(before):
                return self._answer(412)
            with _Writer(file) as writer:
                writer.write(content)
            made = {"name": options["name"], "generation": str(file.stat().st_mtime_ns)}
        return self._answer(200, json.dumps(made).encode())

    def do_DELETE(self):
        file, _ = self._asked()
        there = file.exists()
        file.unlink(missing_ok=True)
        self._answer(204 if there else 404)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that is killed says no farewell."""


@contextlib.contextmanager
def served(folder):
    """Serves the store in `folder`: the environment in which tensorstore asks there."""
    handler = type("Handler", (_Google,), {"folder": Path(folder), "protocol_version": "HTTP/1.1"})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        }
        server.shutdown()


def register():
    for name in Store.protocol:
        fsspec.register_implementation(name, Store, clobber=True)


if __name__ == "__main__":
    register()
    if os.environ.get("SHALLOW"):  # two residual blocks for eight, and locks that age quickly
        import agreement

        from ecg_jax.models import resnet1d
        from ecg_jax.runtime import lock

        resnet1d.STAGES = agreement.SHALLOW
        lock.RENEW_SECONDS, lock.STALE_SECONDS = 0.5, STALE_SECONDS
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
