// What a run has forgotten: the verdict, its curve over the run, gain against forgetting with the frontier marked, the
// figures by kind of question, and what to do.
(() => {
  const studio = window.studio, { element: make, say, number } = studio;
  const WIDE = 340, HIGH = 200;
  const LEFT = 40, RIGHT = 14, TOP = 24, BOTTOM = 34;
  const COLOURS = { kept: "good", slightly: "warn", badly: "bad" };
  const SENTENCES = {
    kept: "What the base knew is kept.", slightly: "A little of what the base knew is lost.",
    badly: "Much of what the base knew is lost."
  };
  // Where only the KL decided, as studio/general/verdict.py has it.
  const MOVED = {
    slightly: "It answers general questions somewhat otherwise than the base; good answers are as likely as before.",
    badly: "It answers general questions quite otherwise than the base, though good answers are as likely as before."
  };
  const sentence = ({ verdict, loss_rise: rise }) => (rise <= 0.05 && MOVED[verdict]) || SENTENCES[verdict];
  const svg = studio.svg;
  const KINDS = { en: "English", zh: "Chinese" };
  const figure = (value) => number(value, 3);

  // A chart of points {x, y, name, front}; a line joins `line`.
  const chart = (points, line, [xName, yName], label) => {
    const xs = points.map((point) => point.x), ys = points.map((point) => point.y);
    const [low, high] = studio.axis.widened([Math.min(0, ...ys), Math.max(1e-3, ...ys)], 4);
    const [first, last] = studio.axis.widened([Math.min(0, ...xs), Math.max(1e-3, ...xs)], 4);
    const x = (value) => LEFT + ((value - first) / (last - first)) * (WIDE - LEFT - RIGHT);
    const y = (value) => TOP + ((high - value) / (high - low)) * (HIGH - TOP - BOTTOM);
    const yTicks = studio.axis.ticks(low, high, 4), xTicks = studio.axis.ticks(first, last, 4);
    const digits = (values) => studio.axis.decimals(values);
    return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": label, class: "small-chart" },
      yTicks.map((tick) => [
        svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(tick), y2: y(tick), class: tick === 0 ? "zero" : "rule" }),
        svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits(yTicks)))]),
      xTicks.map((tick) => svg("text", { x: x(tick), y: HIGH - 18, "text-anchor": "middle" },
        tick.toFixed(digits(xTicks)))),
      svg("text", { x: WIDE - RIGHT, y: HIGH - 3, "text-anchor": "end", class: "axis-name" }, xName),
      svg("text", { x: LEFT + 4, y: TOP - 12, class: "axis-name" }, yName),
      svg("polyline", { class: "front", points: line.map((point) => `${x(point.x)},${y(point.y)}`).join(" ") }),
      points.map((point) => svg("circle", {
        cx: x(point.x), cy: y(point.y), r: point.front ? 5 : 3.5, class: point.front ? "front" : "behind"
      }, svg("title", {}, point.name))));
  };

  // The points {loss, kl} that no other beats in both, as studio/general/verdict.py has it.
  const beaten = (point, points) => points.some((other) => other.loss <= point.loss && other.kl <= point.kl
    && (other.loss < point.loss || other.kl < point.kl));

  // The untouched base is the first point: its KL to itself is 0. The last measure is of the result, at its own step.
  const curves = (events, evals) => {
    const measures = [{ step: 0, kl: 0 }, ...new Map(events.map((event) => [event.step, event])).values()]
      .sort((first, second) => first.step - second.step);
    const over = measures.map((event) => ({ x: event.step, y: event.kl, front: true, name:
      `${say("step {n}", { n: number(event.step) })}: ${figure(event.kl)}` }));
    const parts = [make("div", {}, make("h4", {}, say("Over the run")),
      chart(over, over, [say("Step"), say("forgetting (KL)")], say("Over the run")))];
    const losses = new Map(evals.map((event) => [event.step, event.loss])), before = losses.get(0);
    const both = measures.filter((event) => losses.has(event.step))
      .map((event) => ({ step: event.step, loss: losses.get(event.step), kl: event.kl }));
    if (before != null && both.length > 1) {
      const points = both.map((one) => ({ x: one.kl, y: before - one.loss, front: !beaten(one, both), name:
        say("step {n}: gain {gain}, forgetting {kl}",
          { n: number(one.step), gain: figure(before - one.loss), kl: figure(one.kl) }) }));
      const front = points.filter((point) => point.front).sort((a, b) => a.x - b.x);
      parts.push(make("div", {}, make("h4", {}, say("Gain against forgetting")),
        chart(points, front, [say("forgetting (KL)"), say("gain")], say("Gain against forgetting")),
        make("p", { class: "quiet small" },
          say("Up and to the left is better; points joined by the line are beaten by no other."))));
    }
    return make("div", { class: "small-charts" }, parts);
  };
  const kinds = (found) => make("details", {}, make("summary", {}, say("By kind")),
    studio.table(["Kind", "Loss rise", "forgetting (KL)"], Object.entries(found)
      .map(([kind, one]) => [say(KINDS[kind] || kind), figure(one.loss_rise), figure(one.kl)])));

  const card = () => {
    const node = make("section", { class: "card forgetting", hidden: true });
    let key = null;
    const show = (row) => {
      const others = row ? studio.live.tracks.get(row.id)?.others || [] : [];
      const measures = others.filter((event) => event.kind === "forgetting");
      node.hidden = !measures.length;
      const now = JSON.stringify([row?.id, measures.length, others.length, studio.language]);
      if (node.hidden || now === key) return;
      key = now;
      const last = measures.at(-1);
      const evals = others.filter((event) => event.kind === "eval" && event.loss != null);
      const numbers = { n: number(last.items), rise: figure(Math.abs(last.loss_rise)), kl: figure(last.kl) };
      const advice = last.advice || [];
      node.replaceChildren(...[
        make("h3", {}, say("Forgetting")),
        make("p", { class: `verdict ${COLOURS[last.verdict]}` }, make("b", {}, say(sentence(last)))),
        make("p", { class: "quiet num" }, say(last.loss_rise < 0
          ? "On {n} general questions the loss fell by {rise} per token, and the answers moved by {kl} (KL to the "
            + "base)."
          : "On {n} general questions the loss rose by {rise} per token, and the answers moved by {kl} (KL to the "
            + "base).",
          numbers)),
        curves(measures, evals),
        kinds(last.kinds || {}),
        advice.length
          ? make("div", {}, make("h4", {}, say("What to do")),
            make("ul", {}, advice.map((text) => make("li", {}, studio.told(text)))))
          : null].filter(Boolean));
    };
    return { node, show };
  };
  studio.resultCards.push(card);
})();
