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


def test_a_progress_bar_is_one_line_and_shows_its_end(tmp_path):
    bar = b"".join(b"\r%3d%%|#####| %d/100" % (n, n) for n in range(101))
    log = tmp_path / "rank-00000.log"
    log.write_bytes(b"start\n" + bar + b"\ndone\r\n\n")
    expected = ["start", "100%|#####| 100/100", "done", ""]
    assert [line for _, line in LogTail(tmp_path).poll()] == expected
    assert last_lines(log, 4) == expected


def test_a_bar_that_is_still_drawn_is_shown_now_and_then(tmp_path):
    frames = MAX_LINE_BYTES // 10 + 1
    (tmp_path / "rank-00000.log").write_bytes(b"".join(b"\r%9d" % n for n in range(frames)))
    assert [line.strip() for _, line in LogTail(tmp_path).poll()] == [str(frames - 1)]


def test_colours_are_left_out(tmp_path):
    (tmp_path / "rank-00000.log").write_bytes(b"\x1b[1;31mloss\x1b[0m 0.5\x1b[K\n")
    assert list(LogTail(tmp_path).poll()) == [("rank 0", "loss 0.5")]
