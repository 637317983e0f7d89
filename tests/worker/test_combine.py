"""Combining adapters: compared with plain peft and with the sum of the changes, and refused where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, set_seed

from studio import combining, config, preflight, run
from studio.base import shards
from studio.combination import PRUNING, TYPES
from studio.errors import OrderError, RunError, StudioError
from studio.export import card, proof, readme, report
from studio.methods import METHODS
from studio.run import Run
from studio.runs.combined import losses
from studio.talk.reference import resolve
from studio.worker import combine
from studio.worker.merge import weights
from tests import tiny
from tests.conftest import terminal
from tests.methods import architectures
from tests.worker.test_export import logits, trained

IDS = torch.arange(5, 25)[None]


def parent(model: Path, seed: int, data: Path | None = None, name: str = "lora", **knobs) -> Run:
    """A finished run with an adapter of its own."""
    one = trained(model, name, seed=seed, **knobs)
    if data:
        text = one.config.with_changes(data={"train": str(data), "eval": 0.2}).to_yaml()
        (one.folder / "config.yaml").write_text(text)
        one = Run(one.folder)
    one.append("end", state="finished", attempt=1)
    return one


def submit_and_follow(order: config.RunConfig) -> Run:
    """What the supervisor's worker makes of an order."""
    one = run.create(order)
    assert combine.main(one) == 0, one.events()[-1]
    return one


def on_base(model: Path, folder: Path) -> torch.Tensor:
    """Plain peft's logits of an adapter folder."""
    return logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), folder).eval(), IDS
    )


@pytest.mark.parametrize("how", TYPES)
def test_as_plain_peft_combines_them(how: str, home: Path, tiny_model: Path) -> None:
    parents, wanted = [parent(tiny_model, seed, rank=4) for seed in (1, 2)], [0.7, -0.4]
    one = submit_and_follow(combining.order(parents, wanted, how))
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), parents[0].result, adapter_name="a"
    )
    plain.load_adapter(parents[1].result, adapter_name="b")
    set_seed(42)
    plain.add_weighted_adapter(
        ["a", "b"], wanted, "both", combination_type=how, **({"density": 0.5} if how in PRUNING else {})
    )
    plain.set_adapter("both")
    torch.testing.assert_close(on_base(tiny_model, one.result), logits(plain.eval(), IDS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["linear", "cat", "svd"])
def test_one_with_the_whole_weight_is_that_one(how: str, home: Path, tiny_model: Path) -> None:
    parents = [parent(tiny_model, seed, rank=4) for seed in (1, 2)]
    one = submit_and_follow(combining.order(parents, [1, 0], how))
    torch.testing.assert_close(
        on_base(tiny_model, one.result), on_base(tiny_model, parents[0].result), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merged_it_is_the_base_and_the_weighted_changes(kind: str, home: Path, tmp_path: Path) -> None:
    """W' = W + Σ wᵢ·sᵢ·Bᵢ·Aᵢ, of adapters of different rank, modules and scale: rsLoRA's is alpha / √rank."""
    base = architectures.write(tmp_path / "base", kind)
    knobs = [{"rank": 4, "rslora": True}, {"rank": 2, "alpha": 8, "target_modules": "attention"}]
    parents = [parent(base, seed, **some) for seed, some in enumerate(knobs)]
    one = submit_and_follow(combining.order(parents, [0.5, 0.25], "cat"))
    wanted = dict(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict())
    changed = set()
    for weight, made in zip([0.5, 0.25], parents, strict=True):
        stored, settings = (
            load_file(made.result / "adapter_model.safetensors"),
            json.loads((made.result / "adapter_config.json").read_text()),
        )
        for name, a in stored.items():
            if "lora_A" in name:
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                root = 0.5 if settings["use_rslora"] else 1
                delta = settings["lora_alpha"] / settings["r"] ** root * stored[name.replace("lora_A", "lora_B")] @ a
                wanted[target] = wanted[target] + weight * (delta.T if settings["fan_in_fan_out"] else delta)
                changed.add(target)
    found = dict(weights(resolve(one.id)))
    assert len(changed) > 4
    assert changed <= found.keys()
    for name in changed:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-4)


def test_what_it_is_worth_on_each_runs_rows(home: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """The losses against transformers' own, over rows that the run did not train on; told in diary, manifest, card and
    report.
    """
    other = tmp_path / "other.json"
    other.write_text(tiny_data.read_text().replace("number", "letter"))
    parents = [parent(tiny_model, 1, tiny_data), parent(tiny_model, 2, other)]
    one = submit_and_follow(combining.order(parents, name="both"))
    table = losses(one)
    assert [row["run"] for row in table] == [made.id for made in parents]
    models = {"base": None, "combined": one.result, **{made.id: made.result for made in parents}}
    for row, made in zip(table, parents, strict=True):
        rows = proof.held_out(made.config)
        assert row["rows"] == row["of"] == len(rows) == 8
        encoder = combine.Encoder.from_order(made.config.data, tiny_model)
        encoded = [encoder.encode(text) for text in rows]
        for name, folder in models.items():
            model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
            model = (PeftModel.from_pretrained(model, folder) if folder else model).eval()
            counts = [sum(label != -100 for label in one.labels[1:]) for one in encoded]
            with torch.inference_mode():
                told = [
                    model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([one.labels])).loss for one in encoded
                ]
            mean = sum(loss * count for loss, count in zip(told, counts, strict=True)) / sum(counts)
            assert (row["parents"].get(name) or row.get(name)) == pytest.approx(
                float(mean), abs=3e-2
            )  # bf16 where the device has it
    said = run.summary(one)
    assert said["eval_loss_before"] == pytest.approx(sum(row["base"] for row in table) / 2, rel=0.05)
    assert said["combined"] == {
        "how": "cat",
        "runs": [made.id for made in parents],
        "weights": [0.5, 0.5],
        "density": None,
    }
    assert json.loads((one.result / "manifest.json").read_text())["combined"]["losses"] == table
    assert len(proof.held_out(one.config)) == 16
    for text in (card.card(one), report.report(one), readme.adapter(resolve(one.id))):
        assert f"{table[0]['combined']:.4f}" in text
        assert parents[1].id in text
        assert str(home) not in text
        assert str(tmp_path) not in text


def test_what_cannot_be_combined_says_why(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    first, second = parent(tiny_model, 1, rank=4), parent(tiny_model, 2, rank=8)
    foreign = parent(tiny.write(tmp_path / "another", seed=3), 1)
    waiting, whole, empty = trained(tiny_model), parent(tiny_model, 1), parent(tiny_model, 1)
    text = whole.config.to_yaml().split("method:")[0] + "method: full\n"
    (whole.folder / "config.yaml").write_text(text)
    shutil.rmtree(empty.result)
    odd = {
        name: parent(tiny_model, 3, **knobs)
        for name, knobs in (("use_dora", {"dora": True}), ("modules_to_save", {"modules_to_save": ["lm_head"]}))
    }
    for name, made in odd.items():
        with pytest.raises(RunError, match=name):
            combining.order([first, made])
    biased, worded = parent(tiny_model, 4), parent(tiny_model, 5)
    for made, more in ((biased, {"bias": "all"}), (worded, {"trainable_token_indices": {"embed_tokens": [3]}})):
        file = made.result / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    for runs, word in (
        ([first], "from 2 to 16 runs"),
        ([first, first], "named twice"),
        ([first, foreign], "different bases"),
        ([first, biased], "bias"),
        ([first, worded], "trainable_token_indices"),
        ([first, waiting], "not over"),
        ([first, Run(whole.folder)], "no adapter to combine"),
        ([first, empty], "no result yet"),
        ([first, parent(tiny_model, 1, name="ia3")], "only the matrices of LoRA"),
        ([first, parent(tiny_model, 1, name="prompt")], "only the matrices of LoRA"),
    ):
        with pytest.raises(RunError, match=word):
            combining.order(runs)
    for options, word in (
        ({"how": "linear"}, "needs adapters of one rank"),
        ({"how": "ties"}, "one rank"),
        ({"how": "mean"}, "no way"),
        ({"weights": [1]}, "2 runs and 1 weights"),
        ({"weights": [0, 0]}, "All weights are 0"),
        ({"weights": [1, float("nan")]}, "nan"),
        ({"weights": [1, 99]}, "99"),
        ({"weights": [True, 1]}, "True"),
        ({"density": 0.5}, "has no density"),
        ({"how": "dare_ties", "density": 0}, "density is 0"),
    ):
        with pytest.raises(OrderError, match=word):
            combining.order([first, second], **options)
    assert combining.order([first, second], how="svd").method.rank == 8
    assert combining.order([first, second]).method.rank == 12


def test_a_base_that_has_changed_is_refused(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    parents = [parent(base, seed) for seed in (1, 2)]
    for one in parents:
        file = one.result / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_fingerprint": shards.fingerprint(base)}))
    made = run.create(combining.order(parents))
    shutil.copy(tiny.write(tmp_path / "another", seed=3) / "model.safetensors", base)
    with pytest.raises(StudioError, match="other weights"):
        combining.order(parents)
    assert combine.main(made) == 1
    assert "other weights" in run.summary(made)["cause"]
    assert not made.result.exists()


def test_a_stop_leaves_nothing(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    one = run.create(combining.order([parent(tiny_model, seed, tiny_data) for seed in (1, 2)]))
    one.request_stop()
    assert combine.main(one) == 0
    assert one.events()[-1]["state"] == "stopped"
    assert not [path for path in one.folder.iterdir() if "model" in path.name]


def test_its_order_is_no_order_to_train(home: Path, tiny_model: Path) -> None:
    parents = [parent(tiny_model, seed) for seed in (1, 2)]
    order = combining.order(parents)
    assert config.parse(order.to_yaml()) == order
    with pytest.raises(OrderError, match="combines finished runs"):
        preflight.check(order)
    with pytest.raises(RunError, match="combined, not trained"):
        run.create(order).change("extended", training={"epochs": 9})


def test_the_bits_of_the_base_and_a_combination_of_combinations(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    four = [parent(tiny_model, seed, name="qlora") for seed in (1, 2)]
    assert combining.order(four).method == METHODS["qlora"](rank=32, alpha=32.0, dropout=0.0)
    assert combining.order([four[0], parent(tiny_model, 3)]).method.name == "lora"
    first = parent(tiny_model, 3, tiny_data)
    inner = submit_and_follow(combining.order([first, parent(tiny_model, 4, tiny_data)]))
    inner.append("end", state="finished", attempt=1)
    order = combining.order([inner, four[0]])
    assert [one.run for one in order.combine.held_out] == [*inner.config.combine.runs, four[0].id]


def test_from_a_terminal(home: Path, tiny_model: Path, tiny_data: Path) -> None:
    """Through queue, supervisor and worker."""
    parents = [parent(tiny_model, seed, tiny_data) for seed in (1, 2)]
    told = terminal(
        ["combine", *(one.id for one in parents), "--weights", "0.3,0.7", "--how", "ties", "--name", "both", "--json"],
        home,
    )
    answer = json.loads(told.stdout)
    assert (told.returncode, answer["state"], len(answer["losses"])) == (0, "finished", 2), told.stderr
    assert answer["combined"] == {
        "how": "ties",
        "runs": [one.id for one in parents],
        "weights": [0.3, 0.7],
        "density": 0.5,
    }
    refused = terminal(["combine", parents[0].id, answer["run"], "--how", "linear", "--weights", "1", "--json"], home)
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["where"] == "weights"
