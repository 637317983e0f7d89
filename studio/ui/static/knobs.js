// The settings of a chat: what the model is told beforehand, and how its words are chosen. Kept in this browser.
(() => {
  const studio = window.studio, { element: make, say } = studio;
  const KNOBS = [
    ["temperature", "Temperature", 0.7, 0, 2, 0.05, "0 always takes the likeliest word; higher answers vary more."],
    ["top_p", "Top-p", 0.95, 0.05, 1, 0.01, "Only the likeliest words that together reach this share are considered."],
    ["top_k", "Top-k", 0, 0, 200, 1, "Only so many of the likeliest words are considered; 0: no limit."],
    ["repetition_penalty", "Repetition penalty", 1, 1, 1.5, 0.01,
      "Above 1, words that were said already become less likely."],
    ["max_tokens", "Longest answer", 320, 16, 4096, 16, "In tokens, about three quarters of a word each."],
  ];

  class Knobs {
    constructor() {
      this.node = make("details", { class: "knobs" });
      this.values = Object.fromEntries(KNOBS.map(([key, , value]) => [key, value]));
      try {
        Object.assign(this.values, JSON.parse(studio.stored("studio-sampling") || "{}"));
      } catch { /* older settings */ }
      this.system = make("textarea", { class: "field", rows: "2" });
      this.speak();
    }
    sampling() { return Object.fromEntries(Object.entries(this.values).filter(([, value]) => value != null)); }
    speak() {
      this.system.placeholder = say("What every answer should keep to; empty: nothing.");
      this.system.setAttribute("aria-label", say("System prompt"));
      const seed = make("input", {
        class: "field", type: "text", inputmode: "numeric", "aria-label": say("Seed"), placeholder: say("random"),
        oninput: () => { this.values.seed = seed.value.trim() === "" ? null : Number(seed.value); this.keep(); }
      });
      seed.value = this.values.seed ?? "";
      const open = this.node.open;
      this.node.replaceChildren(make("summary", {}, say("Settings")), make("div", { class: "knob-grid" },
        make("label", { class: "knob wide" }, make("span", {}, say("System prompt")), this.system,
          make("small", { class: "quiet" },
            say("Set before the conversation, as in training data with a system turn."))),
        KNOBS.map(([key, name, , low, high, step, help]) => {
          const shown = make("output", { class: "num" }, String(this.values[key]));
          const slider = make("input", {
            type: "range", min: String(low), max: String(high), step: String(step), "aria-label": say(name),
            oninput: () => { this.values[key] = Number(slider.value); shown.textContent = slider.value; this.keep(); }
          });
          slider.value = this.values[key];
          return make("label", { class: "knob" }, make("span", {}, say(name), shown), slider,
            make("small", { class: "quiet" }, say(help)));
        }),
        make("label", { class: "knob" }, make("span", {}, say("Seed")), seed,
          make("small", { class: "quiet" }, say("The same seed gives the same answer.")))));
      this.node.open = open;
    }
    keep() { studio.store("studio-sampling", JSON.stringify(this.values)); }
  }
  studio.Knobs = Knobs;
})();
