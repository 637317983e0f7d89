// The sample prompts' answers over time, the newest first.
(() => {
  const studio = window.studio, make = studio.element;

  studio.drawSamples = (panel, id) => {
    const samples = studio.live.track(id).others.filter((event) => event.kind === "sample");
    const key = `${id} ${samples.length} ${studio.language}`;
    if (panel.dataset.key === key && panel.childElementCount) return;
    panel.dataset.key = key;
    if (!samples.length) {
      panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, studio.say("No samples")),
        make("p", {},
          studio.say("Give sample prompts in Tune (Advanced), and the model answers them at every evaluation: you can "
            + "read how it changes."))));
      return;
    }
    const prompts = [...new Set(samples.map((event) => event.prompt))];
    const steps = [...new Set(samples.map((event) => event.step))].sort((a, b) => b - a);
    const answer = (step, prompt) => samples.findLast((event) => event.step === step && event.prompt === prompt)?.answer
      ?? "";
    panel.replaceChildren(make("div",
      { class: "samples", tabindex: "0", role: "region", "aria-label": studio.say("Samples over time") },
      make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, studio.say("Step")),
        prompts.map((prompt) => make("th", { scope: "col" }, prompt)))),
        make("tbody", {},
          steps.map((step) => make("tr", {},
            make("th", { scope: "row", class: "num" }, step === 0 ? studio.say("before") : studio.number(step)),
          prompts.map((prompt) => make("td", {}, answer(step, prompt)))))))));
  };
})();
