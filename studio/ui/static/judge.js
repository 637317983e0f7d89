// A judge: another model compares the answers of base and tuned, in both orders. Nothing is sent without the button.
(() => {
  const studio = window.studio, make = studio.element;
  studio.resultCards = studio.resultCards || [];

  const card = () => {
    const node = make("section", { class: "card evaluation judge" });
    let row = null, seen = null, timer = null, key = null, begun = 0, opened = false;
    let settings = { url: "", model: "", prompt: "", rows: 100 };

    const going = () => seen?.state === "going" || Date.now() - begun < 8000;
    const begin = async () => {
      const wanted = { url: settings.url.trim(), model: settings.model.trim(), rows: Number(settings.rows) || 100 };
      if (settings.prompt && settings.prompt !== seen?.prompt) wanted.prompt = settings.prompt;
      begun = Date.now();
      draw();
      try { await studio.call("judge_answers", row.id, wanted); }
      catch (problem) { begun = 0; studio.tell(problem); draw(); }
      look();
    };
    const stop = async () => {
      begun = 0;
      try { await studio.call("stop_judging", row.id); } catch (problem) { studio.tell(problem); }
      look();
    };

    const head = () => make("h3", {}, studio.say("What does a judge say?"));
    const line = (label, entry) => make("label", {}, studio.say(label), entry);
    const field = (name, more) => {
      const entry = make("input", { class: "field", type: "text", value: String(settings[name]), ...more,
        oninput: () => { settings[name] = entry.value; } });
      return entry;
    };
    const form = () => {
      const prompt = make("textarea", {
        class: "field", rows: "10", oninput: () => { settings.prompt = prompt.value; }
      });
      prompt.value = settings.prompt || seen.prompt;
      return make("div", { class: "judge-form" },
        line("Address", field("url", { placeholder: "http://127.0.0.1:8000/v1" })),
        line("Model there", field("model", { placeholder: "base" })),
        line("Questions at most", field("rows", { type: "number", min: "1", max: "1000" })),
        make("details", { class: "judge-prompt", open: opened || null,
          ontoggle: (event) => { opened = event.target.open; } },
        make("summary", {}, studio.say("The judge's prompt")), prompt),
        make("div", { class: "acts" }, make("button", {
          type: "button", job: "judge_answers", class: "button primary", onclick: begin
        }, studio.say("Send the answers to the judge"))),
        seen.key == null
          ? null
          : make("p", { class: "quiet small" }, seen.key
            ? studio.say("The key in STUDIO_JUDGE_KEY is sent along.")
            : studio.say("No key is sent: STUDIO_JUDGE_KEY is not set.")));
    };
    const percent = (value) => `${studio.number(100 * value)} %`;
    const outcome = (found) => [
      make("p", { class: `verdict ${found.low > 0.5 ? "good" : found.high < 0.5 ? "bad" : ""}` },
        make("b", {}, studio.say("The tuned model wins {rate} ({low} to {high}).",
          { rate: percent(found.win_rate), low: percent(found.low), high: percent(found.high) }))),
      make("p", {}, studio.say("{wins} better, {ties} equal, {losses} worse; judged by {model}.",
        { wins: studio.number(found.wins), ties: studio.number(found.ties), losses: studio.number(found.losses),
          model: found.model })),
      make("p", { class: "quiet small" },
        studio.say("In {flipped} pairs the order of the answers decided, in {unreadable} a verdict could not be read: "
          + "they count as equal.", { flipped: studio.number(found.flipped), unreadable: studio.number(found.unreadable) })),
      found.why ? make("p", { class: "quiet small" }, studio.told(found.why)) : null];
    const progress = () => {
      const counted = studio.say("{n} of {all} questions",
        { n: studio.number(seen?.done || 0), all: studio.number(seen?.of || 0) });
      return [make("p", { class: "doctor-now", role: "status" }, make("span", { class: "spinner" }),
        make("span", {}, seen?.of ? counted : studio.say("Starting…"))),
      make("div", { class: "acts" }, make("button", {
        type: "button", job: "stop_judging", class: "button", onclick: stop
      }, studio.say("Stop and keep what is judged")))];
    };

    const draw = () => {
      if (!row || !seen) return;
      const failed = seen.state === "failed" && !going()
        ? make("div", { class: "call bad" }, make("div", {}, make("b", {}, studio.told(seen.error.message)),
          seen.error.hint ? make("p", {}, studio.told(seen.error.hint)) : null))
        : null;
      const about = make("p", { class: "quiet" }, seen.answers
        ? studio.say("Another model compares the answers of base and tuned to held-out questions, each pair in both "
          + "orders. Questions and answers go to the address you give, and nowhere else.")
        : studio.say("Evaluate by answers first; the judge reads those."));
      const body = going()
        ? progress()
        : [...(seen.results ? outcome(seen.results) : []), about, seen.answers ? form() : null];
      node.replaceChildren(...[head(), failed, ...body].flat().filter(Boolean));
    };
    const look = async () => {
      clearTimeout(timer);
      const id = row?.id;
      if (!id || studio.tab() !== "runs" || document.hidden) { timer = id ? setTimeout(look, 3000) : null; return; }
      const answer = await studio.ask("studio-bar", "judgement", { id }).catch(() => null);
      if (row?.id !== id) return;
      if (answer) {
        if (answer.state === "going" || answer.state === "failed") begun = 0;
        if (answer.results?.at !== seen?.results?.at) begun = 0;
        seen = answer;
        if (!settings.url && answer.url) settings.url = answer.url;
        if (!settings.model && answer.results) settings.model = answer.results.model;
      }
      const now = JSON.stringify([seen, studio.language, going()]);
      if (now !== key) { key = now; draw(); }
      timer = setTimeout(look, going() ? 1500 : 10000);
    };
    window.addEventListener("studio:language", () => draw());
    return {
      node,
      show(wanted) {
        const changed = wanted?.id !== row?.id || wanted?.state !== row?.state;
        if (wanted?.id !== row?.id && wanted) {
          seen = key = null; begun = 0; settings = { url: "", model: "", prompt: "", rows: 100 };
          node.replaceChildren(head(), make("p", { class: "quiet" }, studio.say("Reading…")));
        }
        row = wanted;
        if (!wanted) { clearTimeout(timer); return; }
        if (changed || !timer) look();
      },
    };
  };
  studio.resultCards.push(card);
})();
