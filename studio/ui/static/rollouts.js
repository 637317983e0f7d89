// The answers that a GRPO run writes, with their rewards, as they come: the newest first.
(() => {
  const studio = window.studio, make = studio.element;
  const MOST = 12; // prompts that are shown
  const figure = (value) => (value == null ? "–" : studio.number(value, 2));

  const group = (event) => {
    const names = Object.keys(event.answers[0].rewards);
    const best = Math.max(...event.answers.map((answer) => answer.reward ?? -Infinity));
    return make("article", { class: "sample rollout" },
      make("h4", {},
        make("span", { class: "quiet num" }, studio.say("step {step}", { step: studio.number(event.step) })), " ",
        event.prompt),
      event.reference
        ? make("p", { class: "quiet small" }, studio.say("In the data: {text}", { text: event.reference }))
        : null,
      make("div", { class: "scroll" }, make("table", { class: "simple" },
        make("thead", {}, make("tr", {},
          [studio.say("Answer"), ...(names.length > 1 ? names : []), studio.say("Reward")]
          .map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, event.answers.map((answer) => make("tr", {},
          make("td", { class: "answer" }, answer.text || studio.say("(nothing)"), answer.cut ? "…" : "",
            answer.ended ? null : make("small", { class: "quiet" }, " ", studio.say("(cut at the longest length)"))),
          (names.length > 1 ? names : []).map((name) => make("td", { class: "num" }, figure(answer.rewards[name]))),
          make("td", { class: "num" },
            answer.reward === best && answer.advantage > 0
              ? make("b", {}, figure(answer.reward))
              : figure(answer.reward))))))));
  };

  // The groups of a run, or null where it writes none.
  studio.rollouts = (id) => {
    const events = studio.live.track(id).others.filter((event) => event.kind === "rollout");
    if (!events.length) return null;
    return make("section", { class: "rollouts" }, make("h3", {}, studio.say("What it writes, and what that is worth")),
      make("p", { class: "quiet small" },
        studio.say("All answers to one prompt of the step; learnt from are those above the mean of their group.")),
      events.slice(-MOST).reverse().map(group));
  };
})();
