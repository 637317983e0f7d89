"""Exports of a run: folders and their proof, model card, report, Ollama's Modelfile, the Hub."""
