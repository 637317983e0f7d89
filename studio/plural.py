"""English sentences about one thing: "1 row is", where a sentence was made for any number of them."""

from __future__ import annotations

import re

# as Python and the page's script both read it. "row 1" and "step 1" are no counts.
ONE = (
    r"(?<![\w.,/:-])(?<![Rr]ow )(?<!step )(?<!epoch )(?<!line )(?<!run )1 (?:"
    r"((?:first |last |held-out |more |other )?(?:row|minute|second|hour|day|token|evaluation|conversation|step|epoch"
    r"|file|model|run|question|answer|character|link|column|pair|text|checkpoint|prompt|message|turn|example|device"
    r"|change))s"
    r"|(process)es)\b(?: (are|were|have|do|look)\b)?"
)
VERBS = {"are": "is", "were": "was", "have": "has", "do": "does", "look": "looks"}
_ONE = re.compile(ONE)


def of_one(sentence: str) -> str:
    """The sentence with the singular after each 1 that counts something."""
    return _ONE.sub(lambda found: f"1 {found[1] or found[2]}" + (f" {VERBS[found[3]]}" if found[3] else ""), sentence)
