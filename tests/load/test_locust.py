"""A short load with many users against the real server: every answer right, and what is wrong told by its reason."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from live import PATIENCE, ROOT, LiveServer, make_archive, serving

USERS, SECONDS = 8, 3
#: Plays FizBuz and errs: it knows no Buz, and breaks on every seventh number.
WRONG_SERVICE = """
from marserve import Service


class WrongService(Service):
    def preprocess(self, data):
        return [self.value(row, "input.1") + 1 for row in data]

    def inference(self, data):
        for number in data:
            if number % 7 == 0:
                raise RuntimeError(f"no word for {number}")
        return ["Fiz" if number % 3 == 0 else str(number) for number in data]

    def postprocess(self, data):
        return [{"next_number": word} for word in data]
"""


def load(server: LiveServer) -> tuple[int, dict[str, int], dict[str, int]]:
    """Run the load test; return its exit code, the figures of its requests, and how often each reason occurred."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", f"{SECONDS}s"]
    command += ["--host", server.inference, "--loglevel", "WARNING", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)
    (figures,) = json.loads(ended.stdout)
    reasons = re.findall(r"^(\d+) +POST /predictions/fizbuz_package: (.*?) *$", ended.stderr, re.MULTILINE)
    return ended.returncode, figures, {reason: int(count) for count, reason in reasons}


@pytest.mark.parametrize("batch_size", [1, 32])
def test_every_answer_under_load_is_right(fizbuz_store: Path, batch_size: int) -> None:
    with serving(fizbuz_store) as server:
        url = f"/models?url=fizbuz_package.mar&batch_size={batch_size}&initial_workers=2"
        assert server.manage("POST", url).status_code == 200, server.log

        code, figures, reasons = load(server)

        assert reasons == {}
        assert figures["num_failures"] == 0
        assert figures["num_requests"] > USERS
        assert code == 0


def test_a_wrong_service_is_told_by_reason(tmp_path: Path) -> None:
    make_archive(tmp_path / "store", "fizbuz_package", WRONG_SERVICE)
    with serving(tmp_path / "store", "fizbuz_package") as server:
        code, figures, reasons = load(server)

    assert code != 0
    # One row a reason, whatever the number was; the batch size is 1, so the broken ones break no others.
    assert set(reasons) == {"500 HandlerFault", "wrong answer: not the word for the next number"}
    assert 0 < sum(reasons.values()) == figures["num_failures"] < figures["num_requests"]
