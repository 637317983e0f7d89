// What a run of a stage that compares answers has learnt to prefer: its held-out metrics, at the start and now.
(() => {
  const studio = window.studio, make = studio.element;
  const NAMES = { accuracy: "Chosen answer preferred", margin: "Margin of the rewards", chosen: "Reward, chosen",
    rejected: "Reward, rejected", logps_chosen: "Log-probability, chosen", logps_rejected: "Log-probability, rejected",
    length_chosen: "Tokens, chosen", length_rejected: "Tokens, rejected", kl: "Divergence (KL)", reward: "Reward",
    ended: "Answers that end by themselves", length: "Length of answers" };
  const SHARES = ["accuracy", "ended"];
  const figure = (name, value) => (value == null
    ? "–"
    : SHARES.includes(name) ? `${studio.number(100 * value)} %`
    : studio.number(value, name.startsWith("length") ? 0 : 3));

  const earned = (before, now) => make("p", { class: `verdict ${before.reward >= now.reward ? "bad" : "good"}` },
    make("b", {}, before.reward == null
      ? studio.say("Its answers to held-out prompts earn {reward}.", { reward: figure("reward", now.reward) })
      : studio.say("Its answers to held-out prompts earn {reward}; it was {before}.",
        { reward: figure("reward", now.reward), before: figure("reward", before.reward) })));
  const verdict = (before, now) => (now.reward != null
    ? earned(before, now)
    : now.accuracy == null
    ? null
    : make("p", { class: `verdict ${now.accuracy > 0.5 ? "good" : "bad"}` }, make("b", {}, before.accuracy == null
      ? studio.say("Of the held-out answers it prefers the better one in {share}.",
        { share: figure("accuracy", now.accuracy) })
      : studio.say("Of the held-out answers it prefers the better one in {share}; it was {before}.",
        { share: figure("accuracy", now.accuracy), before: figure("accuracy", before.accuracy) }))));
  const table = (before, now, about) => make("div", { class: "scroll" }, make("table", { class: "simple" },
    make("thead", {}, make("tr", {}, ["Figure", "At the start", "Now"].map((name) =>
      make("th", { scope: "col" }, studio.say(name))))),
    make("tbody", {}, Object.entries(NAMES).filter(([name]) => now[name] != null).map(([name, label]) =>
      make("tr", {}, make("th", { scope: "row" }, studio.say(label),
        make("small", { class: "quiet about" }, about[name] ? studio.say(about[name]) : "")),
      make("td", { class: "num" }, figure(name, before[name])),
      make("td", { class: "num" }, figure(name, now[name])))))));

  // Of a reward model: two answers to a question, and which of them it would rather have.
  const scoring = (row) => {
    const fields = [["Question", "A question"], ["Answer A", "An answer"], ["Answer B", "Another answer"]];
    const boxes = fields.map(([label, placeholder]) => make("textarea", { class: "field", rows: "2",
      "aria-label": studio.say(label), placeholder: studio.say(placeholder) }));
    const result = make("p", { class: "num", role: "status" });
    const ask = async () => {
      const [question, ...answers] = boxes.map((box) => box.value.trim());
      const given = answers.filter(Boolean);
      if (!question || !given.length) {
        result.replaceChildren(studio.say("Write a question and an answer first."));
        return;
      }
      button.disabled = true;
      result.replaceChildren(studio.say("Scoring…"));
      try {
        const { scores } = await studio.call("score_answers", row.id, question, given);
        result.replaceChildren(...scores.flatMap((score, place) => [place ? " · " : "",
          `${String.fromCharCode(65 + answers.indexOf(given[place], place))} `,
          make("b", {}, score == null ? "–" : studio.number(score, 3))]));
      } catch (problem) {
        result.replaceChildren();
        studio.tell(problem);
      }
      button.disabled = false;
    };
    const button = make("button", { type: "button", job: "score_answers", class: "button primary", onclick: ask },
      studio.say("Score them"));
    return make("div", { class: "influence-form" }, make("h3", {}, studio.say("Score answers")),
      make("p", { class: "quiet" }, studio.say("The higher score is the better answer; a score alone says nothing.")),
      ...boxes, make("div", { class: "acts" }, button), result);
  };

  const card = () => {
    const node = make("section", { class: "card evaluation preference", hidden: true });
    let key = null;
    const show = (row) => {
      const others = row ? studio.live.tracks.get(row.id)?.others || [] : [];
      const measures = others.filter((event) => event.kind === "eval" && event.preference);
      node.hidden = !measures.length && row?.stage !== "reward";
      const scores = row?.stage === "reward" && row.state === "finished";
      const now = JSON.stringify([row?.id, measures.length, studio.language, scores]);
      if (node.hidden || now === key) return;
      key = now;
      if (!measures.length) {
        node.replaceChildren(...[make("p", { class: "quiet" },
          studio.say("No pairs are held out: it is not known how often it prefers the better answer.")),
        scores ? scoring(row) : null].filter(Boolean));
        return;
      }
      const before = measures[0].step === 0 ? measures[0].preference : {}, last = measures.at(-1).preference;
      node.replaceChildren(...[make("h3", {}, studio.say(last.reward == null
        ? "Which answers does it prefer?"
        : "What are its answers worth?")), verdict(before, last),
        table(before, last, studio.offer?.form.metrics || {}), scores ? scoring(row) : null].filter(Boolean));
    };
    return { node, show };
  };
  studio.resultCards.push(card);
})();
