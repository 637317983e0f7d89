"""python -m studio.worker.settings CONFIG.json.

Prints the settings in a config.json as one JSON object, with the defaults of its class in transformers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """The settings under the names that transformers 5 writes. Raises ValueError for an unknown model type."""
    return AutoConfig.for_model(**config).to_dict()


if __name__ == "__main__":
    print(json.dumps(completed(json.loads(Path(sys.argv[1]).read_text()))))
