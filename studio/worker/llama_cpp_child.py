"""Child of llama_cpp.Reader: opens one GGUF file with one package, and answers questions as lines of JSON.

xllamacpp has llama.cpp's server with its own Jinja; llama-cpp-python is the best known binding. Never torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import os
import sys
import urllib.request
from typing import Any

from studio import device, process

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None


class Refused(Exception):
    """llama.cpp does not answer a question, with its reason."""


def _named(package: str) -> str:
    return f"llama.cpp ({package} {importlib.metadata.version(package)})"


class Server:
    """llama.cpp's server inside xllamacpp: the chat template is rendered by llama.cpp's own Jinja. See Reader."""

    def __init__(self, file: str, context: int):
        import xllamacpp

        self.name = _named("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = file
        params.n_ctx = context
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.warmup = False
        # exact, so that what differs is the file: at their defaults near ties among 200 tokens fall otherwise
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.verbosity = 0
        params.use_jinja = True
        params.cpuparams.n_threads = device.cores()
        self.server = xllamacpp.Server(params)

    def ids(self, text: str, add_special: bool = False) -> list[int]:
        return self._post("tokenize", {"content": text, "add_special": add_special, "parse_special": True})["tokens"]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def answer(self, messages: Messages, max_tokens: int, tools: Tools) -> dict[str, Any]:
        asked: dict[str, Any] = {"messages": messages, "reasoning_format": "none"}
        if tools:
            asked |= {"tools": tools, "tool_choice": "none"}  # in the prompt; no grammar for the answer
        response = self.server.handle_chat_completions(
            {
                **asked,
                "max_tokens": max_tokens,
                "temperature": 0,
                "repeat_penalty": 1.0,
                "cache_prompt": False,
                "return_tokens": True,
                "verbose": True,
            }
        )
        if "choices" not in response:
            reason = response.get("message") or response
            raise Refused(str(reason))
        inner = response["__verbose"]
        stopped = inner["stop_type"] == "eos"
        return {
            "text": response["choices"][0]["message"]["content"] or "",
            "ids": inner["tokens"][:-1] if stopped else inner["tokens"],
            "prompt": self.ids(self._post("apply-template", asked)["prompt"], add_special=True),
            "finish": "stop" if stopped else "length",
        }


class Python:
    """llama-cpp-python's Llama, with its own Jinja. See Reader.

    Its create_chat_completion returns no ids, and drops the bytes of half a character from the text.
    """

    def __init__(self, file: str, context: int):
        import llama_cpp
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self.name = _named("llama-cpp-python")
        exact = {"flash_attn": False, "type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        self.llama = llama_cpp.Llama(file, n_ctx=context, n_threads=device.cores(), verbose=False, **exact)
        vocabulary = llama_cpp.llama_model_get_vocab(self.llama.model)
        self.ends = functools.partial(llama_cpp.llama_vocab_is_eog, vocabulary)
        begin, end = (
            self.llama.detokenize([token], special=True).decode() if token >= 0 else ""
            for token in (self.llama.token_bos(), self.llama.token_eos())
        )
        self.rendered = Jinja2ChatFormatter(self.llama.metadata["tokenizer.chat_template"], end, begin)

    def ids(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def answer(self, messages: Messages, max_tokens: int, tools: Tools) -> dict[str, Any]:
        prompt = self.ids(self.rendered(messages=messages, tools=tools).prompt)
        self.llama.reset()
        generated = itertools.islice(self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0), max_tokens)
        ids = list(itertools.takewhile(lambda token: not self.ends(token), generated))
        return {
            "text": self.llama.detokenize(ids).decode(errors="replace"),
            "ids": ids,
            "prompt": prompt,
            "finish": "length" if len(ids) == max_tokens else "stop",
        }


KINDS: dict[str, Any] = {"xllamacpp": Server, "llama-cpp-python": Python}


def main(package: str, file: str, context: int) -> None:
    """Write the reader's name, then {"result"} or {"refused"} for every question; end with the questions."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what llama.cpp prints is no answer

    def write(message: dict[str, Any]) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    reader = KINDS[package](file, context)
    write({"result": reader.name})
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        try:
            write({"result": getattr(reader, question)(*arguments)})
        except Refused as refused:
            write({"refused": str(refused)})


if __name__ == "__main__":
    process.die_with_parent(os.getppid())
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
