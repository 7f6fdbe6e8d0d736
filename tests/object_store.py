"""A stand-in for an object store, in a folder that several processes may share.

As in gs:// and s3://, there are objects by name and nothing else: no folders, no locks, nothing is
appended or renamed, and an object is there once it is written to its end. `OBJECT_STORE` names the
folder; each object is one file, whose name is the object's, quoted.

    python tests/object_store.py PROGRAM ARGS

runs a program such as `ecg_jax.train` with gs:// and s3:// in it.
"""

import io
import os
import runpy
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

import fsspec


class Store(fsspec.AbstractFileSystem):
    protocol = ("gcs", "gs", "s3")
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).partition("://")[2].strip("/") if "://" in str(path) else str(path)

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


def register():
    for name in Store.protocol:
        fsspec.register_implementation(name, Store, clobber=True)


if __name__ == "__main__":
    register()
    if os.environ.get("SHALLOW"):  # two residual blocks for eight
        import agreement

        from ecg_jax.models import resnet1d

        resnet1d.STAGES = agreement.SHALLOW
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
