"""Preparing a dataset: a dead network, a download that breaks off, a child that hangs, and one that succeeds.

The network is an HTTP server on this machine; TFDS, its builder and the child process are real.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from datamix.errors import ConfigError
from datamix.sources.base import Unavailable
from datamix.sources.tfds import prepare as prepare_module
from datamix.sources.tfds.prepare import Name, find_prepared, prepare
from datamix.sources.tfds.source import Tfds

PIXELS = bytes(range(100, 120))

BUILDER = '''
"""A dataset whose records are the bytes of one downloaded file."""

import os

import numpy as np
import tensorflow_datasets as tfds


class DatamixToy(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "text": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download(os.environ["DATAMIX_TOY_URL"]))}

    def _generate_examples(self, path):
        for index, value in enumerate(path.read_bytes()):
            yield index, {"image": np.full((4, 4, 1), value, np.uint8), "label": value % 2, "text": str(value)}
'''


class Server(http.server.ThreadingHTTPServer):
    """Answers each path in its own way: /whole, /cut, /stall, /hang, and /404 or any other number."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        kind = self.path.strip("/")
        self.server.requests.append(f"first byte of {kind}" if self.headers["Range"] else kind)
        if kind == "hang":
            self.server.over.wait(60)
            return
        if kind.isdecimal():
            self.send_error(int(kind))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(PIXELS)))
        self.end_headers()
        self.wfile.write(PIXELS if kind == "whole" else PIXELS[:7])
        self.wfile.flush()
        if kind == "stall":
            self.server.over.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _a_network_not_yet_asked(monkeypatch):
    monkeypatch.setattr(prepare_module, "dead_network", None)


@pytest.fixture(scope="session")
def toy_module(tmp_path_factory):
    """A directory whose module datamix_toy registers a dataset with TFDS."""
    directory = tmp_path_factory.mktemp("builder")
    (directory / "datamix_toy.py").write_text(BUILDER)
    return directory


@pytest.fixture
def toy(toy_module, monkeypatch):
    """The dataset datamix_toy, registered in this process and in its children."""
    monkeypatch.syspath_prepend(toy_module)
    importlib.import_module("datamix_toy")


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def data_dir(tmp_path):
    """A data directory in which something lies that has nothing to do with the dataset."""
    directory = tmp_path / "data"
    (directory / "other" / "1.0.0").mkdir(parents=True)
    (directory / "other" / "1.0.0" / "dataset_info.json").write_text("{}")
    return directory


@contextlib.contextmanager
def leaves_as_it_was(directory: Path):
    before = listing(directory)
    yield
    assert listing(directory) == before


def test_names_are_split():
    assert Name.parse("mnist") == Name("mnist", None, None)
    assert Name.parse("mnist:3.0.1") == Name("mnist", None, "3.0.1")
    assert Name.parse("glue/sst2-a.b:2.0.0") == Name("glue", "sst2-a.b", "2.0.0")


@pytest.mark.parametrize("name", ["", "../mnist", "mnist/../x", "mnist/", "mnist:3", "hf:mnist", "/mnist", "a b"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=r"is no TFDS dataset\. Write mnist, emnist/letters or mnist:3\.0\.1"):
        Name.parse(name)


def test_the_highest_version_is_found_unless_one_is_named(tmp_path):
    for directory in (
        "mnist/3.0.9",
        "mnist/3.0.10",
        "mnist/3.0.11.incomplete",
        "emnist/letters/1.0.0",
        "emnist/all/2.0.0",
    ):
        (tmp_path / directory).mkdir(parents=True)

    def find(text):
        directory = find_prepared(Name.parse(text), tmp_path)
        return directory and str(directory.relative_to(tmp_path))

    assert find("mnist") == "mnist/3.0.10"
    assert find("mnist:3.0.9") == "mnist/3.0.9"
    assert find("mnist:1.0.0") is None
    assert find("kmnist") is None
    assert find("emnist/letters") == "emnist/letters/1.0.0"
    assert find("emnist") is None
    (tmp_path / "emnist" / ".config").mkdir()
    (tmp_path / "emnist" / ".config" / "metadata.json").write_text('{"default_config_name": "all"}')
    assert find("emnist") == "emnist/all/2.0.0"


def test_without_tensorflow_the_network_is_not_asked(server, data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with (
        leaves_as_it_was(data_dir),
        pytest.raises(Unavailable, match="needs TensorFlow, which is not installed") as raised,
    ):
        prepare("mnist", data_dir, url=server.url("whole"))
    assert server.requests == []
    message = str(raised.value)
    assert "\n" not in message
    for advice in ("Point data_dir at", "pip install -e '.[prepare]'", str(data_dir)):
        assert advice in message


@pytest.mark.slow
def test_two_sources_without_an_answer_end_within_seconds(server, data_dir):
    start = time.monotonic()
    with leaves_as_it_was(data_dir):
        for name in ("mnist", "fashion_mnist"):
            with pytest.raises(Unavailable, match=r"no answer from http://127\.0\.0\.1:\d+/hang within 5 s"):
                _ = Tfds(name=name, data_dir=str(data_dir), url=server.url("hang")).num_records
    assert time.monotonic() - start < 8
    assert server.requests == ["first byte of hang"]


def test_a_hanging_look_up_of_the_name_is_bounded_too(data_dir, monkeypatch):
    over = threading.Event()

    def getaddrinfo(*_args, **_kwargs):
        over.wait(30)
        raise socket.gaierror("over")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer from https://storage.googleapis.com/\S+ within 0\.3 s"):
        prepare("mnist", data_dir, wait_s=0.3)
    assert time.monotonic() - start < 2
    over.set()


def test_a_refused_connection_is_said_at_once(data_dir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(Unavailable, match="Connection refused"):
            prepare("mnist", data_dir, url=url)
    assert prepare_module.dead_network is None  # so quick an answer says nothing of other hosts


@pytest.mark.parametrize("code", [404, 500])
def test_a_file_that_is_not_there_is_no_dead_network(server, data_dir, code):
    for _ in range(2):
        with leaves_as_it_was(data_dir), pytest.raises(Unavailable, match=f"HTTP {code} "):
            prepare("mnist", data_dir, url=server.url(str(code)))
    assert server.requests == [f"first byte of {code}"] * 2


def test_without_a_file_to_ask_for_any_answer_is_a_network(server, monkeypatch):
    monkeypatch.setattr(prepare_module, "NETWORK_URL", server.url("403"))
    assert prepare_module.unreachable(None, 5) is None
    assert server.requests == ["first byte of 403"]


def test_a_directory_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot be written"):
        prepare("mnist", tmp_path / "file" / "data", url=server.url("whole"))


def test_a_download_that_breaks_off_leaves_everything_as_it_was(server, data_dir, toy, monkeypatch, capfd):
    monkeypatch.setenv("DATAMIX_TOY_URL", server.url("cut"))
    with leaves_as_it_was(data_dir):
        left_over = data_dir / ".datamix-prepare-of-a-killed-process"
        left_over.mkdir()
        with pytest.raises(Unavailable, match=r"TFDS failed: .*7 bytes read") as raised:
            _ = Tfds(name="datamix_toy", data_dir=str(data_dir), url=server.url("cut")).num_records
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == "Downloading and preparing datamix_toy …\n"


@pytest.mark.slow
def test_a_download_that_stalls_is_killed(server, tmp_path, toy, monkeypatch):
    monkeypatch.setenv("DATAMIX_TOY_URL", server.url("stall"))
    data_dir = tmp_path / "not" / "yet" / "there"
    with leaves_as_it_was(tmp_path), pytest.raises(Unavailable, match="nothing was written or computed for 3 s"):
        prepare("datamix_toy", data_dir, url=server.url("whole"), stall_s=3, module="datamix_toy")
    assert "stall" in server.requests


READ = """
import sys
import datamix_toy
from datamix.sources.tfds.source import Tfds
source = Tfds(name="datamix_toy", data_dir=sys.argv[1], cache_dir=sys.argv[2], url=sys.argv[3])
arrays = source.read()
print(sorted(arrays), arrays["image"].shape, sorted(arrays["image"][:, 0, 0, 0].tolist()), source.class_names)
print("tensorflow" in sys.modules)
"""


def start(code: str, toy_module: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(toy_module), *sys.path]), "DATAMIX_TOY_URL": url},
    )


@pytest.mark.slow
def test_two_processes_download_once_and_read_the_same_without_tensorflow(server, tmp_path, toy_module):
    url = server.url("whole")
    data_dir = tmp_path / "data"
    arguments = [str(data_dir), str(tmp_path / "cache"), url]
    processes = [start(READ, toy_module, url, *arguments) for _ in range(2)]
    expected = f"['image', 'label'] (20, 4, 4, 1) {list(PIXELS)} ('even', 'odd')\nFalse\n"
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert out == expected, err
    assert server.requests.count("whole") == 1
    assert [path for path in listing(data_dir) if "/" not in path] == ["datamix_toy"]
    directory = data_dir / "datamix_toy" / "1.2.0"
    assert json.loads((directory / "dataset_info.json").read_text())["fileFormat"] == "array_record"
    assert prepare("datamix_toy", data_dir, url=url) == directory  # it is there by now

    import tensorflow_datasets as tfds

    records = list(tfds.builder_from_directory(directory).as_data_source("train"))
    assert sorted(record["text"] for record in records) == [str(value).encode() for value in PIXELS]
    assert all(np.all(record["image"] == int(record["text"])) for record in records)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_parent_ends_so_does_the_child(server, data_dir, toy_module, how, interruptible):
    url = server.url("stall")
    code = """
        import sys
        from pathlib import Path
        from datamix.sources.tfds.prepare import prepare
        prepare("datamix_toy", Path(sys.argv[1]), url=sys.argv[2], module="datamix_toy")
        """
    before = listing(data_dir)
    process = start(code, toy_module, url, str(data_dir), url)
    deadline = time.monotonic() + 30
    while "stall" not in server.requests:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (log,) = data_dir.glob(".datamix-prepare-*/log")
    process.send_signal(how)
    process.communicate(timeout=10)
    assert process.returncode == {signal.SIGTERM: 128 + signal.SIGTERM}.get(how, -how)
    if how == signal.SIGKILL:  # nobody could clear up
        assert log.exists()
    else:
        assert listing(data_dir) == before
    assert_nobody_writes_to(log)


def assert_nobody_writes_to(log: Path) -> None:
    psutil = pytest.importorskip("psutil")
    deadline = time.monotonic() + 5
    while any(
        str(log.parent) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
