// A judge: another model compares the answers of base and tuned, in both orders. Nothing is sent without the button.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;

  const judgeCard = () => {
    let opened = false, settings = {};
    const reset = () => { settings = { url: "", model: "", prompt: "", rows: 100 }; };
    reset();
    const begin = (event) => {
      if (!studio.filled(event.target.closest(".job-form"))) return;
      const wanted = { url: settings.url.trim(), model: settings.model.trim(), rows: Number(settings.rows) || 100 };
      if (settings.prompt && settings.prompt !== card.seen.prompt) wanted.prompt = settings.prompt;
      card.begin("judge_answers", wanted);
    };

    const head = () => make("h3", {}, say("What does a judge say?"));
    const line = (label, entry) => make("label", {}, say(label), entry);
    const field = (name, more) => {
      const entry = make("input", { class: "field", type: "text", value: String(settings[name]), ...more,
        oninput: () => { settings[name] = entry.value; } });
      return entry;
    };
    const form = () => {
      const prompt = make("textarea", {
        class: "field", rows: "10", oninput: () => { settings.prompt = prompt.value; }
      });
      prompt.value = settings.prompt || card.seen.prompt;
      return make("div", { class: "job-form" },
        line("Address", field("url", { placeholder: "http://127.0.0.1:8000/v1", required: true })),
        line("Model there", field("model", { placeholder: "base", required: true })),
        line("Questions at most", field("rows", { type: "number", min: "1", max: "1000" })),
        make("details", { class: "judge-prompt", open: opened || null,
          ontoggle: (event) => { opened = event.target.open; } },
          make("summary", {}, say("The judge's prompt")), prompt),
        make("div", { class: "acts" },
          button("button primary", say("Send the answers to the judge"), begin, { job: "judge_answers" })),
        card.seen.key == null
          ? null
          : make("p", { class: "quiet small" }, card.seen.key
            ? say("The key in STUDIO_JUDGE_KEY is sent along.")
            : say("No key is sent: STUDIO_JUDGE_KEY is not set.")));
    };
    const percent = (value) => `${number(100 * value)} %`;
    const outcome = (found) => [
      make("p", { class: `verdict ${found.low > 0.5 ? "good" : found.high < 0.5 ? "bad" : ""}` },
        make("b", {}, found.unreadable === found.wins + found.ties + found.losses
          ? say("No verdict could be read: take a larger model as judge.")
          : say("The tuned model wins {rate} ({low} to {high}).",
            { rate: percent(found.win_rate), low: percent(found.low), high: percent(found.high) }))),
      make("p", {}, say("{wins} better, {ties} equal, {losses} worse; judged by {model}.",
        { wins: number(found.wins), ties: number(found.ties), losses: number(found.losses), model: found.model })),
      make("p", { class: "quiet small" },
        say("In {flipped} pairs the order of the answers decided, in {unreadable} a verdict could not be read: "
          + "they count as equal.", { flipped: number(found.flipped), unreadable: number(found.unreadable) })),
      found.why ? make("p", { class: "quiet small" }, studio.told(found.why)) : null];
    const about = () => make("p", { class: "quiet" }, card.seen.answers
      ? say("Another model compares the answers of base and tuned to held-out questions, each pair in both "
        + "orders. Questions and answers go to the address you give, and nowhere else.")
      : say("Evaluate by answers first; the judge reads those."));

    const card = studio.jobCard({
      name: "judge", read: "judgement", stop: "stop_judging",
      stopLabel: () => say("Stop and keep what is judged"), waits: false, head,
      cutOff: () => say("The last judging was cut off. What was answered is kept; let it go on."),
      body: () => [...(card.results ? outcome(card.results) : []), about(), card.seen.answers ? form() : null],
      count: (done, all) => say("{n} of {all} questions", { n: number(done), all: number(all) }),
      take(answer) {
        settings.url ||= answer.url || "";
        settings.model ||= card.results?.model || "";
      },
      reset
    });
    return card;
  };
  studio.resultCards.push(judgeCard);
})();
