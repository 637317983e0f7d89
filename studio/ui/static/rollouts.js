// The answers that a GRPO run writes, with their rewards, as they come: the newest first.
(() => {
  const studio = window.studio, { element: make, say, number } = studio;
  const MOST = 12; // prompts that are shown
  const figure = (value) => (value == null ? "–" : number(value, 2));

  const group = (event) => {
    const names = Object.keys(event.answers[0].rewards), several = names.length > 1 ? names : [];
    const best = Math.max(...event.answers.map((answer) => answer.reward ?? -Infinity));
    return make("article", { class: "sample rollout" },
      make("h4", {},
        make("span", { class: "quiet num" }, say("step {step}", { step: number(event.step) })), " ",
        event.prompt),
      event.reference
        ? make("p", { class: "quiet small" }, say("In the data: {text}", { text: event.reference }))
        : null,
      studio.table(["Answer", ...several.map((name) => [name]), "Reward"], event.answers.map((answer) => [
        make("td", { class: "answer" }, answer.text || say("(nothing)"), answer.cut ? "…" : "",
          answer.ended ? null : make("small", { class: "quiet" }, " ", say("(cut at the longest length)"))),
        ...several.map((name) => figure(answer.rewards[name])),
        answer.reward === best && answer.advantage > 0
          ? make("b", {}, figure(answer.reward))
          : figure(answer.reward)])));
  };

  // The groups of a run, or null where it writes none.
  studio.rollouts = (id) => {
    const events = studio.live.track(id).others.filter((event) => event.kind === "rollout");
    if (!events.length) return null;
    return make("section", { class: "rollouts" }, make("h3", {}, say("What it writes, and what that is worth")),
      make("p", { class: "quiet small" },
        say("All answers to one prompt of the step; learnt from are those above the mean of their group.")),
      events.slice(-MOST).reverse().map(group));
  };
})();
