"""Downloads from a local server: complete, truncated, refused and stalled; no partial data are left."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from processes import LIMIT_S

from cnnperf.datasets import DownloadError, Roots, _download, cifar10, mnist
from cnnperf.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter extracted tar:DeprecationWarning")


def ignore(name: str, done: int, total: int) -> None:
    """Ignore a progress report."""


def leftovers(roots: Roots) -> list[str]:
    """List the entries of the download root, without locks."""
    return [entry.name for entry in (roots.cache / "data").iterdir() if entry.suffix != ".lock"]


def test_cifar10_is_downloaded_once(roots: Roots, cifar_server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The archive becomes a folder in torchvision's layout, without output, and is not downloaded again."""
    reports: list[tuple[str, int, int]] = []

    dataset = cifar10.load(roots, lambda *report: reports.append(report))

    assert len(dataset.train_images) == 100
    assert dataset.provenance.source == "cache"
    assert leftovers(roots) == ["cifar-10-batches-py"]
    assert reports[-1] == ("cifar10", 170_498_071, 170_498_071)
    assert capfd.readouterr() == ("", "")
    cifar_server.bodies.clear()
    assert cifar10.load(roots, ignore).provenance == dataset.provenance


def test_mnist_is_downloaded(roots: Roots, mnist_server: Any) -> None:
    """The four archives become the four raw files."""
    dataset = mnist.load(roots, ignore)

    assert len(dataset.train_images) == 20
    assert leftovers(roots) == ["MNIST"]
    assert {*mnist.MD5} <= {file.name for file in (roots.cache / "data" / "MNIST" / "raw").iterdir()}


def test_bytes_are_reported_while_they_arrive(roots: Roots, cifar_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported during the download: the server sends the second half only after a report."""
    monkeypatch.setattr(_download, "REPORT_S", 0.01)
    reported = threading.Event()
    reports: list[int] = []

    def send(write: Any, body: bytes) -> None:
        write(body[: len(body) // 2])
        assert reported.wait(10)
        write(body[len(body) // 2 :])

    def progress(name: str, done: int, total: int) -> None:
        reports.append(done)
        if done:
            reported.set()

    cifar_server.send = send
    cifar10.load(roots, progress)

    size = len(cifar_server.bodies["/cifar-10-python.tar.gz"])
    assert reports[0] == 0
    assert 0 < reports[1] <= size // 2
    assert reports == sorted(reports)


def test_a_truncated_download_is_refused(roots: Roots, cifar_server: Any) -> None:
    """A connection that ends early raises an error with the reason, and no data are left."""
    cifar_server.send = lambda write, body: write(body[: len(body) // 2])

    with pytest.raises(DownloadError, match=r"cifar10: cannot be downloaded \(.+\); connect to the network"):
        cifar10.load(roots, ignore)

    assert leftovers(roots) == []


def test_an_archive_that_is_another_is_refused(roots: Roots, mnist_server: Any) -> None:
    """An archive with a wrong checksum raises an error, and no data are left."""
    mnist_server.bodies["/t10k-labels-idx1-ubyte.gz"] = b"an error page"

    with pytest.raises(DownloadError) as caught:
        mnist.load(roots, ignore)

    assert "t10k-labels-idx1-ubyte.gz" in caught.value.reason
    assert "checksum does not match" in caught.value.reason
    assert leftovers(roots) == []


def test_an_answer_of_404_is_named(roots: Roots, cifar_server: Any) -> None:
    """The reason contains the address and the HTTP status."""
    cifar_server.bodies.clear()

    with pytest.raises(DownloadError) as caught:
        cifar10.load(roots, ignore)

    assert caught.value.reason == f"{cifar_server.url}cifar-10-python.tar.gz answered HTTP 404 Not Found"


@pytest.mark.parametrize("dataset", [cifar10, mnist])
def test_a_refused_connection_is_named(roots: Roots, dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no server listens, the reason says that the connection was refused, in one line."""
    from torchvision.datasets import CIFAR10, MNIST

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr(CIFAR10, "url", f"{url}cifar-10-python.tar.gz")
        monkeypatch.setattr(MNIST, "mirrors", [url])

        with pytest.raises(DownloadError) as caught:
            dataset.load(roots, ignore)

    assert "Connection refused" in caught.value.reason
    assert "\n" not in str(caught.value)


def test_a_silent_server_is_given_up(roots: Roots, cifar_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends headers but no bytes ends the download; the default socket timeout is unchanged."""
    monkeypatch.setattr(_download, "STALL_S", 0.2)
    given_up = threading.Event()
    cifar_server.send = lambda write, body: given_up.wait(10)

    with pytest.raises(DownloadError) as caught:
        cifar10.load(roots, ignore)

    given_up.set()
    assert caught.value.reason == "no byte for 0.2 s"
    assert socket.getdefaulttimeout() is None


def test_what_a_killed_download_left_is_removed(roots: Roots, cifar_server: Any) -> None:
    """A temporary folder is not used as data, and is removed by the next download."""
    killed = roots.cache / "data" / ".cifar10-killed" / "cifar-10-batches-py"
    killed.mkdir(parents=True)

    assert cifar10.SOURCE.available(roots).origin == "download"
    cifar10.load(roots, ignore)

    assert leftovers(roots) == ["cifar-10-batches-py"]


def test_two_at_once_download_once(roots: Roots, cifar_server: Any) -> None:
    """If two threads download at once, the second waits and uses the data of the first."""
    arguments = (cifar10.SOURCE, roots.downloads, ignore)
    threads = [threading.Thread(target=_download.download, args=arguments, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not any(thread.is_alive() for thread in threads)

    assert len(cifar_server.asked) == 2, "torchvision asks twice for one download: once to follow redirects"
    assert leftovers(roots) == ["cifar-10-batches-py"]


def test_a_disk_that_cannot_be_written_is_not_a_network_fault(tmp_path: Path, cifar_server: Any) -> None:
    """A download root that cannot be made is a DataError with its own fix, and not a DownloadError."""
    (tmp_path / "cache").touch()

    with pytest.raises(DataError, match="set CNNPERF_CACHE") as caught:
        cifar10.load(Roots(cache=tmp_path / "cache"), ignore)

    assert not isinstance(caught.value, DownloadError)
