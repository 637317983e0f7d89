"""chat and serve: talk to a model in the terminal, or serve it to other programs."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from argparse import Namespace
from typing import Any

from studio import address, credentials
from studio.commands import Commands, Failed
from studio.data import new_files
from studio.device import default_environment
from studio.errors import ModelError, OrderError, StudioError
from studio.home import PROJECT
from studio.talk import chat, chats, reference, room

NAMES = "a run (its id, a unique part of it, or last), RUN@checkpoint-N, base, base:MODEL, or a folder"
HELP = """/system TEXT   what the model is told beforehand; alone: nothing any more
/retry         ask the last question again
/reset         begin a new conversation
/keep [NAME]   append this conversation, up to the last answer, to the data set NAME (kept-answers unless told)
/quit          end; so does Ctrl-D. Ctrl-C stops an answer."""


def add(commands: Commands) -> None:
    talk = commands.add("chat", "talk to a run or a model in the terminal", talk_to, lambda answer: None)
    talk.add_argument("model", metavar="MODEL", help=NAMES)
    talk.add_argument("--prompt", metavar="TEXT", help="ask this one question and end; - reads it from standard input")
    talk.add_argument("--system", metavar="TEXT", default="", help="what the model is told beforehand")
    talk.add_argument("--base", action="store_true", help="ask the untuned model under it as well")
    talk.add_argument(
        "--temperature", type=float, default=0.7, help="0: always the likeliest word; higher: more varied"
    )
    talk.add_argument(
        "--top-p", type=float, default=0.95, help="only the likeliest words that together reach this share"
    )
    talk.add_argument("--max-tokens", type=int, default=512, help="longest answer")
    talk.add_argument("--seed", type=int, help="the same seed gives the same answer")
    talk.add_argument("--keep", action="store_true", help="leave the model server running for the next question")
    give = commands.add("serve", "an OpenAI-style API for other programs", serve, lambda answer: None)
    give.add_argument("models", nargs="+", metavar="MODEL", help=NAMES)
    give.add_argument("--port", type=int, default=8000)
    give.add_argument("--host", default="127.0.0.1", help="only this computer, unless another address is given")


# -- chat


def talk_to(args: Namespace) -> Any:
    """One question with --prompt, else a conversation until end of input. The server goes too, unless it was there."""
    sampling = {
        key: value
        for key, value in (
            ("temperature", args.temperature),
            ("top_p", args.top_p),
            ("max_tokens", args.max_tokens),
            ("seed", args.seed),
        )
        if value is not None
    }
    name = reference.canonical_name(args.model)
    names = [name, f"base:{name.partition('@')[0]}"] if args.base and not name.startswith(reference.BASE) else [name]
    out = sys.stderr if args.json else sys.stdout
    server, was_there = chat.server(), chat.server().ready()
    print(f"loading {', '.join(names)}…", file=sys.stderr, flush=True)
    try:
        server.load(names)
        talk = chats.new(names, system=args.system, sampling=sampling, saved=args.prompt is None)
        if args.prompt is None:
            return _conversation(talk, out)
        talk.ask(sys.stdin.read() if args.prompt == "-" else args.prompt)
        return _answered(talk, out)
    finally:
        if not was_there and not args.keep:
            chat.end()


def _conversation(talk: chats.Conversation, out: Any) -> dict[str, Any]:
    """Questions from standard input and their answers, until /quit, Ctrl-D or Ctrl-C. Returns the last answer."""
    print("/help tells what else can be typed.", file=sys.stderr)
    last: dict[str, Any] = {}
    while (line := _line()) is not None and line not in ("/quit", "/exit"):
        try:
            if line.startswith("/"):
                talk, line = _command(talk, *line.partition(" ")[::2])
            if line:
                talk.ask(line)
                last = _answered(talk, out)
        except StudioError as error:  # said; the conversation goes on
            print(f"{error.message} {error.hint}", file=sys.stderr)
    if talk.turns:
        print(f"Kept: the page's Chat tab lists it, and {talk.file} holds it.", file=sys.stderr)
    return last


def _line() -> str | None:
    """The next line, with arrow keys and history where a person types; None when there will be no more."""
    try:
        if not sys.stdin.isatty():
            return line.strip() if (line := sys.stdin.readline()) else None
        import readline  # noqa: F401 - input() edits lines and knows the ones before, once it is imported

        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return None


def _command(talk: chats.Conversation, word: str, rest: str) -> tuple[chats.Conversation, str]:
    """Carry out a slash command. Returns the conversation that goes on, and a question to be asked now, or ""."""
    if word == "/system":
        talk.values["system"] = rest.strip()
    elif word == "/reset":
        return chats.new(talk.values["sides"], system=talk.values["system"], sampling=talk.values["sampling"]), ""
    elif word == "/retry" and talk.turns:
        return talk, talk.turns.pop()["prompt"]
    elif word == "/keep" and talk.turns:
        turn = talk.turns[-1]
        rows = [
            chats.row(
                [*talk.messages(turn, turn["sides"][0]), {"role": "assistant", "content": turn["answers"][0]["text"]}]
            )
        ]
        print(new_files.append_rows(rows, rest.strip() or "kept-answers"), file=sys.stderr)
    else:
        print(HELP, file=sys.stderr)
    return talk, ""


def _answered(talk: chats.Conversation, out: Any) -> dict[str, Any]:
    """Write the last turn's answers to `out` as they come. Raises the error that kept a side from answering."""
    answers, turn = [], talk.turns[-1]
    for side, answer in zip(turn["sides"], turn["answers"], strict=True):
        if len(turn["sides"]) > 1:
            print(f"[{side}]", file=out)
        _follow(talk, answer, out)
        if answer["error"]:
            raise ModelError(answer["error"]["message"], answer["error"]["hint"], answer["error"]["where"])
        usage = answer["usage"] or {}
        answers.append(
            {
                "model": side,
                "answer": answer["text"],
                "tokens": usage.get("tokens"),
                "tokens_per_second": usage.get("tokens_per_second"),
                "finish": answer["finish"] or "cancelled",
            }
        )
    return answers[0] if len(answers) == 1 else {**answers[0], "base": answers[1]}


def _follow(talk: chats.Conversation, answer: dict[str, Any], out: Any) -> None:
    """Write one answer's text to `out` until it is complete; Ctrl-C stops it."""
    going, shown = True, 0
    while going:
        try:
            # asked before the text is looked at: what came last is written too
            going = answer["state"] in chats.IN_PROGRESS
            fresh, shown = answer["text"][shown:], len(answer["text"])
            print(fresh, end="" if going else "\n", file=out, flush=True)
            time.sleep(0.02 if going else 0)
        except KeyboardInterrupt:
            talk.stop()


# -- serve


def serve(args: Namespace) -> Any:
    """Run the server in the foreground until Ctrl-C. Its key is STUDIO_API_KEY, else a new one, which is printed."""
    names = [reference.canonical_name(name) for name in args.models]
    room.check([], [reference.resolve(name, lambda what, *_: print(what, file=sys.stderr)) for name in names])
    key = os.environ.get("STUDIO_API_KEY") or secrets.token_urlsafe(24)
    environment = {**chat.SERVER_ENVIRONMENT, **default_environment()}
    command = [sys.executable, "-m", "studio.worker.serve", *names, "--host", args.host, "--port", str(args.port)]
    try:
        address.listen(args.host, args.port).close()
    except StudioError:
        raise
    except OSError as error:
        raise OrderError(f"The port {args.port} is taken.", "Give another one with --port.", "--port") from error
    base = f"http://{address.authority(args.host, args.port)}/v1"
    print(f"{base}\nAPI key: {key}\nmodels: {', '.join(names)}\nCtrl-C ends.", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end by another program: as by Ctrl-C
    with credentials.handed_over("STUDIO_API_KEY", STUDIO_API_KEY=key) as handed:
        process = subprocess.Popen(
            [*command, "--under", str(os.getpid())],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,  # Ctrl-C reaches us only, and we end it in order
            **handed | {"env": handed["env"] | environment},
        )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = _ended(process)
    answer = {"address": base, "models": names, "code": code}
    if code:
        raise Failed(answer)
    return answer


def _ended(process: subprocess.Popen[bytes]) -> int:
    """End the server as asked: answers that are being written are cut off, every byte goes back."""
    process.terminate()
    try:
        process.wait(10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    print("Ended.", file=sys.stderr)
    return 0
