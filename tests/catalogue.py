"""python -m tests.catalogue: hold the bundled catalogue against transformers; --refresh: read it anew from the Hub.

Without an option every entry is built by transformers on the meta device, and its tensors are compared; about a minute.
"""

from __future__ import annotations

import argparse
import json
from math import prod
from pathlib import Path
from typing import Any

from studio import json_text
from studio.base import catalogue, families


def differences() -> list[str]:
    """A line for every entry whose tensors are not those that transformers makes of its config."""
    from studio.worker.model_config import shapes

    told = []
    for name, entry in catalogue.entries().items():
        config = {key: value for key, value in entry["config"].items() if key != "architectures"}
        built = {tensor: tuple(shape) for tensor, shape in shapes(json.loads(json.dumps(config))).items()}
        _, held = catalogue.headers(name) or ({}, {})
        own = {tensor: shape for tensor, (_, shape) in held.items()}
        wrong = sorted(tensor for tensor in built.keys() | own.keys() if built.get(tensor) != own.get(tensor))
        if wrong or sum(map(prod, built.values())) != entry["parameters"]:
            told.append(f"{name}: {len(wrong)} tensors differ: {', '.join(wrong[:3])}")
    return told


def compressed(shapes: dict[str, Any]) -> dict[str, list[Any]]:
    """The reverse of `expanded`, for layers that are all alike. Raises ValueError where they are not."""
    lines: dict[str, list[Any]] = {}
    for name, shape in shapes.items():
        words = name.split(".")
        place = next((index for index, word in enumerate(words) if word.isdigit()), None)
        if place is None:
            lines[name] = list(shape)
            continue
        key = ".".join([*words[:place], "#", *words[place + 1 :]])
        count, known = lines.setdefault(key, [0, list(shape)])
        if known != list(shape):
            raise ValueError(f"{name} is {list(shape)}, in other layers {known}")
        lines[key][0] = count + 1
    if catalogue.expanded(lines) != {name: list(shape) for name, shape in shapes.items()}:
        raise ValueError("the layers do not hold the same tensors")
    return lines


def refreshed(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with what the Hub says today: licence, gate, count of parameters, and the config's values.

    A gated model's files are read with HF_TOKEN; without access its licence and gate alone are.
    """
    from huggingface_hub import HfApi, get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    info = HfApi().model_info(entry["model"])
    card = dict(info.card_data.to_dict()) if info.card_data else {}
    licence = card.get("license_name") if card.get("license") == "other" else card.get("license")
    fresh = entry | {"gated": bool(info.gated), "licence": licence or entry["licence"]}
    try:
        path = hf_hub_download(entry["model"], "config.json")
        counts = get_safetensors_metadata(entry["model"]).parameter_count
    except GatedRepoError:
        return fresh
    config = json_text.read(Path(path).read_text(encoding="utf-8"), "config.json")
    context = families.text_config(config).get("max_position_embeddings") or entry["context"]
    return fresh | {"parameters": sum(counts.values()), "context": context, "config": taken(entry["config"], config)}


def taken(known: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a known config with the values of a new one."""
    return {
        key: taken(value, config[key])
        if isinstance(value, dict) and isinstance(config.get(key), dict)
        # transformers wrote torch_dtype before its fifth version
        else config.get(key, config.get("torch_dtype", value) if key == "dtype" else value)
        for key, value in known.items()
    }


def refresh(file: Path = catalogue.FILE) -> list[str]:
    """Write the file anew. Returns a line for every value that changed."""
    whole = json_text.read(file.read_text(encoding="utf-8"), file.name)
    told = []
    for place, entry in enumerate(whole["models"]):
        fresh = refreshed(entry)
        told += [
            f"{entry['model']}: {key} {entry[key]} -> {fresh[key]}" for key in fresh if fresh[key] != entry.get(key)
        ]
        whole["models"][place] = fresh
    rows = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in whole["models"])
    file.write_text(f'{{"sources": {json.dumps(whole["sources"])},\n "models": [\n{rows}\n ]}}\n', encoding="utf-8")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="read licences, gates, counts and configs from the Hub")
    args = parser.parse_args()
    told = refresh() if args.refresh else differences()
    print("\n".join(told) or "nothing differs")
    if told and not args.refresh:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
