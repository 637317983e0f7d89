"""Fine-Tuning Studio: the map. Read this first, then methods/lora.py, config.py, worker/train.py, ui/tune.py.

Two ideas. A run is a folder: what was ordered, what happened and what came out are files in it, and nothing about a run is
kept anywhere else. And three kinds of process, one wall: the page's process knows gradio and not torch; a worker knows torch
and not gradio; both know the core, which knows neither. Between page and trainer stands one small supervisor per run.

    browser ── page ── writes config.yaml, starts ──▶ python -m studio.supervise RUN ──▶ python -m studio.worker.train RUN
                ▲                                                                                  │ appends
                └────────────────── reads only the new lines, once a second ──────────── events.jsonl
    browser ── page ◀── OpenAI-style HTTP, loopback, secret token ──▶ python -m studio.worker.serve MODEL…

Numbers are floors: a file imports only from its own floor or below, and there is no cycle. tests/test_layers.py holds that.
"""

__version__ = "0.1.0"

FLOORS = {
    0: ("errors",),
    1: ("families", "headers", "home", "events", "crash", "process", "device", "cards", "log",
        "sandbox", "spans", "template", "model", "source", "starter", "targets", "quantization"),
    2: ("gate", "tokens", "data", "footprint", "method", "methods", "training"),
    3: ("config", "presets"),
    4: ("estimate", "memory", "clock", "advice", "levers", "checkpoints", "run", "summary", "recovery",
        "sequence", "diagnosis", "signs", "compare", "repair", "record"),
    5: ("launch", "claim", "queue", "goal", "stopping", "attempt", "backup", "afterwards", "supervise", "voice", "chat", "chats", "votes",
        "modelfile", "readme", "proof", "export", "curve", "card", "page_report", "push", "calibration", "bench"),
    6: ("worker", "ui"),
    7: ("commands", "__main__"),
}
