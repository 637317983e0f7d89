// What a run of a stage that compares answers has learnt to prefer: its held-out metrics, at the start and now.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const NAMES = { accuracy: "Chosen answer preferred", margin: "Margin of the rewards", chosen: "Reward, chosen",
    rejected: "Reward, rejected", logps_chosen: "Log-probability, chosen", logps_rejected: "Log-probability, rejected",
    length_chosen: "Tokens, chosen", length_rejected: "Tokens, rejected", kl: "Divergence (KL)", reward: "Reward",
    ended: "Answers that end by themselves", length: "Length of answers" };
  const SHARES = ["accuracy", "ended"];
  const figure = (name, value) => (value == null
    ? "–"
    : SHARES.includes(name) ? `${number(100 * value)} %` : number(value, name.startsWith("length") ? 0 : 3));

  const earned = (before, now) => make("p", { class: `verdict ${before.reward >= now.reward ? "bad" : "good"}` },
    make("b", {}, before.reward == null
      ? say("Its answers to held-out prompts earn {reward}.", { reward: figure("reward", now.reward) })
      : say("Its answers to held-out prompts earn {reward}; it was {before}.",
        { reward: figure("reward", now.reward), before: figure("reward", before.reward) })));
  const verdict = (before, now) => (now.reward != null
    ? earned(before, now)
    : now.accuracy == null
    ? null
    : make("p", { class: `verdict ${now.accuracy > 0.5 ? "good" : "bad"}` }, make("b", {}, before.accuracy == null
      ? say("Of the held-out answers it prefers the better one in {share}.",
        { share: figure("accuracy", now.accuracy) })
      : say("Of the held-out answers it prefers the better one in {share}; it was {before}.",
        { share: figure("accuracy", now.accuracy), before: figure("accuracy", before.accuracy) }))));
  const table = (before, now, about) => studio.table(["Figure", "At the start", "Now"],
    Object.entries(NAMES).filter(([name]) => now[name] != null).map(([name, label]) => [
      [say(label), make("small", { class: "quiet about" }, about[name] ? say(about[name]) : "")],
      figure(name, before[name]), figure(name, now[name])]));

  // Of a reward model: two answers to a question, and which of them it would rather have.
  const scoring = (row) => {
    const fields = [["Question", "A question"], ["Answer A", "An answer"], ["Answer B", "Another answer"]];
    const boxes = fields.map(([label, placeholder]) => make("textarea", { class: "field", rows: "2",
      "aria-label": say(label), placeholder: say(placeholder) }));
    const result = make("p", { class: "num", role: "status" });
    const ask = async () => {
      const [question, ...answers] = boxes.map((box) => box.value.trim());
      const given = answers.filter(Boolean);
      if (!question || !given.length) {
        result.replaceChildren(say("Write a question and an answer first."));
        return;
      }
      scorer.disabled = true;
      result.replaceChildren(say("Scoring…"));
      try {
        const { scores } = await studio.call("score_answers", row.id, question, given);
        result.replaceChildren(...scores.flatMap((score, place) => [place ? " · " : "",
          `${String.fromCharCode(65 + answers.indexOf(given[place], place))} `,
          make("b", {}, score == null ? "–" : number(score, 3))]));
      } catch (problem) {
        result.replaceChildren();
        studio.tell(problem);
      }
      scorer.disabled = false;
    };
    const scorer = button("button primary", say("Score them"), ask, { job: "score_answers" });
    return make("div", { class: "influence-form" }, make("h3", {}, say("Score answers")),
      make("p", { class: "quiet" }, say("The higher score is the better answer; a score alone says nothing.")),
      ...boxes, make("div", { class: "acts" }, scorer), result);
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
          say("No pairs are held out: it is not known how often it prefers the better answer.")),
          scores ? scoring(row) : null].filter(Boolean));
        return;
      }
      const before = measures[0].step === 0 ? measures[0].preference : {}, last = measures.at(-1).preference;
      node.replaceChildren(...[make("h3", {}, say(last.reward == null
        ? "Which answers does it prefer?"
        : "What are its answers worth?")), verdict(before, last),
        table(before, last, studio.offer?.form.metrics || {}), scores ? scoring(row) : null].filter(Boolean));
    };
    return { node, show };
  };
  studio.resultCards.push(card);
})();
