// The rewards of an order, on Tune's card of the stage: chosen from the registry, with their knobs, and tried on rows.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const figure = (value) => (value == null ? "–" : number(value, 2));

  // The answers of a trial, a row each: what was asked, what was answered, each reward and their sum.
  const table = (found) => {
    const rows = found.rows.flatMap((row) => row.answers.map((answer, place) => make("tr", {},
      place === 0
        ? make("th", { scope: "row", rowspan: String(row.answers.length), class: "clipped" }, row.prompt)
        : null,
      make("td", { class: "clipped" }, answer.text || say("(nothing)")),
      found.names.map((name) => make("td", { class: "num" }, figure(answer.rewards[name]))),
      make("td", { class: "num" }, make("b", {}, figure(answer.reward))))));
    const foot = make("tfoot", {}, make("tr", {}, make("th", { scope: "row", colspan: "2" }, say("Mean")),
      found.names.map((name) => make("td", { class: "num" }, figure(found.means[name]))),
      make("td", { class: "num" }, figure(found.mean))));
    return studio.table(["Prompt", "Answer", ...found.names.map((name) => [name]), "Sum"], rows,
      { kind: "rewards-table", foot });
  };
  const verdict = (found) => {
    if (found.mean == null) return say("No reward was given: the rows have no answer to compare with.");
    if (found.spread == null) return say("What the answers in the data earn:");
    return found.spread === 0
      ? say("All answers to a prompt get the same reward: nothing would be learnt from them.")
      : say("In {share} of the prompts some answers are better than others; only those teach something.",
        { share: `${number(100 * found.spread)} %` });
  };

  // server: asks the part "tune"; redraw: draws the form anew.
  studio.rewards = (registry, server, redraw) => {
    const chosen = () => studio.order.get("stage.rewards") || [];
    const put = (rewards) => { studio.order.set("stage.rewards", rewards, [], "form"); redraw(); };
    const kind = (reward) => registry.find((one) => one.name === reward.name);
    const result = make("div", { class: "rewards-result", role: "status" });

    const one = (reward, place) => make("section",
      { class: "reward", "aria-label": say(kind(reward)?.label || "") },
      make("div", { class: "reward-head" }, make("b", {}, say(kind(reward)?.label || reward.name)),
        button("plain", "×", () => put(chosen().filter((_, other) => other !== place)),
          { "aria-label": say("Take this reward away") })),
      make("p", { class: "help" }, say(kind(reward)?.about || "")),
      make("div", { class: "fields" },
        (kind(reward)?.knobs || []).map((knob) => studio.field(knob, `stage.rewards.${place}.${knob.key}`))));
    const add = () => make("div", { class: "chips", role: "group", "aria-label": say("Add a reward") },
      registry.map((one) => button("chip", make("b", {}, "+ ", say(one.label)),
        () => put([...chosen(), { name: one.name, ...one.first }]), { title: say(one.about) })));

    const tried = async (ask) => {
      result.replaceChildren(make("p", { class: "quiet" }, say("Trying the rewards…")));
      try {
        const found = await ask();
        result.replaceChildren(make("p", {}, verdict(found)), table(found));
      } catch (problem) {
        const told = studio.trouble(problem);
        result.replaceChildren(make("p", { class: "fault", role: "alert" }, `${told.message} ${told.hint}`.trim()));
      }
    };
    const written = async () => (await server.write({ order: studio.order.value })).yaml;
    const buttons = () => make("div", { class: "rewards-try" },
      button("plain", say("Try on the answers in the data"),
        () => tried(() => server.rewards_on_data({ order: studio.order.value, lang: studio.language }))),
      button("plain", say("Let the base answer, and try (about a minute)"),
        () => tried(async () => studio.call("try_rewards", await written()))));

    return make("div", { class: "rewards", "data-path": "stage.rewards" }, make("h3", {}, say("Rewards")),
      make("p", { class: "help" }, say("What an answer is worth: the sum of these, each times its weight.")),
      chosen().map(one), add(), chosen().length ? buttons() : null, result);
  };
})();
