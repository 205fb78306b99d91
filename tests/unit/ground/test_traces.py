"""What is put back after a Docker daemon of the tests."""

from ground.kind.traces import emptied

BEFORE = """*filter
:INPUT ACCEPT [0:0]
COMMIT
"""
NOW = """*nat
:PREROUTING DROP [1:2]
:DOCKER - [0:0]
-A PREROUTING -j DOCKER
COMMIT
*filter
:INPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A INPUT -j DOCKER
COMMIT
"""


def test_a_table_that_was_not_there_before_is_emptied_and_its_own_chains_go() -> None:
    assert emptied(NOW, BEFORE) == "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"


def test_nothing_new_leaves_nothing_to_do() -> None:
    assert emptied(BEFORE, BEFORE).strip() == ""
