import ast

import pytest

from trainyard.tasks.syntax import parse_source


def test_source_is_read_again_where_another_thread_read_at_the_same_moment(monkeypatch):
    """The error cannot be had at will: some ten thousand readings by three threads meet it once."""
    parse, attempts = ast.parse, []

    def disturbed(*arguments):
        attempts.append(arguments)
        if len(attempts) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=57, after=78)")
        return parse(*arguments)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert ast.unparse(parse_source(b"import x")) == "import x"
    assert len(attempts) == 3


def test_what_stays_wrong_is_raised(monkeypatch):
    def broken(*arguments):
        raise SystemError("broken")

    monkeypatch.setattr(ast, "parse", broken)
    with pytest.raises(SystemError, match="broken"):
        parse_source(b"import x")
    monkeypatch.undo()
    with pytest.raises(SyntaxError):
        parse_source(b"import")
