"""The Forker: who is forked, who is spawned after all, and what becomes of both when the parent ends."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque

import pytest

from marserve.errors import RemoteProtocolError
from marserve.supervisor.forking import PAUSE, Forker, why_not_forked
from marserve.supervisor.gate import Gate
from marserve.supervisor.parallel import Parallel
from marserve.supervisor.parent import LAST_SECONDS, PARENT
from marserve.supervisor.process import KILLED, Exit, Launch
from marserve.testing import FakeClock, FakeProcess, FakeStarter, Script, in_fake_time, settle
from marserve.wire import frames
from marserve.wire.streams import connect, receive_with_descriptors, send_all

LONELY = Script(connects=False)


class FakeParent:
    """The other end of a parent's talk: says what the test lets it say, and keeps what it is told."""

    def __init__(self, process):
        self.process = process
        self.sock = connect(process.launch.gate)
        hello = {"version": frames.WIRE_VERSION, "token": process.launch.token, "pid": process.pid}
        send_all(self.sock, [frames.encode_message(frames.HELLO, hello)])
        self.sock.setblocking(False)
        self.reader = frames.FrameReader()
        self.logs = {}

    def heard(self):
        """Return what has been said since: (kind, message); descriptors of logs are kept by token."""
        found = []
        while True:
            try:
                got, descriptors = receive_with_descriptors(self.sock, self.reader, 4)
            except (BlockingIOError, RemoteProtocolError):  # there is no more, or never will be
                return found
            for frame in got:
                message = frames.decode_message(frame[4])
                if frame[0] == frames.FORK:
                    self.logs[message["token"]] = descriptors.pop(0)
                found.append((frame[0], message))

    def say(self, kind, **message):
        send_all(self.sock, [frames.encode_message(kind, message)])

    def forked(self, token, pid):
        os.close(self.logs.pop(token))
        self.say(frames.FORKED, token=token, pid=pid)

    def end(self, how):
        """Be gone, as the system tells it: the talk has ended when the exit is heard of."""
        for descriptor in self.logs.values():
            os.close(descriptor)
        self.logs.clear()
        self.sock.close()
        self.process.end(how)


class FakeSpawner(FakeStarter):
    """Starts processes that do nothing, and adopts what parents have forked."""

    def __init__(self):
        super().__init__(LONELY)
        self.adopted = {}

    def adopt(self, name, pid, output, on_exit):
        os.close(output)
        process = FakeProcess(Launch(name, "", "", {}), on_exit, LONELY, pid)
        self.adopted[name] = process
        return process


class Bench:
    """A Forker with everything around it; ``ends`` is what has been told of workers, by name."""

    def __init__(self, folder):
        self.gate = Gate(folder / "gate.sock")
        self.gate.open()
        self.spawner = FakeSpawner()
        self.forker = Forker("m:1.0", self.spawner, self.gate)
        self.ends = {}

    def start(self, number):
        name = f"m:1.0#{number}"
        launch = Launch(name, self.gate.path, f"token {number}", {"A": "b"}, load={"folder": "/m"})
        return self.forker.start(launch, lambda process, how: self.ends.__setitem__(name, (how, list(process.lines))))

    async def parent(self, index=-1):
        """Let the parent that was started say hello; return it, told what to load."""
        found = [one for one in self.spawner.processes if one.launch.program is PARENT]
        parent = FakeParent(found[index])
        await settle()
        assert parent.heard() == [(frames.LOAD, {"folder": "/m"})]
        return parent

    async def ready(self):
        """Return a parent that has loaded for one worker, which is forked."""
        self.start(1)
        parent = await self.parent()
        parent.say(frames.LOADED, ok=True, unfit="")
        await settle()
        assert parent.heard() == [(frames.FORK, {"token": "token 1"})]
        parent.forked("token 1", 4001)
        await settle()
        return parent

    async def close(self):
        for process in [*self.spawner.living, *self.spawner.adopted.values()]:
            process.end(Exit(0, None))
        await settle()
        await self.forker.close()
        self.gate.close()


@pytest.fixture
def clock():
    return FakeClock()


@in_fake_time
async def test_one_parent_loads_and_every_worker_is_forked_from_it(clock, tmp_path):
    bench = Bench(tmp_path)
    workers = [bench.start(number) for number in (1, 2)]
    parent = await bench.parent()

    assert [worker.pid for worker in workers] == [0, 0]
    parent.say(frames.LOADED, ok=True, unfit="")
    await settle()

    assert parent.heard() == [(frames.FORK, {"token": f"token {number}"}) for number in (1, 2)]
    parent.forked("token 2", 4002)
    parent.forked("token 1", 4001)
    await settle()
    assert [worker.pid for worker in workers] == [4001, 4002]
    third = bench.start(3)
    await settle()
    assert parent.heard() == [(frames.FORK, {"token": "token 3"})]
    parent.forked("token 3", 4003)
    await settle()
    assert third.pid == 4003
    assert len(bench.spawner.processes) == 1
    bench.spawner.adopted["m:1.0#1"].end(Exit(7, None))
    await settle()
    assert bench.ends == {"m:1.0#1": (Exit(7, None), [])}
    parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_what_a_worker_writes_reaches_whoever_adopts_it(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.start(1)
    parent = await bench.parent()
    parent.say(frames.LOADED, ok=True, unfit="")
    await settle()
    parent.heard()
    said = {}
    adopt = bench.spawner.adopt

    def read_and_adopt(name, pid, output, on_exit):
        said[name] = os.read(output, 100)
        return adopt(name, pid, output, on_exit)

    bench.spawner.adopt = read_and_adopt
    os.write(parent.logs["token 1"], b"hello\n")
    parent.forked("token 1", 4001)
    await settle()

    assert said == {"m:1.0#1": b"hello\n"}
    parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_a_service_that_is_not_fit_is_spawned_and_the_log_says_why(clock, tmp_path, caplog):
    caplog.set_level("INFO")
    bench = Bench(tmp_path)
    first, second = bench.start(1), bench.start(2)
    parent = await bench.parent()

    parent.say(frames.LOADED, ok=True, unfit="it has started threads (pool)")
    await settle()

    assert parent.heard()[0] == (frames.SERVE, {"token": "token 1"})
    assert (first.pid, parent.process.name) == (parent.process.pid, "m:1.0#1")
    assert second.pid == bench.spawner.processes[1].pid
    assert bench.spawner.processes[1].launch.token == "token 2"
    assert (
        "m:1.0: its workers are spawned, each with a copy of the model of its own: it has started threads (pool)."
        in (caplog.text)
    )
    bench.start(3)
    assert [process.launch.token for process in bench.spawner.processes[1:]] == ["token 2", "token 3"]
    parent.process.lines = deque(["its last line"])
    parent.end(Exit(None, 11))
    await settle()
    assert bench.ends["m:1.0#1"] == (Exit(None, 11), ["its last line"])
    await bench.close()


@in_fake_time
async def test_a_service_that_does_not_load_is_told_of_by_its_first_worker(clock, tmp_path):
    bench = Bench(tmp_path)
    first, second = bench.start(1), bench.start(2)
    parent = await bench.parent()

    parent.say(frames.LOADED, ok=False, unfit="")
    await settle()

    assert parent.heard()[0] == (frames.SERVE, {"token": "token 1"})
    assert (first.pid, second.pid) == (parent.process.pid, 0)
    assert len(bench.spawner.processes) == 2, "the other one gets a parent of its own"
    first.kill(True)
    assert parent.process.kills == [True]
    parent.end(Exit(4, None))
    second.kill(True)
    await settle()
    assert set(bench.ends) == {"m:1.0#1", "m:1.0#2"}
    await bench.close()


@in_fake_time
async def test_a_parent_that_dies_while_it_loads_is_the_death_of_one_worker(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.start(1)
    second = bench.start(2)
    parent = await bench.parent()
    parent.process.lines.append("no such weights")

    parent.end(Exit(9, None))
    await settle()

    assert bench.ends == {"m:1.0#1": (Exit(9, None), ["no such weights"])}
    next_parent = await bench.parent()
    next_parent.say(frames.LOADED, ok=True, unfit="")
    await settle()
    next_parent.heard()
    next_parent.forked("token 2", 4002)
    await settle()
    assert second.pid == 4002
    next_parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_workers_outlive_their_parent_and_the_next_one_gets_another(clock, tmp_path, caplog):
    bench = Bench(tmp_path)
    parent = await bench.ready()

    bench.start(2)
    await settle()
    parent.end(KILLED)
    await settle()

    assert bench.ends == {}
    assert "They go on" in caplog.text
    second_parent = await bench.parent()
    second_parent.say(frames.LOADED, ok=True, unfit="")
    await settle()
    assert second_parent.heard() == [(frames.FORK, {"token": "token 2"})]
    second_parent.forked("token 2", 4002)
    await settle()
    second_parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_a_worker_that_is_not_wanted_any_more_before_the_parent_has_loaded(clock, tmp_path):
    bench = Bench(tmp_path)
    first, second = bench.start(1), bench.start(2)
    parent = await bench.parent()
    parent.process.lines.append("reading the weights")

    first.kill(True)
    await settle()
    assert (bench.ends, parent.process.kills) == ({"m:1.0#1": (KILLED, ["reading the weights"])}, [])
    second.kill(True)
    await settle()

    assert set(bench.ends) == {"m:1.0#1", "m:1.0#2"}
    assert parent.process.kills == [True], "nobody waits for what it loads"
    parent.sock.close()
    await bench.close()


@in_fake_time
async def test_a_worker_that_is_not_wanted_any_more_while_it_is_forked(clock, tmp_path):
    bench = Bench(tmp_path)
    parent = await bench.ready()
    second, _third = bench.start(2), bench.start(3)
    await settle()
    parent.heard()

    second.kill(True)
    second.kill(True)
    parent.forked("token 2", 4002)
    await settle()
    assert bench.spawner.adopted["m:1.0#2"].kills == [True]
    _third.kill(True)
    parent.end(KILLED)
    await settle()

    assert bench.ends["m:1.0#3"] == (KILLED, [])
    assert len(bench.spawner.processes) == 1, "nobody waits for another parent"
    await bench.close()


@in_fake_time
async def test_a_parent_that_is_let_go_of_does_what_it_was_asked_for_and_ends(clock, tmp_path):
    bench = Bench(tmp_path)
    parent = await bench.ready()
    bench.start(2)
    await settle()

    closing = asyncio.ensure_future(bench.forker.close())
    await settle()
    assert [kind for kind, _ in parent.heard()] == [frames.FORK]
    parent.forked("token 2", 4002)
    await settle()
    assert bench.spawner.adopted["m:1.0#2"].pid == 4002
    assert not closing.done()
    parent.end(Exit(0, None))
    await closing
    await bench.close()


@in_fake_time
async def test_a_parent_that_does_not_let_go_is_ended(clock, tmp_path):
    bench = Bench(tmp_path)
    parent = await bench.ready()

    bench.forker.release()
    await asyncio.sleep(LAST_SECONDS - 1)
    assert parent.process.kills == []
    await asyncio.sleep(2)
    assert parent.process.kills == [True]
    parent.sock.close()
    await bench.close()


@in_fake_time
async def test_a_new_worker_after_the_parent_was_let_go_of_gets_a_new_one(clock, tmp_path):
    bench = Bench(tmp_path)
    parent = await bench.ready()
    bench.forker.release()

    bench.start(2)
    new = await bench.parent()

    assert new.process is not parent.process
    new.end(Exit(0, None))
    parent.end(Exit(0, None))
    await settle()
    assert bench.ends == {"m:1.0#2": (Exit(0, None), [])}
    await bench.close()


@in_fake_time
async def test_no_process_for_the_parent_is_told_to_whoever_asks(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.spawner.error = OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many"):
        bench.start(1)

    bench.spawner.error = None
    parent = await bench.ready()
    parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_what_could_not_be_forked_is_tried_again(clock, tmp_path, caplog):
    bench = Bench(tmp_path)
    parent = await bench.ready()
    second = bench.start(2)
    await settle()
    parent.heard()

    os.close(parent.logs.pop("token 2"))
    parent.say(frames.FORKED, token="token 2", error="Cannot allocate memory")
    await settle()
    assert "Cannot allocate memory" in caplog.text
    assert parent.heard() == []
    await asyncio.sleep(PAUSE)
    assert parent.heard() == [(frames.FORK, {"token": "token 2"})]

    parent.forked("token 2", 4002)
    await settle()
    assert second.pid == 4002
    parent.end(Exit(0, None))
    await bench.close()


@in_fake_time
async def test_a_parent_that_breaks_the_rules_is_ended(clock, tmp_path, caplog):
    bench = Bench(tmp_path)
    parent = await bench.ready()

    parent.say(frames.BATCH)
    await settle()

    assert parent.process.kills == [True]
    assert "'batch'" in caplog.text
    parent.sock.close()
    await bench.close()


def test_versions_that_are_not_forked_for_a_reason_that_is_known_before(monkeypatch):
    plain = {"parallel": Parallel(), "python": "", "gpu_ids": (), "is_pinned": False}
    monkeypatch.setattr("sys.platform", "linux")
    assert why_not_forked(**plain) == ""
    assert "several processes" in why_not_forked(**{**plain, "parallel": Parallel("tp", 2)})
    assert "interpreter" in why_not_forked(**{**plain, "python": "/venv/bin/python"})
    assert "GPU" in why_not_forked(**{**plain, "gpu_ids": (0,)})
    assert "pinned" in why_not_forked(**{**plain, "is_pinned": True})
    monkeypatch.setattr("sys.platform", "darwin")
    assert "system" in why_not_forked(**plain)
