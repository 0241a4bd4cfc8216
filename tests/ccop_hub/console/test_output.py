import pytest

from ccop_hub.console import next_step


def test_the_next_step_can_be_pasted_into_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    next_step("ccop-hub", "info", "my run/it's", "--out", "A\x1b[0m", note="a remark")
    assert capsys.readouterr().out == "next: ccop-hub info 'my run/it'\"'\"'s' --out 'A\\x1b[0m'   # a remark\n"
