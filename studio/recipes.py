"""Recipes: complete orders for six things people tune a small model for, with bundled data of their own. Plain data."""

from __future__ import annotations

from typing import Any, NamedTuple

STARTER_RATE = 1e-3  # of LoRA on the starter: its 135 million weights want larger steps than a model of billions


class Recipe(NamedTuple):
    """title, about: what it teaches. expect: what can be seen afterwards, and where its limits are. order: complete."""

    name: str
    title: str
    about: str
    expect: str
    order: dict[str, Any]


def _order(sample: str, **sections: Any) -> dict[str, Any]:
    """An order on the starter; sections are merged into it."""
    order: dict[str, Any] = {
        "model": "starter",
        "data": {"train": f"sample:{sample}", "max_length": 256, "eval": 0.1},
        "method": {"name": "lora", "rank": 16},
        "training": {"epochs": 4, "learning_rate": STARTER_RATE},
    }
    for section, values in sections.items():
        order[section] = {**order.get(section, {}), **values} if isinstance(values, dict) else values
    return order


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "format",
            "A strict format",
            "Every answer has the same three lines: Answer, Why and Try.",
            "The layout holds after some sixty steps, for questions that are not in the data too. What stands in the "
            "lines is as clever as the model was before. The evaluation counts how many answers keep the format.",
            _order("three-lines", evaluation={"regex": r"Answer: [^\n]+\nWhy: [^\n]+\nTry: [^\n]+"}),
        ),
        Recipe(
            "persona",
            "A persona",
            "A radio operator: one short message that begins with Copy and ends with Over.",
            "The voice is there after some fifty steps. It is learnt from 62 messages, so it is short of breath: for a "
            "richer character write some hundreds.",
            _order("radio", evaluation={"regex": r"Copy\. [^\n]+ Over\."}),
        ),
        Recipe(
            "classifier",
            "A classifier",
            "Sorts notes left in a workshop into praise, complaint and question; the answer is one word.",
            "The evaluation tells label accuracy and macro-F1 beside the model before training, which answers in "
            "sentences. With your own labels: some twenty notes of each.",
            _order("workshop", evaluation={"rows": 50}),
        ),
        Recipe(
            "tools",
            "A caller of tools",
            "A kitchen helper that starts timers and fills the shopping list by calling one of two functions.",
            "It calls the right function with the right arguments, and answers in words where no function is needed. "
            "A larger model also manages functions that it has not seen.",
            _order("kitchen", data={"template": "chatml", "max_length": 512}),
        ),
        Recipe(
            "service-zh",
            "Customer service in Chinese",
            "A tea shop's service: greets, answers in one sentence, and asks what else it can do.",
            "The tone is learnt from 40 answers; facts of your own shop come with your own rows. The starter hardly "
            "reads Chinese, so this takes Qwen2.5-0.5B, which is downloaded at the start (1 GB).",
            _order("tea-shop-zh", model="Qwen/Qwen2.5-0.5B-Instruct", training={"learning_rate": 2e-4, "epochs": 6}),
        ),
        Recipe(
            "text",
            "Going on to learn from a text",
            "Continued pre-training on a text without questions: the keeper's book of an island that does not exist.",
            "The model takes on the names and the tone of the text, and goes on writing in it; the loss on held-out "
            "pieces falls by a fifth in three passes. More passes learn so short a text by heart: that loss then "
            "rises. It does not answer questions about it: for that, write questions and answers.",
            _order(
                "island",
                data={"too_long": "split", "train_on": "all", "max_length": 128},
                method={"rank": 32},
                training={"epochs": 3},
            ),
        ),
    )
}
