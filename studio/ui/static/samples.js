// The sample prompts' answers over time: a slider from the untouched base to the end, with what has changed marked.
(() => {
  const studio = window.studio, { element: make, say, number } = studio;
  const MOST_WORDS = 400; // of an answer, to compare word by word

  // Words with the blank before them; every character of a script without blanks for itself.
  const UNSPACED = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}";
  const WORD = new RegExp(`\\s*(?:[${UNSPACED}]|[^\\s${UNSPACED}]+)|\\s+$`, "gu");
  const words = (text) => text.match(WORD) || [];

  // [{text, kind: same | added | removed}] of two texts, by the longest common subsequence of their words.
  studio.difference = (before, after) => {
    const a = words(before), b = words(after);
    if (a.length > MOST_WORDS || b.length > MOST_WORDS)
      return before === after ? [{ text: after, kind: "same" }] : [{ text: after, kind: "added" }];
    const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i -= 1)
      for (let j = b.length - 1; j >= 0; j -= 1)
        long[i][j] = a[i].trim() === b[j].trim() ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
    const parts = [];
    const add = (text, kind) => {
      if (parts.at(-1)?.kind === kind) parts.at(-1).text += text; else parts.push({ text, kind });
    };
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i].trim() === b[j].trim()) { add(b[j], "same"); i += 1; j += 1; }
      else if (j >= b.length || (i < a.length && long[i + 1][j] >= long[i][j + 1])) { add(a[i], "removed"); i += 1; }
      else { add(b[j], "added"); j += 1; }
    }
    return parts;
  };
  studio.marked = (before, after) => studio.difference(before, after).filter((part) => part.kind !== "removed")
    .map((part) => (part.kind === "added" ? make("mark", {}, part.text) : part.text));

  const places = new Map(); // run -> chosen step; the newest where none is chosen

  studio.drawSamples = (panel, id) => {
    const others = studio.live.track(id).others;
    const samples = others.filter((event) => event.kind === "sample");
    const written = others.findLast((event) => event.kind === "rollout")?.step ?? 0;
    const key = `${id} ${samples.length} ${written} ${studio.language}`;
    if (panel.dataset.key === key && panel.childElementCount) return;
    panel.dataset.key = key;
    const rollouts = studio.rollouts(id);
    if (!samples.length && rollouts) { panel.replaceChildren(rollouts); return; }
    if (!samples.length) {
      panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, say("No samples")),
        make("p", {},
          say("Where rows are held out, three of their questions are answered before the first step, at every "
            + "evaluation and at the end: you can read how the answers change. Other prompts can be given in Tune "
            + "(Advanced)."))));
      return;
    }
    const prompts = [...new Set(samples.map((event) => event.prompt))];
    const steps = [...new Set(samples.map((event) => event.step))].sort((a, b) => a - b);
    const event = (step, prompt) => samples.findLast((one) => one.step === step && one.prompt === prompt);
    const named = (step) => (step === 0 ? say("untouched base") : say("step {step}", { step: number(step) }));
    const shown = make("output", { class: "num samples-step" });
    const body = make("div", { class: "samples-list" });
    const slider = make("input", {
      type: "range", min: "0", max: String(steps.length - 1), step: "1", "aria-label": say("Step"),
      oninput: () => { places.set(id, steps[Number(slider.value)]); draw(); }
    });
    const draw = () => {
      const place = Number(slider.value), step = steps[place], first = steps[0];
      shown.textContent = named(step);
      slider.setAttribute("aria-valuetext", named(step));
      body.replaceChildren(...prompts.map((prompt) => {
        const now = event(step, prompt), before = event(first, prompt)?.answer ?? "";
        const reference = samples.find((one) => one.prompt === prompt && one.reference)?.reference;
        const side = (title, ...parts) => make("section", {}, make("h5", { "aria-level": "3" }, title), ...parts);
        return make("article", { class: "sample" }, make("h4", { "aria-level": "2" }, prompt),
          make("div", { class: "sample-sides" },
            step === first
              ? null
              : side(named(first), make("p", { class: "answer" }, before)),
            side(named(step),
              make("p", { class: "answer" },
                now ? (step === first ? now.answer : studio.marked(before, now.answer)) : "–"),
              now && step === steps.at(-1) && step !== first ? studio.taughtButton(id, prompt, now.answer) : null,
              now?.cut
                ? make("p", { class: "quiet small" }, say("Cut short: samples may take 3 % of the run's time."))
                : null),
            reference
              ? side(say("in the data"), make("p", { class: "answer" }, reference))
              : null));
      }));
    };
    const chosen = steps.indexOf(places.get(id));
    slider.value = String(chosen < 0 ? steps.length - 1 : chosen);
    panel.replaceChildren(
      make("div", { class: "samples-bar", role: "group", "aria-label": say("Samples over time") },
        make("span", { class: "quiet" }, named(steps[0])), slider,
        make("span", { class: "quiet" }, steps.length > 1 ? named(steps.at(-1)) : ""), shown),
      make("p", { class: "quiet small" }, say("Marked is what the answer of the first step did not say.")), body,
      ...(rollouts ? [rollouts] : []));
    draw();
  };
})();
