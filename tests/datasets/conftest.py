"""Tiny copies of MNIST and CIFAR-10 in torchvision's layout, and a server to download them from."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from processes import LIMIT_S

from cnnperf.datasets import Roots, mnist

CIFAR_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Return roots with only an empty cache."""
    return Roots(cache=tmp_path / "cache")


@pytest.fixture
def mnist_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 20 training and 10 test digits below a root, and make their checksums the expected ones."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, count in (("train", 20), ("t10k", 10)):
        images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(_idx(labels))
    monkeypatch.setattr(mnist, "MD5", {file.name: md5(file.read_bytes()) for file in folder.iterdir()})
    return tmp_path / "data"


@pytest.fixture
def cifar_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write five training batches and a test batch of 20 images each, and make their checksums the expected ones."""
    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in CIFAR_BATCHES:
        data = random.integers(256, size=(20, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [number % 10 for number in range(20)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(number) for number in range(10)]}))
    checksums = {file.name: md5(file.read_bytes()) for file in folder.iterdir()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, checksums[name]] for name in CIFAR_BATCHES[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", checksums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": checksums["batches.meta"]})
    return tmp_path / "data"


@dataclass
class Server:
    """An HTTP server whose answers are set by a test."""

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Contents by path; any other path is a 404."""
    send: Callable[[Callable[[bytes], object], bytes], None] = lambda write, body: write(body)
    """How a body is sent; a test may stop half way."""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            body = answers.bodies.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                answers.send(self.wfile.write, body)
            except ConnectionError:
                self.close_connection = True  # torchvision asks once only to follow redirects, and hangs up.

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        answers = Server(f"http://127.0.0.1:{http.server_port}/")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield answers
        http.shutdown()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@pytest.fixture
def cifar_server(cifar_root: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serve the tiny CIFAR-10 as the archive that torchvision downloads."""
    from torchvision.datasets import CIFAR10

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(cifar_root / "cifar-10-batches-py", "cifar-10-batches-py")
    server.bodies["/cifar-10-python.tar.gz"] = stream.getvalue()
    monkeypatch.setattr(CIFAR10, "url", f"{server.url}cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(stream.getvalue()))
    return server


@pytest.fixture
def mnist_server(mnist_root: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serve the tiny MNIST as the four archives that torchvision downloads."""
    from torchvision.datasets import MNIST

    files = {f"{file.name}.gz": gzip.compress(file.read_bytes()) for file in (mnist_root / "MNIST" / "raw").iterdir()}
    server.bodies |= {f"/{name}": body for name, body in files.items()}
    monkeypatch.setattr(MNIST, "mirrors", [server.url])
    monkeypatch.setattr(MNIST, "resources", [(name, md5(body)) for name, body in files.items()])
    return server


def md5(content: bytes) -> str:
    """Return the MD5 checksum in hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _idx(array: np.ndarray) -> bytes:
    """Encode an array of bytes in MNIST's format: magic number, sizes, values."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def real_roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Return roots that hold the real data, with a cache of their own."""
    return Roots(environment=Path(os.environ["CNNPERF_DATA"]), cache=tmp_path_factory.mktemp("cache"))
