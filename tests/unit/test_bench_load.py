"""The load generator's pure parts: what it sends, and how it reads answers and findings."""

import pytest
from bench.load import Findings, MeasureError, Target, answer_end, joined, percentile, read_wrk, request_bytes

ANSWER = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\n\r\nhello"

FOUND = (
    '{"requests": 4000, "duration": 2000000, "p50": 250, "p90": 700, "p99": 1500,'
    ' "errors": {"connect": 0, "read": 0, "write": 0, "status": 3, "timeout": 0}}'
)


def test_findings_of_wrk_are_read_in_seconds():
    # given wrk's own table around our line
    output = f"Running 2s test\n  1 threads and 64 connections\n  Non-2xx or 3xx responses: 3\n{FOUND}\n"
    # when it is read
    found = read_wrk(output)
    # then spans are seconds, and only the errors that happened are kept
    assert (found.seconds, found.p50, found.p90, found.p99) == (2.0, 0.00025, 0.0007, 0.0015)
    assert found.rps == 2000.0
    assert found.errors == {"status": 3}


def test_output_of_wrk_without_findings_is_told():
    with pytest.raises(MeasureError, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_answer_is_whole_at_its_last_byte_and_not_before():
    assert [answer_end(ANSWER[:size]) for size in range(len(ANSWER))] == [None] * len(ANSWER)
    assert answer_end(ANSWER) == (200, len(ANSWER))


def test_answer_ends_where_the_next_one_begins():
    refused = ANSWER.replace(b"200 OK", b"503 Busy")
    assert answer_end(refused + ANSWER) == (503, len(refused))


def test_answer_in_chunks_ends_with_its_last_chunk():
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nb;x=1\r\n0\r\n\r\n world\r\n0\r\n\r\n"
    )
    assert [answer_end(answer[:size]) for size in range(len(answer))] == [None] * len(answer)
    assert answer_end(answer + ANSWER) == (200, len(answer))


def test_length_in_a_body_is_no_length():
    body = b"\r\ncontent-length: 9\r\n"
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    assert answer_end(answer) == (200, len(answer))
    with pytest.raises(MeasureError, match="no length"):
        answer_end(b"HTTP/1.1 200 OK\r\n\r\n" + body)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_percentile_of_a_hundred_values(share, value):
    assert percentile([float(number) for number in range(1, 101)], share) == value


def test_request_counts_the_bytes_of_its_body():
    request = request_bytes(Target(8080, "/predictions/m", '{"é": 1}'))
    head, body = request.split(b"\r\n\r\n")
    assert head.startswith(b"POST /predictions/m HTTP/1.1\r\n")
    assert body == '{"é": 1}'.encode()
    assert b"Content-Length: 9" in head.split(b"\r\n")


def test_body_of_a_file_is_sent_as_it_is(tmp_path):
    (tmp_path / "body").write_bytes(b"\x00\xff")
    request = request_bytes(Target(8080, "/predictions/m", f"@{tmp_path}/body", "image/png"))
    assert request.endswith(b"\r\n\r\n\x00\xff")
    assert b"\r\nContent-Type: image/png\r\n" in request


def test_turns_on_one_server_are_one_load():
    turns = [
        Findings("wrk", 100, 1.0, 0.001, 0.002, 0.003, {"status": 1}),
        Findings("wrk", 300, 1.0, 0.003, 0.004, 0.009, {}),
        Findings("wrk", 200, 2.0, 0.002, 0.003, 0.004, {"status": 2, "read": 1}),
    ]
    assert joined(turns) == Findings("wrk", 600, 4.0, 0.002, 0.003, 0.004, {"status": 3, "read": 1})
