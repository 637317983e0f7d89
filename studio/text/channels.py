"""The channels of gpt-oss's answers, written as others write reasoning and answer."""

from __future__ import annotations

import re

# how gpt-oss parts its answers
CHANNELS = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>",
            "<|end|>", "<|start|>assistant")  # fmt: skip
CHANNEL = re.compile("|".join(map(re.escape, CHANNELS)))


class Channels:
    """gpt-oss's channels as others write them: the analysis between <think> and </think>, the rest as it is."""

    def __init__(self) -> None:
        self.thinking = False

    def plain(self, text: str) -> str:
        """The text that comes next. A mark must stand in it whole."""
        return CHANNEL.sub(self._written, text)

    def _written(self, mark: re.Match[str]) -> str:
        if mark[0] == CHANNELS[0] and not self.thinking:
            self.thinking = True
            return "<think>\n"
        if mark[0] == "<|end|>" and self.thinking:
            self.thinking = False
            return "\n</think>\n\n"
        return ""
