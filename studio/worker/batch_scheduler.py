"""The batch scheduler: the only thread that touches a model. It prefills prompts and steps all running answers."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio import credentials
from studio.errors import ModelError, StudioError, named_reason
from studio.talk import room
from studio.talk.reference import BASE, BASE_PREFIX, ModelReference, of_base, resolve

Deliver = Callable[[dict[str, Any]], None]
LOG_HINT = "Look at the server's log for the whole story."


@dataclass
class PendingAnswer:
    """A request being answered. `deliver` takes its events: {text, logprobs}, {finish, usage} or {error}."""

    name: str
    messages: list[dict[str, Any]] | str  # a text is continued as it is
    sampling: dict[str, Any]
    template_variables: dict[str, Any] = field(default_factory=dict)  # like tools
    deliver: Deliver = lambda event: None
    cancelled: bool = False
    answer: Any = None
    created_at: float = field(default_factory=time.monotonic)
    first_token_seconds: float = 0.0

    def usage(self) -> dict[str, Any]:
        """Tokens and seconds so far. The speed counts from the first token on."""
        completion, prompt = len(self.answer.output_ids), len(self.answer.prompt_ids)
        seconds = time.monotonic() - self.created_at - self.first_token_seconds
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "first_token_seconds": round(self.first_token_seconds, 3),
            "tokens_per_second": round((completion - 1) / seconds, 1) if completion > 1 and seconds > 0 else None,
        }


class BatchScheduler(threading.Thread):
    """Loads models and generates answers. Other threads call `ask`, `load` and `unload` only."""

    def __init__(self, threads: int, names: Sequence[str] = ()):
        """names: models that will be loaded first. They are listed at once, since a request to them waits for them."""
        super().__init__(name="batch-scheduler", daemon=True)
        self.threads = threads
        self.inbox: queue.Queue[Callable[[], None]] = queue.Queue()
        self.doing, self.failure = "starting", ""
        self.names = list(names)
        self.last_used = time.monotonic()
        self._models: Any = None
        self._prefilling: dict[str, list[PendingAnswer]] = {}
        self._decoding: dict[str, list[PendingAnswer]] = {}

    # -- called from other threads

    def ask(self, pending: PendingAnswer) -> None:
        self.inbox.put(lambda: self._begin(pending))

    def load(self, names: list[str], deliver: Deliver, token: str | None = None) -> None:
        """token: of the Hub, for what has to be fetched."""
        self.inbox.put(lambda: self._load(names, deliver, token))

    def unload(self, names: list[str], deliver: Deliver) -> None:
        self.inbox.put(lambda: self._unload(names, deliver))

    @property
    def busy(self) -> int:
        """The number of answers being prefilled or decoded."""
        return sum(map(len, self._prefilling.values())) + sum(map(len, self._decoding.values()))

    # -- in this thread

    def run(self) -> None:
        self._prepare()
        while True:
            while not self.inbox.empty() or not self.busy:
                self.inbox.get()()
            self.last_used = time.monotonic()
            for name in list(self._models.by_name):
                try:
                    self._step(name)
                except Exception as error:  # noqa: BLE001 - out of memory ends these answers, not the server
                    traceback.print_exc()
                    self._fail(name, error)

    def _prepare(self) -> None:
        """Import torch, after the port is open."""
        self.doing = "loading torch"
        import torch

        from studio.worker.loaded import LoadedModels

        torch.set_num_threads(self.threads)
        self._models, self.doing = LoadedModels(), ""

    def _load(self, names: list[str], deliver: Deliver, token: str | None = None) -> None:
        try:
            for name in names:
                if name in self._models.by_name:
                    continue
                self.doing = f"loading {name}"
                with credentials.hub_token(token):
                    reference = self._resolve(name)
                room.check(self._references(), [reference])
                started = time.monotonic()
                self._models.load(reference)
                print(f"loaded {name} in {time.monotonic() - started:.1f} s", flush=True)
            deliver({"done": list(self._models.by_name)})
        except StudioError as error:
            deliver({"error": error})
        except Exception as error:  # noqa: BLE001 - whatever a model's files hold, the server goes on and says so
            traceback.print_exc()
            deliver({"error": ModelError(f"{name} could not be loaded: {named_reason(error)}.", LOG_HINT, "model")})
        finally:
            self.doing, self.names = "", list(self._models.by_name)
            self.last_used = time.monotonic()

    def _references(self) -> list[ModelReference]:
        return [loaded_model.reference for loaded_model in self._models.by_name.values()]

    def _resolve(self, name: str) -> ModelReference:
        """Resolve a name. `base` is the base of the first loaded run, or the starter where there is none."""
        runs = [reference for reference in self._references() if not reference.name.startswith(BASE_PREFIX)]
        if name == BASE and runs:
            return of_base(runs[0].base)
        return resolve(name, lambda what, *_: setattr(self, "doing", what))

    def _unload(self, names: list[str], deliver: Deliver) -> None:
        for name in names:
            for pending in self._prefilling.pop(name, []) + self._decoding.pop(name, []):
                pending.deliver({"error": ModelError(f"{name} was unloaded.", "Load it again.", "model")})
            self._models.unload(name)
        self.names = list(self._models.by_name)
        deliver({"done": self.names})

    def _begin(self, pending: PendingAnswer) -> None:
        from studio.worker.sampling import Sampling

        try:
            if pending.name not in self._models.by_name:
                loaded = ", ".join(self._models.by_name) or "none"
                raise ModelError(f"There is no model {pending.name!r} here.", f"Loaded: {loaded}.", "model")
            loaded_model = self._models.by_name[pending.name]
            sampling = Sampling(**pending.sampling)
            pending.answer = loaded_model.answer(pending.messages, sampling, **pending.template_variables)
        except StudioError as error:
            pending.deliver({"error": error})
            return
        except Exception as error:  # noqa: BLE001 - a request that nobody foresaw ends itself, not the server
            traceback.print_exc()
            message = f"The question could not be read: {named_reason(error)}."
            pending.deliver({"error": ModelError(message, LOG_HINT, "messages")})
            return
        self._prefilling.setdefault(pending.name, []).append(pending)

    def _step(self, name: str) -> None:
        """Prefill one chunk of one prompt, then generate one token for every answer of this model."""
        batch = self._models.by_name[name].batch
        prefilling = [pending for pending in self._prefilling.get(name, []) if not pending.cancelled]
        decoding = self._decoding.setdefault(name, [])
        self._prefilling[name] = prefilling
        for pending in decoding:
            if pending.cancelled:
                pending.answer.finish_reason = pending.answer.finish_reason or "cancelled"
        if prefilling:
            pending = prefilling[0]
            text = batch.prefill(pending.answer)
            if text is not None:
                decoding.append(prefilling.pop(0))
                pending.first_token_seconds = time.monotonic() - pending.created_at
                self._deliver_text(pending, text)
        texts = {id(answer): text for answer, text in batch.step()}
        for pending in list(decoding):
            if id(pending.answer) in texts:
                self._deliver_text(pending, texts[id(pending.answer)])
            if pending.answer.finish_reason is not None:
                decoding.remove(pending)

    def _deliver_text(self, pending: PendingAnswer, text: str) -> None:
        answer = pending.answer
        logprobs, answer.logprobs = answer.logprobs, []
        if text or logprobs:
            logprobs = [self._openai_logprobs(pending.name, token) for token in logprobs]
            pending.deliver({"text": text, "logprobs": logprobs})
        if answer.error is not None:
            message = f"The answer could not be written: {named_reason(answer.error)}."
            pending.deliver({"error": ModelError(message, "Change the settings of the question.", "sampling")})
        elif answer.finish_reason is not None:
            pending.deliver({"finish": answer.finish_reason, "usage": pending.usage()})

    def _openai_logprobs(self, name: str, logprobs: dict[str, Any]) -> dict[str, Any]:
        """Convert token ids to text, in OpenAI's shape."""
        tokenizer = self._models.by_name[name].encoder.tokenizer

        def describe(token: int, logprob: float) -> dict[str, Any]:
            text = tokenizer.decode([token], skip_special_tokens=False)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        top = [describe(*pair) for pair in logprobs["top"]]
        return {**describe(logprobs["token"], logprobs["logprob"]), "top_logprobs": top}

    def _fail(self, name: str, error: Exception) -> None:
        from studio.worker.generate import Batch

        hint = "Ask again, with a shorter conversation if memory was short."
        failure = ModelError(f"{name} could not go on: {named_reason(error)}.", hint, "model")
        for pending in self._prefilling.pop(name, []) + self._decoding.pop(name, []):
            pending.deliver({"error": failure})
        loaded_model = self._models.by_name[name]
        loaded_model.batch = Batch(loaded_model.model)
