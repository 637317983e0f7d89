// How long the rows are in tokens, with a cut line that can be dragged or moved with the arrow keys: it is
// data.max_length.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const WIDE = 720, HIGH = 150, BARS = 48;
  const svg = studio.svg;

  // changed: called when it is known anew what template and model make of the rows.
  studio.histogram = (server, changed) => {
    const element = make("section", { class: "card lengths", hidden: true });
    let found = null, asked = 0, dragging = null;
    const limit = () => dragging ?? studio.order.get("data.max_length") ?? 1024;
    const quantile = (share) => found.lengths[Math.min(found.lengths.length - 1,
      Math.floor(share * found.lengths.length))];
    const most = () => Math.max(found.lengths.at(-1) * 1.08, 64);
    const span = () => Math.max(most(), Math.min(limit() * 1.05, most() * 1.6));
    // rows beyond the line, the tokens that are lost with them, and those of an epoch that are left; scaled to all rows
    const over = () => {
      const factor = found.of / found.lengths.length;
      const way = studio.order.get("data.too_long");
      const drop = way === "drop";
      const split = way === "split" && found.texts;
      let n = 0, lost = 0;
      for (let i = found.lengths.length - 1; i >= 0 && found.lengths[i] > limit(); i -= 1) {
        n += 1;
        lost += split ? 0 : drop ? found.lengths[i] : found.lengths[i] - limit();
      }
      return {
        n: Math.round(n * factor), lost: Math.round(lost * factor), left: Math.round((found.tokens - lost) * factor)
      };
    };

    const bars = () => {
      const counts = new Array(BARS).fill(0), top = span();
      for (const length of found.lengths) counts[Math.min(BARS - 1, Math.floor((length / top) * BARS))] += 1;
      return counts;
    };
    const draw = () => {
      if (!found) return;
      const counts = bars();
      const high = Math.max(...counts);
      const top = span();
      const wide = WIDE / BARS;
      const x = Math.min(1, limit() / top) * WIDE;
      const beyond = over();
      const picture = svg("svg",
        {
          viewBox: `0 0 ${WIDE} ${HIGH + 22}`, class: "histogram", role: "slider", tabindex: "0",
          "aria-label": say("Cut line: longest row in tokens"),
          "aria-valuemin": 8, "aria-valuemax": 1048576, "aria-valuenow": limit(),
          "aria-valuetext": say("{n} tokens", { n: number(limit()) })
        });
      counts.forEach((count, place) => {
        if (count)
          picture.append(svg("rect", {
            x: place * wide + 1, width: wide - 2, y: HIGH - (count / high) * (HIGH - 14),
            height: (count / high) * (HIGH - 14), rx: 2, class: (place + 0.5) * wide > x ? "beyond" : "within"
          }));
      });
      picture.append(svg("line", { x1: 0, x2: WIDE, y1: HIGH, y2: HIGH, class: "axis" }));
      for (const share of [0, 0.25, 0.5, 0.75, 1]) {
        const text = svg("text", {
          x: share * WIDE, y: HIGH + 16, class: "tick",
          "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle"
        });
        text.textContent = number(Math.round(share * top));
        picture.append(text);
      }
      if (limit() <= top)
        picture.append(svg("line", { x1: x, x2: x, y1: 4, y2: HIGH, class: "cut" }),
          svg("rect", { x: x - 5, y: 2, width: 10, height: 18, rx: 4, class: "grip" }));
      const move = (event) => {
        const box = picture.getBoundingClientRect();
        dragging = Math.max(8, Math.round(((event.clientX - box.left) / box.width) * top));
      };
      picture.addEventListener("pointerdown", (event) => {
        picture.setPointerCapture(event.pointerId);
        move(event);
        words();
        place();
      });
      picture.addEventListener("pointermove", (event) => { if (dragging != null) { move(event); words(); place(); } });
      picture.addEventListener("pointerup", () => { const value = dragging; dragging = null; set(value); });
      picture.addEventListener("pointercancel", () => { dragging = null; draw(); });
      picture.addEventListener("keydown", (event) => {
        const step = {
          ArrowRight: 16, ArrowUp: 16, ArrowLeft: -16, ArrowDown: -16, PageUp: 128, PageDown: -128
        }[event.key];
        if (step) { event.preventDefault(); set(Math.max(8, limit() + step)); element.querySelector("svg")?.focus(); }
      });
      const place = () => {
        const at = Math.min(1, limit() / top) * WIDE;
        const line = picture.querySelector(".cut");
        const grip = picture.querySelector(".grip");
        line?.setAttribute("x1", at);
        line?.setAttribute("x2", at);
        grip?.setAttribute("x", at - 5);
        for (const bar of picture.querySelectorAll("rect.within, rect.beyond"))
          bar.setAttribute("class", Number(bar.getAttribute("x")) + wide / 2 > at ? "beyond" : "within");
      };
      const note = make("p", { class: "cut-note", "aria-live": "polite" });
      const words = () => {
        const told = Object.fromEntries(Object.entries({ limit: limit(), ...(dragging == null ? beyond : over()) })
          .map(([key, value]) => [key, number(value)]));
        note.textContent = told.n === "0"
          ? say("At {limit} tokens no row is cut; an epoch is {left} tokens.", told)
          : found.texts && studio.order.get("data.too_long") === "split"
          ? say(
            "At {limit} tokens {n} texts are longer: they are split at the end of a paragraph or sentence, and no "
              + "token is lost.",
            told)
          : say("At {limit} tokens {n} rows are longer: {lost} tokens are lost, an epoch is {left}.", told);
      };
      words();
      const figure = (value, label) => make("div", { class: "figure small-figure" },
        make("b", { class: "num" }, number(value)), make("span", {}, say(label)));
      const fits = found.suggested;
      element.replaceChildren(...[make("div", { class: "card-head plain-head" },
        make("div", {}, make("h2", {}, say("Length")),
          make("p", { class: "quiet" }, say("In tokens of this model. Drag the line: what lies beyond it is cut.")))),
        make("div", { class: "figures" }, figure(quantile(0.5), "median"),
          figure(quantile(0.95), "95 % are shorter than"), figure(found.lengths.at(-1), "longest"),
          figure(Math.round((found.tokens * found.of) / found.lengths.length), "tokens in all"),
          figure(Math.round((100 * found.trained) / Math.max(1, found.tokens)), "% of them trained on")),
        picture,
        make("div", { class: "cut-line" }, note,
          fits !== limit() && button("plain", say("Set it to {n}", { n: number(fits) }), () => set(fits)),
          studio.segments("Rows that are too long",
            [["cut", "Cut them"], ["drop", "Drop them"],
              ...(found.texts || studio.order.get("data.too_long") === "split" ? [["split", "Split them"]] : [])],
            studio.order.get("data.too_long") || "cut",
            (value) => { studio.order.set("data.too_long", value, "cut", "data"); draw(); })),
        found.lengths.length < found.of
          && make("p", { class: "quiet small" },
            say("Counted on {n} rows spread over the file.", { n: number(found.lengths.length) })),
        found.unseen && make("p", { class: "note" }, found.unseen),
        found.failed > 0
          && make("p", { class: "note" },
            say("{n} rows cannot be rendered with this template.", { n: found.failed }), " ",
            found.why)].filter(Boolean));
    };
    const set = (value) => { studio.order.set("data.max_length", value, 1024, "data"); draw(); };
    return {
      element,
      told: (fingerprint) => (found?.fingerprint === fingerprint ? found.told : []),
      async refresh(fingerprint) {
        const mine = (asked += 1);
        if (found?.fingerprint !== fingerprint) { // of other rows
          found = null;
          element.replaceChildren(make("h2", {}, say("Length")), make("p", { class: "quiet" }, say("Reading…")));
        }
        const answer = await server.lengths({ order: studio.order.value, lang: studio.language }).catch(() => null);
        if (mine !== asked) return;
        found = answer && answer.lengths?.length ? answer : null;
        changed();
        element.hidden = !found && !answer?.failed;
        if (!found && answer?.failed)
          element.replaceChildren(make("h2", {}, say("Length")),
            make("p", { class: "fault", role: "alert" },
              make("b", {}, say("{n} rows cannot be rendered with this template.", { n: answer.failed })), " ",
              answer.why));
        draw();
      },
    };
  };
})();
