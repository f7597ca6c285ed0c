"""cfn-lint has nothing to say about the templates: no error and no warning."""


def test_lint(lint):
    said, _ = lint.communicate(timeout=600)
    assert (lint.returncode, said) == (0, "")
