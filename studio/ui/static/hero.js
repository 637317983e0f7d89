// How a run stands, in large: loss, held-out loss, percent, time; the rest in one line.
(() => {
  const studio = window.studio, make = studio.element;

  studio.runHero = (row) => {
    const alive = studio.isAlive(row.state);
    const dropped = row.eval_loss_before && row.eval_loss != null
      ? (1 - row.eval_loss / row.eval_loss_before) * 100
      : null;
    const big = (name, value, small) => make("div", { class: "figure" },
      make("span", { class: "figure-name" }, studio.say(name)), make("b", { class: "num" }, value),
      make("small", { class: "quiet num" }, small || "\u00a0"));
    const steps = row.steps
      ? studio.say("step {step} of {steps}", { step: studio.number(row.step), steps: studio.number(row.steps) })
      : alive
      ? studio.phase(row)
      : "";
    const held = dropped == null
      ? ""
      : dropped >= 0
      ? studio.say("{n} % lower than before", { n: studio.number(dropped) })
      : studio.say("{n} % higher than before", { n: studio.number(-dropped) });
    const lost = row.forgetting
      ? big("Forgetting", studio.say(row.forgetting.verdict),
        studio.say("KL to the base {n}", { n: studio.number(row.forgetting.kl, 3) }))
      : null;
    const time = alive
      ? big("Time left", row.left == null ? "–" : studio.duration(row.left),
        studio.say("{time} so far", { time: studio.duration(row.seconds) }))
      : big("Time", studio.duration(row.seconds), "");
    const speed = row.tokens_per_second ? studio.say("{n} tokens/s", { n: studio.number(row.tokens_per_second) }) : "";
    const memory = row.memory_now || row.peak_memory;
    const facts = [alive ? studio.phase(row) : null,
      row.epoch != null ? studio.say("epoch {n}", { n: studio.number(row.epoch, 2) }) : null,
      row.learning_rate != null && alive
        ? `${studio.say("learning rate")} ${row.learning_rate.toExponential(1)}`
        : null,
      memory
        ? studio.say("{used} memory",
          { used: row.memories ? row.memories.map(studio.bytes).join(" + ") : studio.bytes(memory) })
          + (row.estimated_memory ? ` (${studio.say("estimate")} ${studio.bytes(row.estimated_memory)})` : "")
        : null,
      row.trainable
        ? studio.say("{n} trained parameters ({share} %)",
          { n: studio.number(row.trainable), share: studio.number((100 * row.trainable) / row.parameters, 2) })
        : null].filter(Boolean);
    const first = row.preference_before?.reward;
    const figure = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");
    const learnt = row.stage === "grpo"
      ? [big("Reward", figure(row.reward), speed), big("Held-out reward", figure(row.preference?.reward),
        first == null ? "" : studio.say("{n} before", { n: figure(first) }))]
      : [big("Loss", figure(row.train_loss), speed), big("Held-out loss", figure(row.eval_loss), held)];
    return [make("div", { class: "figures" }, ...learnt, lost,
      big("Done", row.percent == null ? "–" : `${studio.number(Math.floor(row.percent))} %`, steps), time),
    make("div", {
      class: `meter ${alive ? "alive" : row.state}`, role: "progressbar", "aria-label": studio.say("Progress"),
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(row.percent || 0))
    },
      make("i", { style: `width:${row.percent || (alive ? 2 : 0)}%` })),
      make("p", { class: "facts quiet num" }, facts.map((fact) => make("span", {}, fact)))];
  };
})();
