"""chat and serve: talk to a voice in the terminal, or give it to other programs."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from studio import chat, voice
from studio.commands import Failed
from studio.errors import OrderError, StudioError
from studio.home import PROJECT

NAMES = "a run (its id, a unique part of it, or last), RUN@checkpoint-N, base, base:MODEL, or a folder"


def add(parsers: Any, common: ArgumentParser) -> None:
    talk = parsers.add_parser("chat", parents=[common], help="talk to a run or a model in the terminal")
    talk.add_argument("model", metavar="MODEL", help=NAMES)
    talk.add_argument("--prompt", metavar="TEXT", help="ask this one question and end; - reads it from standard input")
    talk.add_argument("--system", metavar="TEXT", help="what the model is told beforehand")
    talk.add_argument("--base", action="store_true", help="ask the untuned model under it as well")
    talk.add_argument("--temperature", type=float, default=0.7, help="0: always the likeliest word; higher: more varied")
    talk.add_argument("--top-p", type=float, default=0.95, help="only the likeliest words that together reach this share")
    talk.add_argument("--max-tokens", type=int, default=512, help="longest answer")
    talk.add_argument("--seed", type=int, help="the same seed gives the same answer")
    talk.add_argument("--keep", action="store_true", help="leave the model server running for the next question")
    talk.set_defaults(run=talk_to, show=lambda answer: None)
    give = parsers.add_parser("serve", parents=[common], help="an OpenAI-style API for other programs")
    give.add_argument("models", nargs="+", metavar="MODEL", help=NAMES)
    give.add_argument("--port", type=int, default=8000)
    give.add_argument("--host", default="127.0.0.1", help="only this computer, unless another address is given")
    give.set_defaults(run=serve)


def talk_to(args: Namespace) -> Any:
    """One question with --prompt, else a conversation until end of input. The server goes when we go, unless it was there before."""
    told = [{"role": "system", "content": args.system}] if args.system else []
    sampling = {key: value for key, value in (("temperature", args.temperature), ("top_p", args.top_p), ("max_tokens", args.max_tokens),
                                              ("seed", args.seed)) if value is not None}
    name = voice.name_of(args.model)
    names = [name, f"base:{name.partition('@')[0]}"] if args.base else [name]
    server, was_there = chat.server(), chat.server().ready()
    print(f"loading {', '.join(names)}…", file=sys.stderr, flush=True)
    try:
        server.load(names)
        if args.prompt is None:
            return _conversation(server, names, told, sampling)
        prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
        answers = [_ask(server, one, [*told, {"role": "user", "content": prompt}], sampling, args.json, len(names) > 1) for one in names]
        return answers[0] if len(answers) == 1 else {**answers[0], "base": answers[1]}
    finally:
        if not was_there and not args.keep:
            chat.end()


def _conversation(server: chat.Server, names: list[str], told: list[dict[str, str]], sampling: dict[str, Any]) -> dict[str, Any]:
    print("Ctrl-D ends, Ctrl-C stops an answer.", file=sys.stderr)
    said: dict[str, list[dict[str, str]]] = {name: list(told) for name in names}
    last: dict[str, Any] = {}
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            return last
        for name in names if prompt else []:
            said[name].append({"role": "user", "content": prompt})
            last = _ask(server, name, said[name], sampling, False, len(names) > 1)
            said[name].append({"role": "assistant", "content": last["answer"]})


def _ask(server: chat.Server, name: str, messages: list[dict[str, str]], sampling: dict[str, Any], quiet: bool, several: bool) -> dict[str, Any]:
    """Stream one answer to standard output (with --json to standard error) and return it."""
    out = sys.stderr if quiet else sys.stdout
    if several:
        print(f"[{name}]", file=out)
    text, usage, finish = "", {}, "cancelled"
    stream = server.stream(name, messages, **sampling)
    try:
        for delta in stream:
            text += delta.text
            print(delta.text, end="", file=out, flush=True)
            usage, finish = delta.usage or usage, delta.finish or finish
    except KeyboardInterrupt:
        stream.close()
    print(file=out)
    return {"model": name, "answer": text, "tokens": usage.get("tokens"), "tokens_per_second": usage.get("tokens_per_second"), "finish": finish}


def serve(args: Namespace) -> Any:
    """Run the server in the foreground until Ctrl-C. Its key comes from STUDIO_API_KEY, else it is made up and printed."""
    names = [voice.name_of(name) for name in args.models]
    chat.check_room([], [voice.voice(name, lambda what, *_: print(what, file=sys.stderr)) for name in names])
    key = os.environ.get("STUDIO_API_KEY") or secrets.token_urlsafe(24)
    environment = {**os.environ, "STUDIO_API_KEY": key, **chat.CALM}
    command = [sys.executable, "-m", "studio.worker.serve", *names, "--host", args.host, "--port", str(args.port)]
    if _taken(args.host, args.port):
        raise OrderError(f"The port {args.port} is taken.", "Give another one with --port.", "--port")
    print(f"http://{args.host}:{args.port}/v1\nAPI key: {key}\nmodels: {', '.join(names)}\nCtrl-C ends.", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        code = 0 if process.wait() is not None else 1
    answer = {"address": f"http://{args.host}:{args.port}/v1", "models": names, "code": code}
    if code:
        raise Failed(answer)
    return answer


def _taken(host: str, port: int) -> bool:
    import socket
    try:
        socket.create_server((host, port)).close()
    except OverflowError as error:
        raise OrderError(f"{port} is no port.", "Give 0 to 65535.", "--port") from error
    except OSError as error:
        if isinstance(error, PermissionError):
            raise StudioError(f"The port {port} may not be opened.", "Give one above 1023.", "--port") from error
        return True
    return False
