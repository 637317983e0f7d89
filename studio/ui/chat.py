"""The Chat tab: the base and the tuned model answer the same prompt, side by side."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from studio import data, events, json_text
from studio.data import new_files
from studio.errors import RunError, StudioError
from studio.home import subfolder
from studio.runs import checkpoints
from studio.talk import chat, chats, votes
from studio.ui import live, rights, who, words
from studio.ui.who import VISITOR, WATCHER

MAX_PROMPT_CHARS = 200_000  # characters of a prompt
FIRST_BYTES = 100_000  # of a diary: the held-out questions are asked before the first step
SAMPLING = {
    "temperature": (0.0, 5.0),
    "top_p": (0.001, 1.0),
    "top_k": (0, 1000),
    "repetition_penalty": (0.5, 3.0),
    "max_tokens": (1, 8192),
    "seed": (0, 2**31),
}
PROMPTS = (
    "What can you help me with?",
    "Explain in two sentences why the sky is blue.",
    "Write a short thank-you note to a neighbour.",
    "Give me three ideas for a rainy Sunday.",
)


# -- what the page reads


@rights.read(WATCHER, VISITOR)
def models(question: dict[str, Any]) -> Response:
    """The models that can be asked, the newest finished run first, and the model server's state.

    Returns {models: [{name, label, base, under, kind, method, created}], server: {ready, models, …}, prompts}.
    """
    known = []
    for row in live.listing.rows():
        same = {"base": f"base:{row['id']}", "under": row["model"], "method": row["method"], "created": row["created"]}
        if row["result"]:
            known.append({"name": row["id"], "label": row["name"], "kind": "run", **same})
        for step in reversed(checkpoints.steps(subfolder("runs") / row["id"] / "checkpoints")):
            named = {"name": f"{row['id']}@checkpoint-{step}", "label": f"{row['name']} @ {step}"}
            known.append({**named, "kind": "checkpoint", **same})
    same = {"base": None, "under": "starter", "method": None, "created": 0}
    known.append({"name": "base", "label": "starter", "kind": "base", **same})
    begin = prompts(str(question.get("name") or ""), str(question.get("lang") or ""))
    return live.json_response({"models": known, "server": _server(), "prompts": begin})


def _server() -> dict[str, Any]:
    handle = chat.server()
    if not handle.ready():
        return {"ready": False}
    try:
        return {"ready": True, **handle.status()}
    except StudioError:
        return {"ready": False}


def prompts(name: str, lang: str = "en") -> list[str]:
    """Prompts to begin with: the run's own sample prompts, its sample data's, its held-out questions, else PROMPTS."""
    known = [words.say(prompt, lang) for prompt in PROMPTS]
    try:
        run = live.get_run(name.removeprefix("base:").partition("@")[0])
        config = run.config
    except StudioError:
        return known
    if config.training.sample_prompts:
        return list(config.training.sample_prompts)
    train = config.data.train if isinstance(config.data.train, str) else config.data.train[0].source
    for index, entry in enumerate(data.samples()):
        if train in (f"sample:{entry['name']}", "sample" if index == 0 else entry["name"]):
            return list(entry["prompts"])
    first, _ = events.read(run.events_file, limit=FIRST_BYTES)
    asked = dict.fromkeys(event["prompt"] for event in first if event["kind"] == "sample")
    return [prompt for prompt in asked if prompt] or known


@rights.read(WATCHER, VISITOR)
def talks(question: dict[str, Any]) -> Response:
    """The conversations that there are, the newest first."""
    # a visitor knows its own by their ids
    return live.json_response({"talks": [] if who.role.get() == VISITOR else chats.listing()})


@rights.read(WATCHER, VISITOR)
def said(question: dict[str, Any]) -> Response:
    """A conversation: {id, going, count, turns}; with `last` only the last turn, where their count is the same."""
    try:
        talk = _talk(str(question.get("id", "")))
    except StudioError as error:
        return live.json_response({"gone": error.message})
    with talk.lock:
        turns = [_shown(talk.values["blind"], turn) for turn in talk.turns]
        shown = {key: talk.values[key] for key in ("id", "title", "sides", "blind", "system", "sampling")} | {
            "going": talk.in_progress(),
            "count": len(turns),
        }
        if question.get("last") and len(turns) == question.get("turns"):
            shown["last"] = turns[-1]
        else:
            shown["turns"] = turns
    if talk.values["blind"]:
        shown["sides"] = sorted(shown["sides"])
    if talk.write_error is not None:
        shown["trouble"] = talk.write_error.as_dict()
    if talk.in_progress():
        shown["server"] = _server()
    return live.json_response(shown)


def _shown(blind: bool, turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as the page may see it: who spoke stays hidden until the vote."""
    hidden = blind and len(turn["sides"]) > 1 and turn["vote"] is None
    shown = {**turn, "sides": [None for _ in turn["sides"]] if hidden else turn["sides"], "hidden": hidden}
    if turn["vote"] and len(set(turn["sides"])) == 2:
        about, other = _pair(turn["sides"])
        shown["rate"] = {"name": about, **votes.tally(about, other)}
    return shown


def _pair(sides: list[str]) -> tuple[str, str]:
    """(the model that a vote is about, the other): the tuned one before the base."""
    tuned, other = sorted(sides, key=lambda side: side.partition(":")[0] == "base")[:2]
    return tuned, other


@rights.read(WATCHER)
def cast_votes(question: dict[str, Any]) -> Response:
    """All votes about a model as JSON lines."""
    cast = votes.votes(_side(str(question.get("name") or "base")))
    return Response(json_text.lines(cast), media_type="text/plain; charset=utf-8")


# -- jobs


@rights.job(VISITOR)
def chat_ask(values: dict[str, Any]) -> dict[str, Any]:
    """Ask one or two models. {prompt, sides: [name], id?, turn?, system?, sampling?, blind?} -> {id, turn}.

    id: go on with a conversation; turn: drop the turns from that one on (retry, edit). Answers are read with `said`.
    """
    prompt = values.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT_CHARS:
        raise StudioError("There is no question.", f"Write one, of at most {MAX_PROMPT_CHARS} characters.", "prompt")
    sides = [_side(str(name)) for name in (values.get("sides") or ["base"])[:2]]
    talk = _talk(str(values["id"])) if values.get("id") else chats.new(sides)
    if talk.in_progress():
        talk.stop()
    with talk.lock:
        if not talk.turns:
            talk.values["visited"] = who.role.get() == VISITOR
        talk.values.update(
            sides=sides,
            blind=bool(values.get("blind")) and len(sides) == 2,
            system=str(values.get("system") or "")[:MAX_PROMPT_CHARS],
            sampling=_sampling(values.get("sampling") or {}),
        )
        turn = values.get("turn")
        if isinstance(turn, int) and 0 <= turn < len(talk.turns):
            del talk.turns[turn:]
        talk.ask(prompt)
    return {"id": talk.id, "turn": len(talk.turns) - 1}


def _talk(name: str) -> chats.Conversation:
    """A conversation by its id; for a visitor only one that a visitor began. Raises StudioError."""
    talk = chats.find(name)
    if who.role.get() == VISITOR and not talk.values.get("visited"):
        raise StudioError(f"There is no conversation {name!r}.", "It may have been deleted.", "conversation")
    return talk


def _side(name: str) -> str:
    """The name of a model of this studio: base, base:RUN, RUN or RUN@checkpoint-N. Raises RunError for any other."""
    if name != "base":
        live.get_run(name.removeprefix("base:").partition("@")[0])
    return name


def _sampling(values: dict[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in SAMPLING:
            raise StudioError(f"There is no setting {key!r}.", f"Settings: {', '.join(SAMPLING)}.", key)
        low, high = SAMPLING[key]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise StudioError(f"{key} is {value!r}, but should be from {low} to {high}.", "", key)
        checked[key] = int(value) if isinstance(low, int) else float(value)
    return checked


@rights.job(VISITOR)
def chat_stop(id: str) -> dict[str, Any]:
    """Stop the answers that are being written. Returns {id}."""
    _talk(id).stop()
    return {"id": id}


@rights.job()
def chat_vote(id: str, turn: int, choice: str) -> dict[str, Any]:
    """Vote left, right or tie on a turn, as it was shown; who spoke is shown from then on. Returns {id}."""
    talk = chats.find(id)
    with talk.lock:
        if (
            choice not in ("left", "right", "tie")
            or not 0 <= turn < len(talk.turns)
            or len(talk.turns[turn]["sides"]) < 2
        ):
            hint = "Vote left, right or tie on an answered turn."
            raise StudioError(f"{choice!r} is no vote on turn {turn}.", hint, "choice")
        turn_record = talk.turns[turn]
        if turn_record["vote"] is None:
            turn_record["vote"] = choice
            talk.write()
            left, right = (
                {"model": side, "answer": answer["text"]}
                for side, answer in zip(turn_record["sides"], turn_record["answers"], strict=True)
            )
            asked = [talk.messages(turn_record, side) for side in turn_record["sides"]]
            before = asked[0] if asked[0] == asked[1] else None  # else the sides went on from other answers
            votes.vote(left, right, choice, turn_record["prompt"], _pair(turn_record["sides"])[0], before)
    return {"id": id}


@rights.job(waits=True)
def chat_pairs() -> dict[str, Any]:
    """A data set of preference pairs made of all blind votes. Returns {source, name, pairs, left_out}."""
    rows, left_out = votes.pairs()
    path = new_files.new_file(rows, "pairs-from-votes")
    return {"source": str(path), "name": path.name, "pairs": len(rows), "left_out": left_out}


@rights.job()
def chat_delete(id: str) -> dict[str, Any]:
    """Remove a conversation. Returns {id}."""
    chats.delete(id)
    return {"id": id}


@rights.job(VISITOR, waits=True)
def chat_load(names: list[str]) -> dict[str, Any]:
    """Load models before the first question, starting the model server if need be. Returns {models}."""
    return {"models": chat.server().load([_side(str(name)) for name in names[:2]])}


@rights.job(waits=True)
def chat_unload() -> dict[str, Any]:
    """End the model server; every byte goes back. Returns {bytes}."""
    return {"bytes": chat.end()}


@rights.job()
def chat_keep(values: dict[str, Any]) -> dict[str, Any]:
    """Append an answer, as it is or corrected, to a data set. {id, turn, side, text, name} -> {path, rows}."""
    talk = chats.find(str(values.get("id", "")))
    turn, side, text = values.get("turn"), values.get("side"), values.get("text")
    if (
        not isinstance(turn, int)
        or not 0 <= turn < len(talk.turns)
        or side not in (0, 1)
        or not isinstance(text, str)
        or not text.strip()
    ):
        raise RunError("There is no answer to keep.", "Keep an answer that stands there, or write one.", "text")
    turn_record = talk.turns[turn]
    messages = talk.messages(turn_record, turn_record["sides"][min(side, len(turn_record["sides"]) - 1)])
    path = new_files.append_rows(
        [chats.row([*messages, {"role": "assistant", "content": text.strip()}])],
        str(values.get("name") or "kept-answers"),
    )
    return {"path": str(path), "rows": sum(1 for _ in open(path, encoding="utf-8"))}
