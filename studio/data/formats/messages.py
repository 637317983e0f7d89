"""Messages: what all formats with a list of turns have in common."""

from __future__ import annotations

import json
from typing import Any

from studio.data.formats import ReportProblem, Row
from studio.data.formats.content import is_parts, turns_from_parts
from studio.data.formats.fields import kind, reasoning_of, system_of
from studio.data.formats.flags import flags_of, ranges_of
from studio.data.formats.tool_turns import RESULT_TEXT, declared_tools, match_results, read_written_calls
from studio.data.roles import CONTENT_KEYS, MESSAGE_COLUMNS, ROLE_KEYS, ROLES, role_order_problem
from studio.text import tool_calls

KEPT = ("name", "tool_call_id")
CALLING = frozenset({"function_call", "tool_call", "tool_calls"})  # roles whose content is a call
THINKING = frozenset({"thought", "thoughts", "thinking", "think", "reasoning", "analysis"})  # roles of the reasoning
SPEAKERS = {name: role for name, role in ROLES.items() if role != "tool" and name not in CALLING | THINKING}
ODD_ARGUMENTS = "The arguments of the call are no JSON object: the model learns to write them so."
NOTHING: dict[str, Any] = {}
TURN_MASKS = ("loss_mask", "train_mask", "weights")  # columns with 1 for every turn that is learnt
MASKS = frozenset(TURN_MASKS)
HARD = frozenset({"unknown_role", "no_assistant"})  # no order of turns could save such a row


def is_turn(turn: Any, known: bool = False) -> bool:
    """Whether an object has a role and a content. known: and the role is a known one."""
    if not isinstance(turn, dict):
        return False
    role = next((turn[k] for k in ROLE_KEYS if k in turn), None)
    has_content = any(k in turn for k in CONTENT_KEYS) or "tool_calls" in turn
    return has_content and role is not None and (not known or role_of(role) is not None)


def are_turns(value: Any, known: bool = False) -> bool:
    """Whether a value is a list of turns, at least one. known: and the role of each is a known one."""
    return isinstance(value, list) and bool(value) and all(is_turn(turn, known) for turn in value)


def role_of(name: Any) -> str | None:
    """The canonical role: system, user, assistant or tool; None for an unknown spelling."""
    if isinstance(name, dict):  # an author, as in ChatGPT's export
        name = name.get("role")
    return ROLES.get(name) or ROLES.get(_plain_name(name)) if isinstance(name, str) else None


def _plain_name(role: str) -> str:
    return role.strip(" :\t\n").lower().replace("-", "_")


def role_of_turn(turn: dict[str, Any]) -> str | None:
    """The canonical role of a turn."""
    return role_of(next((turn[key] for key in ROLE_KEYS if key in turn), None))


def list_column(row: Row) -> str | None:
    """The column that holds the list of turns."""
    return next((name for name in MESSAGE_COLUMNS if isinstance(row.get(name), list)), None)


def gather(
    row: Row,
    report: ReportProblem,
    role_key: str = "role",
    content_key: str = "content",
    plain: list[dict[str, Any]] | None = None,
) -> dict[str, Any] | None:
    """The row's turns as messages, checked. None when it cannot be trained on. plain: as `plain_messages` read them."""
    name = list_column(row)
    if name is None:
        present = next((n for n in MESSAGE_COLUMNS if n in row), None)
        if present is None:
            return report("missing_field", MESSAGE_COLUMNS[0], list(row))
        reason = f"The field must be a list of turns, but it is {kind(row[present])}."
        return report("wrong_type", present, row[present], reason)
    messages = plain or turns_of(row[name], report, name, role_key, content_key)
    if messages is None:
        return None
    if not MASKS.isdisjoint(row):
        _heed_masks(messages, row, len(row[name]), report)
    system = system_of(row, report)
    if system is None:
        return None
    put_first(system, messages)
    wrong = role_order_problem(tuple([m["role"] for m in messages]))
    if wrong:
        report(wrong[0], f"{name}[{wrong[1]}]", messages[wrong[1]]["content"], wrong[2])
        if wrong[0] in HARD:
            return None
    conversation: dict[str, Any] = {"messages": messages}
    if tools := declared_tools(row, () if plain else row[name], report):
        conversation["tools"] = tools
    read_written_calls(messages, tools, report, name)
    if not plain:
        match_results(messages, report, name)
    return conversation


def put_first(system: str, messages: list[dict[str, Any]]) -> None:
    """Insert a system prompt before the turns; where another one begins them, the two are joined."""
    if not system:
        return
    if not messages or messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    elif system.strip() not in messages[0]["content"]:
        messages[0] = messages[0] | {"content": f"{system}\n\n{messages[0]['content']}"}


def _heed_masks(messages: list[dict[str, Any]], row: Row, n_turns: int, report: ReportProblem) -> None:
    """A column such as loss_mask, with 0 or 1 for every turn, decides which answers are learnt."""
    for name in TURN_MASKS:
        mask = row[name] if isinstance(row.get(name), list) else None
        if not mask:
            continue
        if len(mask) != n_turns or len(messages) != n_turns or not all(value in (0, 1) for value in mask):
            reason = f"It must hold 0 or 1 for each of the {n_turns} turns: it is not heeded."
            report("unheeded_flag", name, mask, reason)
            continue
        for message, value in zip(messages, mask, strict=True):
            if not value and message["role"] == "assistant":
                message["weight"] = 0


def turns_of(
    turns: list[Any], report: ReportProblem, name: str, role_key: str = "role", content_key: str = "content"
) -> list[dict[str, Any]] | None:
    """The turns as messages; None, and reported, where one cannot be trained on. The keys: tried before all others."""
    if not turns:
        return report("empty_field", name, turns)
    messages: list[dict[str, Any]] = []
    thoughts: list[str] = []  # turns of their own, before the answer that they lead to
    for n, turn in enumerate(turns):
        if not thoughts and (plain := plain_messages([turn], role_key, content_key)):
            messages += plain
            continue
        where, role, content = f"{name}[{n}]", role_key, content_key
        expanded: list[Any] | None = [turn]
        if isinstance(turn, dict):
            if "actor" in turn and turn.get("type") == "service" and not any(turn.get(k) for k in CONTENT_KEYS):
                continue  # "Ann called", in an export of Telegram
            if role not in turn:
                role = next((k for k in ROLE_KEYS if k in turn), role)
            if content not in turn:
                content = next((k for k in CONTENT_KEYS if k in turn), content)
            value = turn.get(content)
            if type(value) is str or value is None:
                pass
            elif role_of(turn.get(role)) == "tool" and not is_parts(value):  # a result that is no text
                turn = turn | {content: json.dumps(value, ensure_ascii=False, default=str)}
                expanded = [turn]
            elif isinstance(value, list) and value and str(turn.get(role)).strip().lower() not in CALLING:
                expanded = turns_from_parts(turn, content, report, where)
        if expanded is None:
            return None
        for part in expanded:
            keys = (role, content) if part is turn or content in part else ("role", "content")
            message = _turn(part, report, where, *keys)
            if message is None:
                return None
            if message.pop("thought", False):
                thoughts.append(message["content"])
                continue
            if thoughts and message["role"] != "assistant":
                break
            is_call = message.pop("call", False)  # a turn for each call, or for words and call
            if thoughts:
                message["reasoning_content"] = "\n".join([*thoughts, *filter(None, [message.get("reasoning_content")])])
                thoughts = []
                messages.append(message)
            elif is_call and messages and messages[-1]["role"] == "assistant":
                before = messages[-1]
                before["tool_calls"] = [*before.get("tool_calls", ()), *message["tool_calls"]]
            else:
                messages.append(message)
        if thoughts and message["role"] != "assistant":
            break
    if thoughts:
        return report("role_order", f"{name}[{n}]", thoughts[-1], "No answer follows this reasoning.")
    return messages


def plain_messages(turns: Any, role_key: str, content_key: str) -> list[dict[str, Any]] | None:
    """The messages of turns that are a known role and words each, as nearly all are; None where one is more or less."""
    messages: list[dict[str, Any]] = []
    if type(turns) is list:
        for turn in turns:
            if type(turn) is not dict or len(turn) != 2:
                return None
            role, words = turn.get(role_key), turn.get(content_key)
            if type(role) is not str or type(words) is not str or role not in SPEAKERS or not words or words.isspace():
                return None
            messages.append({"role": SPEAKERS[role], "content": words})
    return messages or None


def _turn(turn: Any, report: ReportProblem, where: str, role_key: str, content_key: str) -> dict[str, Any] | None:
    """One turn as a message; "call", "thought": it is nothing but that, written as a turn of its own."""
    if not isinstance(turn, dict):
        reason = f"A turn must be an object with {role_key} and {content_key}, but it is {kind(turn)}."
        return report("wrong_type", where, turn, reason)
    role_name = turn.get(role_key)
    plain = _plain_name(role_name) if isinstance(role_name, str) else ""
    role = role_of(role_name)
    if role is None:
        return report("missing_field" if role_name is None else "unknown_role", f"{where}.{role_key}", role_name)
    content = turn.get(content_key)
    if content is None and isinstance(turn.get("refusal"), str):  # OpenAI's: what is said in the content's place
        content = turn["refusal"]
    extra = _extra(turn, role, report, where) if len(turn) > 2 or content_key not in turn else NOTHING
    if extra is None:
        return None
    if (plain in THINKING or turn.get("channel") == "analysis") and isinstance(content, str) and content.strip():
        return {"role": role, "content": content, "thought": True}
    recipient = turn.get("recipient")  # gpt-oss's, of a call
    if isinstance(recipient, str) and recipient.startswith("functions.") and isinstance(content, str):
        calls = tool_calls.calls_of([{"name": recipient.removeprefix("functions."), "arguments": content}])
        return {"role": role, "content": "", **extra, "tool_calls": calls, "call": True}
    if plain in CALLING:
        calls = tool_calls.calls_of(content)
        if calls:
            return {"role": role, "content": "", **extra, "tool_calls": calls, "call": True}
        report("odd_call", f"{where}.{content_key}", content)
    if type(content) is not str:
        content = None
    elif role == "tool" and (result := RESULT_TEXT.fullmatch(content)):
        content = result[1]  # the template writes the tags
    if content is None:
        if content_key not in turn and "tool_calls" not in extra:
            report("missing_field", f"{where}.{content_key}", turn)
        elif turn.get(content_key) is not None:
            value = turn[content_key]
            report("wrong_type", f"{where}.{content_key}", value, f"The content must be text, but it is {kind(value)}.")
        elif "tool_calls" not in extra:
            spoken = "audio" if isinstance(turn.get("audio"), dict) else None  # OpenAI's
            reason = "The turn holds an audio: training here is on text alone. Write its transcript as the content."
            report("empty_field", f"{where}.{spoken or content_key}", content, reason if spoken else "")
        if "tool_calls" not in extra:
            return None
        content = ""
    if not content.strip() and role in ("user", "assistant") and "tool_calls" not in extra:
        return report("empty_field", f"{where}.{content_key}", content)
    ranges = ranges_of(turn, role, content, report, where) if extra is not NOTHING else NOTHING
    return None if ranges is None else {"role": role, "content": content, **extra, **ranges}


def _extra(turn: dict[str, Any], role: str, report: ReportProblem, where: str) -> dict[str, Any] | None:
    """What a turn says beside its words: calls, reasoning, whether it is trained on. None when it cannot be used."""
    extra = {key: turn[key] for key in KEPT if turn.get(key) is not None}
    call = turn.get("tool_calls") or turn.get("function_call")
    if call:
        calls = tool_calls.calls_of(call)
        if calls is None:
            field = "tool_calls" if turn.get("tool_calls") else "function_call"
            reason = "A call must be an object with the function's name and its arguments."
            return report("wrong_type", f"{where}.{field}", call, reason)
        for wrong in (c for c in calls if not tool_calls.has_arguments(c)):
            report("odd_call", f"{where}.tool_calls", wrong["function"]["arguments"], ODD_ARGUMENTS)
        extra["tool_calls"] = calls
    reasoning = reasoning_of(turn, report, f"{where}.") if role == "assistant" else ""
    if reasoning is None:
        return None
    if reasoning:
        extra["reasoning_content"] = reasoning
    flags = flags_of(turn, role, report, where)
    return None if flags is None else extra | flags
