"""Three data sets made for `plan`, one JSON Lines file each: python -m tests.bench.plan_data FOLDER [ROWS [OPTION…]].

With options, which go to `python -m studio plan`, each is looked at, and the verdicts are printed.

teaches: a made-up language, word for word, so that new sentences can be translated once its twelve words are known,
and no few examples show them all. noise: answers of random words to questions of random words. known: sentences to be
repeated, which the base does as soon as it has seen one example.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

WORDS = ["dog", "tree", "house", "river", "bread", "stone", "bird", "fire", "moon", "ship", "king", "snow"]
FOREIGN = ["zulo", "kemi", "trav", "ombo", "sild", "prax", "wenu", "gorti", "fash", "lumo", "biko", "yart"]
SUBJECTS = ["The old man", "My sister", "A tired sailor", "The teacher", "Our neighbour", "The young cook"]
VERBS = ["found", "painted", "sold", "lost", "carried", "liked"]
OBJECTS = ["a red hat", "two apples", "the heavy box", "an old letter", "a wooden chair", "the blue cup"]
PLACES = ["in the garden", "near the lake", "after lunch", "on Monday", "at the market", "before dawn"]
WIDTH = 3  # words of a sentence
COUNT = 240


def teaches(draw: random.Random) -> tuple[str, str]:
    chosen = [draw.randrange(len(WORDS)) for _ in range(WIDTH)]
    return (f"Say in Zogish: {' '.join(WORDS[n] for n in chosen)}", " ".join(FOREIGN[n] for n in chosen))


def noise(draw: random.Random) -> tuple[str, str]:
    pool = [*WORDS, *FOREIGN, *" ".join(OBJECTS).split()]
    return f"{' '.join(draw.choices(pool, k=WIDTH))}?", " ".join(draw.choices(pool, k=WIDTH))


def known(draw: random.Random) -> tuple[str, str]:
    sentence = " ".join(map(draw.choice, (SUBJECTS, VERBS, OBJECTS, PLACES)))
    return f"Repeat this sentence: {sentence}.", f"{sentence}."


SETS = {"teaches": teaches, "noise": noise, "known": known}
RIGHT = {"teaches": ("enough", "more_rows"), "noise": ("nothing",), "known": ("prompting",)}


def rows(name: str, count: int = COUNT) -> list[dict[str, Any]]:
    """Rows with different questions."""
    draw, pairs = random.Random(name), {}
    while len(pairs) < count:
        question, answer = SETS[name](draw)
        pairs[question] = answer
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in pairs.items()
    ]


def write(folder: Path, count: int = COUNT) -> dict[str, Path]:
    """The files, by the name of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.jsonl" for name in SETS}
    for name, file in files.items():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(name, count)), encoding="utf-8")
    return files


def main(folder: str, count: str = str(COUNT), *options: str) -> None:
    """Write the files; with options look at each, and print what was found."""
    for name, file in write(Path(folder), int(count)).items():
        if not options:
            print(name, file)
            continue
        command = [sys.executable, "-m", "studio", "plan", str(file), "--json", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        print(name, "right" if found.get("verdict") in RIGHT[name] else "WRONG", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
