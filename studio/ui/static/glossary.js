// The drawer that says what the words mean, with the user's own numbers in the formulas. Entries: window.studioGlossary
// (glossary.json).
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes } = studio;

  studio.glossary = (drawer, opener, summary, method) => {
    const numbers = () => {
      const found = summary.last || {};
      const rank = studio.order.get("method.rank") ?? method().knobs.find((knob) => knob.key === "rank")?.default ?? 16;
      const alpha = studio.order.get("method.alpha") ?? 2 * rank, hidden = found.model?.hidden ?? 576;
      const batch = studio.order.get("training.batch_size") ?? 4;
      const gathered = studio.order.get("training.accumulation") ?? 4;
      return {
        rank, alpha, scale: number(alpha / rank, 3), hidden: number(hidden),
        pair: number(rank * 2 * hidden), square: number(hidden * hidden),
        ratio: number((100 * rank * 2 * hidden) / (hidden * hidden), 1), batch, gathered,
        effective: batch * gathered, rows: number(found.data?.train ?? 88),
        steps: number(found.steps ?? 18), epochs: number(studio.order.get("training.epochs") ?? 3, 2),
        rate: found.rate ?? 0.0002,
        parameters: number(found.model?.parameters ?? 134515008), trained: number(found.trainable ?? 0),
        percent: number(100 * (found.share ?? 0), 2),
        sixteen: bytes(2 * (found.model?.parameters ?? 134515008)),
        four: bytes(0.52 * (found.model?.parameters ?? 134515008))
      };
    };
    const draw = (filter = "") => {
      const values = numbers(), words = window.studioGlossary || [];
      const entries = words.filter((one) => `${one.word} ${say(one.word)} ${say(one.text)}`.toLowerCase()
        .includes(filter.toLowerCase()))
        .map((one) => make("div", { class: "entry" }, make("dt", {}, say(one.word)),
          make("dd", {}, make("p", {}, say(one.text)),
            one.formula && make("p", { class: "formula" }, one.formula),
            one.yours && make("p", { class: "yours" }, make("b", {}, say("Yours") + ": "), say(one.yours, values)))));
      list.replaceChildren(...(entries.length ? entries : [make("p", { class: "quiet" }, say("No such word here."))]));
    };
    const list = make("dl", {});
    const search = make("input", { type: "search", "data-say-placeholder": "Search", "data-say-label": "Search" });
    const title = make("h2", { "data-say": "What the words mean" });
    drawer.append(make("div", { class: "drawer-head" }, title,
      button("plain", "✕", () => drawer.close(), { "data-say-label": "Close" })),
      search, list);
    search.addEventListener("input", () => draw(search.value));
    drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
    opener.addEventListener("click", () => { studio.translate(drawer); draw(search.value); drawer.showModal(); });
  };
})();
