"""A server that carries out operations of every kind is killed: what it acknowledged is there, and no half of anything.

`make bench ARGS=kills` does the same some hundred times.
"""

from __future__ import annotations

from pathlib import Path

from ndstream.testing.killing import Killer


def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    killer = Killer(tmp_path, seed=1)
    while killer.findings.kills < 6:
        killer.kill()
    findings = killer.findings
    assert findings.details == []
    assert (findings.lost, findings.halves, findings.unreadable) == (0, 0, 0)
    assert findings.acknowledged >= findings.kills
