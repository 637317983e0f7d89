"""Chatting with models: model references and the client of their server, conversations on disk, blind votes."""
