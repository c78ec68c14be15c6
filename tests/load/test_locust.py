"""A short load with many users against the real server: every answer right, and what is wrong told by its reason."""

import csv
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


def load(server: LiveServer, folder: Path) -> tuple[int, dict[str, str], dict[str, int]]:
    """Run the load test; return its exit code, the row of its figures, and how often each reason occurred."""
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", f"{SECONDS}s"]
    command += ["--host", server.inference, "--loglevel", "WARNING", "--csv", str(folder / "load")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)
    assert (folder / "load_stats.csv").is_file(), ended.stdout + ended.stderr
    (total,) = (row for row in rows(folder / "load_stats.csv") if row["Name"] == "Aggregated")
    failures = rows(folder / "load_failures.csv")
    # Locust writes the reason as the exception that it makes of it.
    reasons = {row["Error"].split("('")[-1].removesuffix("')"): int(row["Occurrences"]) for row in failures}
    return ended.returncode, total, reasons


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file that Locust wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("batch_size", [1, 32])
def test_every_answer_under_load_is_right(fizbuz_store: Path, tmp_path: Path, batch_size: int) -> None:
    with serving(fizbuz_store) as server:
        url = f"/models?url=fizbuz_package.mar&batch_size={batch_size}&initial_workers=2"
        assert server.manage("POST", url).status_code == 200, server.log

        code, total, reasons = load(server, tmp_path)

        assert reasons == {}
        assert int(total["Failure Count"]) == 0
        assert int(total["Request Count"]) > USERS
        assert code == 0


def test_a_wrong_service_is_told_by_reason(tmp_path: Path) -> None:
    make_archive(tmp_path / "store", "fizbuz_package", WRONG_SERVICE)
    with serving(tmp_path / "store", "fizbuz_package") as server:
        code, total, reasons = load(server, tmp_path)

    assert code != 0
    # One row a reason, whatever the number was; the batch size is 1, so the broken ones break no others.
    assert set(reasons) == {"500 HandlerFault", "wrong answer: not the word for the next number"}
    assert 0 < sum(reasons.values()) == int(total["Failure Count"]) < int(total["Request Count"])
