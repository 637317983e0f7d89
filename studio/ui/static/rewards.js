// The rewards of an order, on Tune's card of the stage: chosen from the registry, with their knobs, and tried on rows.
(() => {
  const studio = window.studio, make = studio.element;
  const figure = (value) => (value == null ? "–" : studio.number(value, 2));

  // The answers of a trial, a row each: what was asked, what was answered, each reward and their sum.
  const table = (found) => {
    const head = [studio.say("Prompt"), studio.say("Answer"), ...found.names, studio.say("Sum")];
    const rows = found.rows.flatMap((row) => row.answers.map((answer, place) => make("tr", {},
      place === 0
        ? make("th", { scope: "row", rowspan: String(row.answers.length), class: "clipped" }, row.prompt)
        : null,
      make("td", { class: "clipped" }, answer.text || studio.say("(nothing)")),
      found.names.map((name) => make("td", { class: "num" }, figure(answer.rewards[name]))),
      make("td", { class: "num" }, make("b", {}, figure(answer.reward))))));
    return make("div", { class: "scroll" }, make("table", { class: "simple rewards-table" },
      make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, rows),
      make("tfoot", {}, make("tr", {}, make("th", { scope: "row", colspan: "2" }, studio.say("Mean")),
        found.names.map((name) => make("td", { class: "num" }, figure(found.means[name]))),
        make("td", { class: "num" }, figure(found.mean))))));
  };
  const verdict = (found) => {
    if (found.mean == null) return studio.say("No reward was given: the rows have no answer to compare with.");
    if (found.spread == null) return studio.say("What the answers in the data earn:");
    return found.spread === 0
      ? studio.say("All answers to a prompt get the same reward: nothing would be learnt from them.")
      : studio.say("In {share} of the prompts some answers are better than others; only those teach something.",
        { share: `${studio.number(100 * found.spread)} %` });
  };

  // server: asks the part "tune"; redraw: draws the form anew.
  studio.rewards = (registry, server, redraw) => {
    const chosen = () => studio.order.get("stage.rewards") || [];
    const put = (rewards) => { studio.order.set("stage.rewards", rewards, [], "form"); redraw(); };
    const kind = (reward) => registry.find((one) => one.name === reward.name);
    const result = make("div", { class: "rewards-result", role: "status" });

    const one = (reward, place) => make("section",
      { class: "reward", "aria-label": studio.say(kind(reward)?.label || "") },
      make("div", { class: "reward-head" }, make("b", {}, studio.say(kind(reward)?.label || reward.name)),
        make("button", {
          type: "button", class: "plain", "aria-label": studio.say("Take this reward away"),
          onclick: () => put(chosen().filter((_, other) => other !== place))
        }, "×")),
      make("p", { class: "help" }, studio.say(kind(reward)?.about || "")),
      make("div", { class: "fields" },
        (kind(reward)?.knobs || []).map((knob) => studio.field(knob, `stage.rewards.${place}.${knob.key}`))));
    const add = () => make("div", { class: "chips", role: "group", "aria-label": studio.say("Add a reward") },
      registry.map((one) => make("button", {
        type: "button", class: "chip", title: studio.say(one.about),
        onclick: () => put([...chosen(), { name: one.name, ...one.first }])
      }, make("b", {}, "+ ", studio.say(one.label)))));

    const tried = async (ask) => {
      result.replaceChildren(make("p", { class: "quiet" }, studio.say("Trying the rewards…")));
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
      make("button", { type: "button", class: "plain",
        onclick: () => tried(() => server.rewards_on_data({ order: studio.order.value, lang: studio.language })) },
      studio.say("Try on the answers in the data")),
      make("button", { type: "button", class: "plain",
        onclick: () => tried(async () => studio.call("try_rewards", await written())) },
      studio.say("Let the base answer, and try (about a minute)")));

    return make("div", { class: "rewards", "data-path": "stage.rewards" }, make("h3", {}, studio.say("Rewards")),
      make("p", { class: "help" }, studio.say("What an answer is worth: the sum of these, each times its weight.")),
      chosen().map(one), add(), chosen().length ? buttons() : null, result);
  };
})();
