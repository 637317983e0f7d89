"""Processes that know torch: trainer, model server, exporter, converter. Never gradio, never studio.ui."""
