// Cards among a run's results. jobCard: one over a job beside the run (studio/side_job.py), which it begins and stops;
// it asks how the job stands while the run is looked at, and draws only what has changed.
(() => {
  const studio = window.studio, { element: make, button, say } = studio;
  const BEGINS = 10000; // milliseconds that a job which was just begun has until the server tells of it
  studio.resultCards = [];

  // part: read, stop (names on the server), head(), body(), stopLabel(), count(done, all); where a card needs it also
  // name (a class), cutOff(), waits (false: no run waits for the job), streamed() and progress() (what is drawn of a
  // job under way, and what of it has changed), question() (more of what is asked), begun(), take(answer), reset()
  // (another run), wanted() (true: it has begun the job that was asked for elsewhere on the page).
  studio.jobCard = (part) => {
    let timer = null, key = null, begun = 0;
    const card = {
      node: make("section", { class: `card evaluation ${part.name || ""}` }),
      row: null, seen: null, results: null,
      going: () => card.seen?.state === "going" || Date.now() - begun < BEGINS,
      ready: () => card.row?.saved && !studio.isAlive(card.row.state) && card.row.state !== "queued",
      async begin(job, ...given) {
        begun = Date.now();
        part.begun?.();
        card.draw();
        if (!(await studio.perform(job, card.row.id, ...given))) { begun = 0; card.draw(); }
        look();
      },
      draw() {
        if (!card.row || !(card.seen || begun)) return;
        const body = card.going() ? progress() : [problem(), ...part.body()];
        card.node.replaceChildren(...[part.head(), ...body].flat().filter(Boolean));
      },
      show(row) {
        const before = card.row;
        const changed = ["id", "state", "saved"].some((name) => row?.[name] !== before?.[name]);
        if (row && row.id !== before?.id) {
          card.seen = card.results = key = null;
          begun = 0;
          part.reset?.();
          card.node.replaceChildren(part.head(), make("p", { class: "quiet" }, say("Reading…")));
        }
        card.row = row;
        if (!row) clearTimeout(timer);
        else if (!part.wanted?.() && (changed || !timer)) look();
      }
    };

    const stop = async () => {
      begun = 0;
      await studio.perform(part.stop, card.row.id);
      look();
    };
    const progress = () => {
      const done = card.seen?.done || 0, all = card.seen?.of || 0, counted = part.count(done, all);
      const doing = card.seen?.state === "going" && card.seen.doing && card.seen.doing !== "starting"
        ? studio.told(card.seen.doing)
        : "";
      return [...studio.progress(doing, done, all, counted), part.waits === false ? null : studio.waiting(),
        make("div", { class: "acts" }, button("button", part.stopLabel(), stop, { job: part.stop })),
        part.streamed?.()];
    };
    const problem = () => {
      if (card.seen?.state === "cut off" && part.cutOff) return make("p", { class: "bad" }, part.cutOff());
      if (!card.seen?.error) return null;
      const { message, hint } = card.seen.error, failed = card.seen.state === "failed";
      if (!failed) return make("p", { class: "quiet", role: "status" }, studio.told(message));
      return studio.callout("bad", studio.told(message), studio.told(hint || ""));
    };

    const look = async () => {
      clearTimeout(timer);
      const id = card.row?.id;
      if (!id || studio.tab() !== "runs" || document.hidden) { timer = id ? setTimeout(look, 3000) : null; return; }
      const mark = card.results ? String(card.results.at) : "";
      const answer = await studio.ask("studio-bar", part.read, { id, mark, ...part.question?.() }).catch(() => null);
      if (card.row?.id !== id) return;
      if (answer) {
        const isNew = answer.results && answer.results.at !== card.results?.at;
        if (isNew || answer.state === "going" || answer.error) begun = 0;
        if (isNew) card.results = answer.results;
        part.take?.(answer);
        card.seen = { ...answer, rows: null, results: null };
      }
      const { row, seen, results } = card;
      const now = JSON.stringify([seen, results?.at, part.progress?.(), studio.language, row.state, row.saved,
        card.going()]);
      if (now !== key) { key = now; card.draw(); }
      timer = setTimeout(look, card.going() ? 1500 : 10000);
    };
    window.addEventListener("studio:language", () => card.draw());
    return card;
  };
})();
