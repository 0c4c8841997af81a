"""From what is written on a node to the same files here, over real pipes."""

import os
import threading

import pytest

from trainyard.tasks.runtime.node.follow import Follower
from trainyard.tasks.runtime.node.protocol import Channel, Frame
from trainyard.tasks.training.hosts.inbox import Inbox


class Wire:
    """Followers of several nodes, whose frames reach one inbox."""

    def __init__(self, here):
        self.said = []
        self.inbox = Inbox({"out": here, "run": here / "run"}, lambda node, text: self.said.append((node, text)))

    def send(self, node, do):
        """Have a node's follower send; everything has arrived when this returns."""
        read, write = os.pipe()
        with os.fdopen(read, "rb") as source, os.fdopen(write, "wb") as sink:
            receiver = threading.Thread(
                target=lambda: [self.inbox.take(node, frame) for frame in Channel(source, sink).frames()]
            )
            receiver.start()
            do(Channel(source, sink))
            sink.close()
            receiver.join()


@pytest.fixture
def here(tmp_path):
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def wire(here):
    return Wire(here)


def follow(wire, follower, node=0, *, final=True):
    def poll(channel):
        follower._channel = channel
        follower.poll(final=final)

    wire.send(node, poll)


def test_logs_grow_here_as_they_grow_there(wire, here, there):
    follower = Follower("out", there, None)
    for text in ("one\n", "one\ntwo\nhal", "one\ntwo\nhalf\n"):
        (there / "rank.log").write_text(text)
        follow(wire, follower, final=False)
        assert (here / "rank.log").read_text() == text


def test_a_file_is_sent_when_it_has_come_to_rest(wire, here, there):
    follower = Follower("out", there, None, growing=())
    (there / "model.pt").write_bytes(b"half")
    follow(wire, follower, final=False)
    assert not (here / "model.pt").exists()
    (there / "model.pt").write_bytes(b"the whole")
    follow(wire, follower, final=False)
    assert not (here / "model.pt").exists()
    follow(wire, follower, final=False)
    assert (here / "model.pt").read_bytes() == b"the whole"


def test_modes_empty_files_links_and_odd_names(wire, here, there):
    names = ["a b", "it's", 'q"', "-x", "new\nline", "\u00fc\u4e2d", "sub/deep"]
    for name in names:
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_text(name)
    (there / "empty").touch()
    (there / "run.sh").touch(0o755)
    (there / "latest").symlink_to("sub/deep")
    follow(wire, Follower("out", there, None))
    assert {name: (here / name).read_text() for name in names} == {name: name for name in names}
    assert (here / "empty").read_bytes() == b""
    assert os.access(here / "run.sh", os.X_OK)
    assert os.readlink(here / "latest") == "sub/deep"


def test_what_is_removed_there_is_removed_here(wire, here, there):
    follower = Follower("out", there, None)
    (there / "epoch-1").touch()
    follow(wire, follower)
    (there / "epoch-1").unlink()
    follow(wire, follower)
    assert not (here / "epoch-1").exists()


def test_what_came_from_here_is_not_sent_back(wire, here, there):
    (there / "seed").write_text("x")
    follower = Follower("out", there, None)
    follower.assume_sent()
    follow(wire, follower)
    assert not (here / "seed").exists()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_first_node_wins(wire, here, there, order):
    for node in order:
        (there / "same").write_text(f"of node {node}")
        follow(wire, Follower("out", there, None), node)
    assert (here / "same").read_text() == "of node 0"
    assert wire.inbox.hidden == {("out", "same"): {1}}


def test_the_launchers_output_is_told(wire, here):
    wire.send(
        1, lambda c: c.send({"event": "growth", "folder": "run", "path": "launcher.log", "offset": 0}, b"words\n")
    )
    assert wire.said == [(1, b"words\n")]


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_a_node_cannot_write_elsewhere(wire, here, path):
    frame = Frame({"event": "growth", "folder": "out", "path": path, "offset": 0}, b"x")
    with pytest.raises(ValueError, match="leaves its directory"):
        wire.inbox.take(0, frame)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
def test_a_link_that_leads_outside_is_left_out(wire, here, target):
    wire.inbox.take(0, Frame({"event": "link", "folder": "out", "path": "link", "target": target}))
    assert not os.path.lexists(here / "link")
