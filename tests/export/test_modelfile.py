"""Ollama's Modelfile: every shipped template in Go's language, and where Go is installed, run by it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from studio import template
from studio.export import go_template, go_tools, hf_files, modelfile
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
type Property struct {
  Type string `json:"type"`
  Description string `json:"description,omitempty"`
}
type Parameters struct {
  Type string `json:"type"`
  Required []string `json:"required,omitempty"`
  Properties map[string]Property `json:"properties"`
}
type Function struct {
  Name string `json:"name"`
  Description string `json:"description"`
  Parameters Parameters `json:"parameters"`
}
type Tool struct { Type string; Function Function }
type Call struct { Function struct { Name string; Arguments map[string]any } }
type Message struct { Role string; Content string; ToolCalls []Call `json:"tool_calls"` }
type Job struct { Template string; Talks [][]*Message; Tools []Tool }
var funcs = template.FuncMap{"json": func(v any) string { b, _ := json.Marshal(v); return string(b) }}
func main() {
  var jobs []Job
  json.NewDecoder(os.Stdin).Decode(&jobs)
  out := [][]string{}
  for _, job := range jobs {
    texts := []string{}
    for _, talk := range job.Talks {
      var b = new(buffer)
      t, err := template.New("").Option("missingkey=zero").Funcs(funcs).Parse(job.Template)
      if err == nil { err = t.Execute(b, map[string]any{"Messages": talk, "Tools": job.Tools}) }
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


# Phi-3's own
ENDED = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def known() -> list[Template]:
    own = [Template("model", tiny.CHATML), Template("ended", ENDED, {"eos_token": "<|endoftext|>"})]
    return [*(template.load(name) for name in template.names()), *own]


def written_by_go(jobs: list[dict[str, Any]], folder: Path) -> list[list[str]]:
    """For each {Template, Talks, Tools} the text that Go's template engine makes of each talk, of Ollama's types."""
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
        if (parts := go_template.turns(used)) and parts.default
    }
    talks = {
        used.name: [talk if talk[0] == SYSTEM else [*lead.get(used.name, []), *talk] for talk in CONVERSATIONS]
        for used in known()
    }  # SYSTEM of the file
    jobs = [
        {"Template": go_template.go_template(go_template.turns(used)), "Talks": talks[used.name]} for used in known()
    ]
    for used, texts in zip(known(), written_by_go(jobs, tmp_path), strict=True):
        assert texts == [used.render(talk, add_generation_prompt=True).text for talk in CONVERSATIONS], used.name


def compact(text: str, values: list[Any]) -> str:
    """A text in which these values stand as Go writes JSON: without blanks."""
    for value in values:
        text = text.replace(
            json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        )
    return text


def showing_tools() -> list[Template]:
    folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    own = [Template(name, (folder / f"{name}.jinja").read_text()) for name in ("qwen2_5", "qwen3_instruct_2507")]
    return [*(used for used in known() if used.shows_tools), *own]


@pytest.mark.skipif(not shutil.which("go"), reason="no Go here to run its templates")
def test_go_writes_tools_calls_and_results(tmp_path: Path) -> None:
    """As Jinja does but for the blanks in JSON, which Ollama's own type leaves out."""
    tools = [go_tools.tool("weather"), go_tools.tool("清单")]
    one, two = go_tools.calling("", "weather"), go_tools.calling("I look.", "weather", "清单")
    told = [{"role": "tool", "content": text} for text in ("12 °C", '["a"]')]
    talks = [[TALK[0], one], [TALK[0], one, told[0]], [TALK[0], two, *told, TALK[1], TALK[2], one, told[1]]]
    jobs = []
    for used in showing_tools():
        default = go_template.turns(used).default or "Be brief."
        system = {"role": "system", "content": default}
        jobs += [
            {
                "used": used,
                "Template": go_template.go_template(go_template.turns(used)),
                "Talks": [*talks, *([system, *talk] for talk in talks)][0 if declared else 3 :],
                "Tools": declared,
            }
            for declared in ([], tools[:1], tools)
        ]
    asked = [{key: value for key, value in job.items() if key != "used"} for job in jobs]
    values = [go_tools.ARGUMENTS, *(one["function"] for one in tools)]
    for job, texts in zip(jobs, written_by_go(asked, tmp_path), strict=True):
        declared = {"tools": job["Tools"]} if job["Tools"] else {}
        wanted = [job["used"].render(talk, add_generation_prompt=True, **declared).text for talk in job["Talks"]]
        assert texts == [compact(text, values) for text in wanted], job["used"].name


@pytest.mark.parametrize("used", showing_tools(), ids=lambda one: one.name)
def test_how_ollama_reads_a_template_with_tools(used: Template) -> None:
    """Its parser of calls looks for the first bare text behind `if .ToolCalls` (its tools/template.go).

    From 0.30 on it takes the GGUF file's own template, unless this one holds "tool_response" (its server/images.go).
    """
    text = modelfile.modelfile(used, "model.gguf", ("<|im_end|>",))
    assert modelfile.shows_tools(used)
    assert re.search(r"if \.ToolCalls }}\{\{- range [^}]+ }}<tool_call>\n\{", text)
    assert "tool_response" not in text


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
