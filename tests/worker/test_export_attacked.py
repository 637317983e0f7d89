"""Exports under attack: killed, a full disk, the run deleted meanwhile, two to one place; and K-quants with an
importance matrix.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from studio.errors import ExportError
from studio.export import folders, llama_cpp
from studio.export import proof as proving
from studio.home import PROJECT
from studio.run import Run
from studio.talk.reference import resolve
from studio.worker import gguf_file
from studio.worker.export import merged
from studio.worker.importance import _rows, importance
from tests import tiny
from tests.worker.test_export import logits, trained

LIMITED = (
    "import resource, sys; from pathlib import Path; from studio.worker import export;"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
    "sys.exit(export.main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))"
)


def run_with_data(model: Path, data: Path, **knobs) -> Run:
    one = trained(model, **knobs)
    (one.folder / "config.yaml").write_text(one.config.with_changes(data={"train": str(data), "eval": 0.2}).to_yaml())
    return Run(one.folder)


def test_an_export_that_is_killed_leaves_no_worker_and_the_next_one_cleans_up(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    one, out = trained(tiny_model), tmp_path / "out" / "merged"
    out.parent.mkdir()
    going = subprocess.Popen(
        [sys.executable, "-m", "studio", "merge", one.id, str(out), "--no-proof"],
        cwd=PROJECT,
        env={**os.environ, "STUDIO_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (children := _children(going.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    going.send_signal(signal.SIGKILL)
    going.wait()
    while any(map(_lives, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_lives, children)), "the worker outlived the export"
    assert not out.exists()
    assert list(out.parent.glob(".merged.*"))
    with folders.atomic(out) as temporary:
        assert [path.name for path in out.parent.iterdir()] == [temporary.parent.name]
        temporary.mkdir()
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def _lives(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_two_exports_to_one_place(tmp_path: Path) -> None:
    """What another has written meanwhile is not overwritten, and what it is writing is not swept away."""
    out = tmp_path / "a.gguf"

    def twice() -> None:
        with folders.atomic(out) as first:
            first.write_text("first")
            with folders.atomic(out) as second:
                second.write_text("second")

    with pytest.raises(ExportError, match="by another export meanwhile"):
        twice()
    assert out.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_a_full_disk_is_said_and_leaves_nothing(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A file that may not grow stands for it: the same way out of the same writes."""
    one = trained(tiny_model)
    for what in ("merged-own", "q8_0"):
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, what, one.id, str(tmp_path / what)],
            cwd=PROJECT,
            env={**os.environ, "STUDIO_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout, done.stderr[-2000:]
        told = json.loads(done.stdout.strip().splitlines()[-1])["error"]
        assert done.returncode == 2
        assert "full" in told["message"] or "larger than files may be" in told["message"], told


def test_a_run_deleted_meanwhile(home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained(tiny_model)

    def gone(command: list[str], tell: object = None) -> None:
        shutil.rmtree(one.folder)
        raise ExportError("The worker failed: No such file.", "", "")

    monkeypatch.setattr(folders, "run_worker", gone)
    with pytest.raises(ExportError, match="was deleted while it was being exported"):
        folders.export(one.id, "merged", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_a_base_in_shards_and_what_leaves_of_it(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    """transformers finds weights, generation config and template in the merged folder."""
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(base, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    found = resolve(trained(base).id)
    merged(found, tmp_path / "out", "f32")
    ids = torch.arange(5, 25)[None]
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    wanted = logits(found.method.attach(AutoModelForCausalLM.from_pretrained(base), found.result), ids)
    torch.testing.assert_close(logits(whole, ids), wanted, atol=1e-4, rtol=1e-4)
    assert whole.generation_config.eos_token_id == 2
    said = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )
    assert said == "<|im_start|>user\nHi<|im_end|>\n"
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.float32


def test_k_quants_need_the_quantizer(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="not installed") as refused:
        folders.export(trained(tiny_model).id, "gguf", tmp_path / "out.gguf", "q4_k_m")
    assert "pip install xllamacpp" in refused.value.hint


def test_importance_is_the_mean_square_of_what_a_layer_is_given(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    """Against transformers: the first q_proj is given the embedding behind its norm."""
    one = run_with_data(tiny_model, tiny_data)
    found = importance(resolve(one.id))
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        ids = torch.cat([torch.tensor(row) for row in _rows(resolve(one.id))])
        wanted = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids)).square().mean(0)
    told = torch.from_numpy(found["model.layers.0.self_attn.q_proj"])
    torch.testing.assert_close(told, wanted, rtol=0.02, atol=1e-3)  # bf16 where the device has it
    assert len(found) == 7 * 2 + 1


@pytest.mark.rare
def test_a_k_quant_weighed_by_rows_is_proved_by_running_it(
    home: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end on a model 256 wide: computed, quantized with it, run in llama.cpp, three losses told."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(proving, "MAX_TOKENS", 8)
    base = tiny.write(tmp_path / "wide", hidden=256, intermediate=512, layers=1)
    one = run_with_data(base, tiny_data, rank=2)
    plain = tmp_path / "plain.gguf"
    gguf_file.write(resolve(one.id), plain, "q4_k_m", tiny.CHATML)
    answer = folders.export(one.id, "gguf", tmp_path / "weighed.gguf", "q4_k_m", imatrix=True)
    assert plain.stat().st_size == answer["bytes"]
    assert plain.read_bytes() != Path(answer["path"]).read_bytes()
    proof = answer["proof"]
    assert "llama.cpp" in proof["by"], proof
    assert proof["tokenizer"]["same"] == proof["tokenizer"]["texts"]
    loss = proof["loss"]
    assert all(loss[side] == pytest.approx(loss["trained"], rel=0.1) for side in ("merged", "exported"))
