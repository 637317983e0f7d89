"""Processes that know torch: trainer, model server, exporter, converter. Never gradio, never studio.ui."""

from studio import quick_imports  # noqa: F401 - before peft
