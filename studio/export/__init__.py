"""Taking a run away: folders and their proof, model card, report, Ollama's Modelfile, the Hub."""
