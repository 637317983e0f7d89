"""Ollama's Modelfile: every shipped template in Go's language, and where Go is installed, run by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from studio import template
from studio.export import hf_files, modelfile
from studio.template import Template
from tests import tiny

TALK = [
    {"role": "user", "content": 'Say "hi" \\ twice'},
    {"role": "assistant", "content": "Hi.\nHi."},
    {"role": "user", "content": "怎样?"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS = [TALK[:1], TALK, [*TALK, TALK[1], TALK[2]], [SYSTEM, *TALK[:1]], [SYSTEM, *TALK]]
PROGRAM = """package main
import ("encoding/json"; "os"; "text/template")
type Message struct { Role string; Content string }
type Job struct { Template string; Talks [][]*Message }
func main() {
  var jobs []Job
  json.NewDecoder(os.Stdin).Decode(&jobs)
  out := [][]string{}
  for _, job := range jobs {
    texts := []string{}
    for _, talk := range job.Talks {
      var b = new(buffer)
      t, err := template.New("").Parse(job.Template)
      if err == nil { err = t.Execute(b, map[string]any{"Messages": talk}) }
      if err != nil { b.text = err.Error() }
      texts = append(texts, b.text)
    }
    out = append(out, texts)
  }
  json.NewEncoder(os.Stdout).Encode(out)
}
type buffer struct { text string }
func (b *buffer) Write(p []byte) (int, error) { b.text += string(p); return len(p), nil }
"""


def known() -> list[Template]:
    return [*(template.load(name) for name in template.names()), Template("model", tiny.CHATML)]


def written_by_go(jobs: list[dict[str, Any]], folder: Path) -> list[list[str]]:
    """For each {Template, Talks} the text that Go's template engine makes of each of the talks."""
    (folder / "main.go").write_text(PROGRAM)
    done = subprocess.run(
        ["go", "run", "main.go"],
        input=json.dumps(jobs),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": f"{os.environ['PATH']}:/usr/local/go/bin", "HOME": str(Path.home()), "GO111MODULE": "off"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("used", known(), ids=lambda one: one.name)
def test_every_shipped_template_is_written(used: Template) -> None:
    text = modelfile.modelfile(used, "model.gguf", tuple(used.stop_strings))
    assert 'TEMPLATE """' in text
    assert all(f'PARAMETER stop "{stop}"' in text for stop in used.stop_strings)


@pytest.mark.skipif(not shutil.which("go"), reason="no Go here to run its templates")
def test_go_writes_what_jinja_writes(tmp_path: Path) -> None:
    lead = {
        used.name: [{"role": "system", "content": parts.default}]
        for used in known()
        if (parts := modelfile.turns(used)) and parts.default
    }
    talks = {
        used.name: [talk if talk[0] == SYSTEM else [*lead.get(used.name, []), *talk] for talk in CONVERSATIONS]
        for used in known()
    }  # SYSTEM of the file
    jobs = [{"Template": modelfile.go_template(modelfile.turns(used)), "Talks": talks[used.name]} for used in known()]
    for used, texts in zip(known(), written_by_go(jobs, tmp_path), strict=True):
        assert texts == [used.render(talk, add_generation_prompt=True).text for talk in CONVERSATIONS], used.name


def test_a_template_that_looks_at_more_than_places_is_left_to_ollama() -> None:
    odd = Template(
        "model",
        tiny.CHATML.replace(
            "message['content']", "(message['content'] | upper if loop.length > 3 else message['content'])"
        ),
    )
    assert "TEMPLATE" not in modelfile.modelfile(odd, "model.gguf", ("<|im_end|>",))


def test_sampling_as_the_base_advises(tmp_path: Path) -> None:
    """Ollama's own penalty of repeats is switched off: neither the chat here nor transformers has one."""
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05}))
    used = template.load("chatml")
    text = modelfile.modelfile(used, "model.gguf", ("<|im_end|>",), None, hf_files.sampling(tmp_path))
    assert text.splitlines()[-3:] == [
        "PARAMETER temperature 0.6",
        "PARAMETER repeat_penalty 1.05",
        "PARAMETER top_k 20",
    ]
    file.unlink()
    text = modelfile.modelfile(used, "model.gguf", ("<|im_end|>",), None, hf_files.sampling(tmp_path))
    assert text.splitlines()[-2:] == ["PARAMETER temperature 0.7", "PARAMETER repeat_penalty 1"]
