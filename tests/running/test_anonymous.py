"""Texts to be sent do not contain paths of the machine they come from."""

from __future__ import annotations

import json

import pytest

from cnnperf.running.anonymous import anonymous

KNOWN = {"/home/jane doe/results": "<out>", "/home/jane doe": "<home>", "/opt/py": "<python>"}


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("/home/jane doe/results/a.json", "<out>/a.json"),
        ("in /home/jane doe: nothing", "in <home>: nothing"),
        ('File "/opt/py/lib/x.py", line 3', 'File "<python>/lib/x.py", line 3'),
        ("/opt/python3/x/y.py", ".../y.py"),
        ("/srv/users/joe/venv/bin/python -m x", ".../python -m x"),
        ("cpu=/data/joe/run, 3 images/s, 1/2", "cpu=.../run, 3 images/s, 1/2"),
        ("see https://github.com/a/b/c", "see https://github.com/a/b/c"),
        ("runs/a/b.jsonl ./a/b", "runs/a/b.jsonl ./a/b"),
    ],
)
def test_folders_are_named_or_left_out(text: str, without: str) -> None:
    """Known folders get a name, other absolute paths keep their last part; rates, URLs and relative paths stay."""
    assert anonymous(text, KNOWN) == without


def test_json_stays_json() -> None:
    """Paths in JSON are shortened within their quotes."""
    document = {"python": "/home/jane doe/venv/bin/python", "values": [1.5, 2], "folder": "/srv/a/b"}
    assert json.loads(anonymous(json.dumps(document), KNOWN)) == {
        "python": "<home>/venv/bin/python",
        "values": [1.5, 2],
        "folder": ".../b",
    }
