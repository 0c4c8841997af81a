from trainyard.tasks.training.rank_logs import MAX_LINE_BYTES, LogTail, last_lines


def test_lines_come_once_with_their_rank_and_half_lines_wait(tmp_path):
    tail = LogTail(tmp_path)
    assert list(tail.poll()) == []
    (tmp_path / "rank-00000.log").write_text("one\ntw")
    (tmp_path / "rank-00012.log").write_text("other\n")
    assert list(tail.poll()) == [("rank 0", "one"), ("rank 12", "other")]
    with (tmp_path / "rank-00000.log").open("a") as log:
        log.write("o\nthree")
    assert list(tail.poll()) == [("rank 0", "two")]
    assert list(tail.poll(final=True)) == [("rank 0", "three")]
    assert list(tail.poll(final=True)) == []


def test_bytes_that_are_no_text_are_shown_anyway(tmp_path):
    (tmp_path / "rank-00000.log").write_bytes(b"caf\xe9\n")
    assert list(LogTail(tmp_path).poll()) == [("rank 0", "caf\N{REPLACEMENT CHARACTER}")]


def test_a_line_without_end_is_not_kept_waiting(tmp_path):
    (tmp_path / "rank-00000.log").write_text("." * (MAX_LINE_BYTES + 1))
    ((_, line),) = LogTail(tmp_path).poll()
    assert len(line) == MAX_LINE_BYTES + 1


def test_last_lines(tmp_path):
    log = tmp_path / "log"
    assert last_lines(log, 3) == []
    log.write_text("\n".join(str(n) for n in range(100)))
    assert last_lines(log, 3) == ["97", "98", "99"]


def test_many_lines_at_once_are_not_cut_in_the_middle(tmp_path):
    log = tmp_path / "rank-00000.log"
    lines = [f"line {n}" for n in range(3_000)]
    text = "\n".join(lines) + "\n"
    log.write_text(text[:-5])
    tail = LogTail(tmp_path)
    shown = list(tail.poll())
    log.write_text(text)
    assert [line for _, line in [*shown, *tail.poll()]] == lines
