// How a run stands, in large: loss, held-out loss, percent, time; the rest in one line.
(() => {
  const studio = window.studio, { element: make, say, number, bytes, duration } = studio;

  studio.runHero = (row) => {
    const alive = studio.isAlive(row.state);
    const dropped = row.eval_loss_before && row.eval_loss != null
      ? (1 - row.eval_loss / row.eval_loss_before) * 100
      : null;
    const big = (name, value, small) => make("div", { class: "figure" },
      make("span", { class: "figure-name" }, say(name)), make("b", { class: "num" }, value),
      make("small", { class: "quiet num" }, small || "\u00a0"));
    const steps = row.steps
      ? say("step {step} of {steps}", { step: number(row.step), steps: number(row.steps) })
      : alive ? studio.phase(row) : "";
    const held = dropped == null
      ? ""
      : row.eval_loss === row.eval_loss_before
      ? say("before training")
      : dropped >= 0
      ? say("{n} % lower than before", { n: number(dropped) })
      : say("{n} % higher than before", { n: number(-dropped) });
    const lost = row.forgetting
      ? big("Forgetting", say(row.forgetting.verdict), say("KL to the base {n}", { n: number(row.forgetting.kl, 3) }))
      : null;
    const time = alive
      ? big("Time left", row.left == null ? "–" : duration(row.left),
        say("{time} so far", { time: duration(row.seconds) }))
      : big("Time", duration(row.seconds), "");
    const speed = row.tokens_per_second ? say("{n} tokens/s", { n: number(row.tokens_per_second) }) : "";
    const memory = row.memory_now || row.peak_memory;
    const facts = [alive ? studio.phase(row) : null,
      row.epoch != null ? say("epoch {n}", { n: number(row.epoch, 2) }) : null,
      row.learning_rate != null && alive ? `${say("learning rate")} ${row.learning_rate.toExponential(1)}` : null,
      memory
        ? say("{used} memory", { used: row.memories ? row.memories.map(bytes).join(" + ") : bytes(memory) })
        + (row.estimated_memory ? say(" (estimate {size})", { size: bytes(row.estimated_memory) }) : "")
        : null,
      row.trainable
        ? say("{n} trained parameters ({share} %)",
          { n: number(row.trainable), share: number((100 * row.trainable) / row.parameters, 2) })
        : null].filter(Boolean);
    const first = row.preference_before?.reward;
    const figure = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");
    const learnt = row.stage === "grpo"
      ? [big("Reward", figure(row.reward), speed), big("Held-out reward", figure(row.preference?.reward),
        first == null ? "" : say("{n} before", { n: figure(first) }))]
      : [big("Loss", figure(row.train_loss), speed), big("Held-out loss", figure(row.eval_loss), held)];
    return [make("div", { class: "figures" }, ...learnt, lost,
      big("Done", row.percent == null ? "–" : `${number(Math.floor(row.percent))} %`, steps), time),
      make("div", {
        class: `meter ${alive ? "alive" : row.state}`, role: "progressbar", "aria-label": say("Progress"),
        "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(row.percent || 0))
      },
        make("i", { style: `width:${row.percent || (alive ? 2 : 0)}%` })),
      make("p", { class: "facts quiet num" }, facts.map((fact) => make("span", {}, fact)))];
  };
})();
