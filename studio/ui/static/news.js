// What happened since this browser last looked: a page that is opened without a wish of its own begins there.
(() => {
  const studio = window.studio, { element: make, button, say, date } = studio, live = studio.live;
  const SEEN = "studio-seen"; // when this browser last looked, in the server's seconds
  const since = Number(studio.stored(SEEN)) || 0;
  let kept = 0, closed = false;

  // Runs that have ended since, the last one first. On a first visit: the newest run alone, where it has ended.
  const ended = () => (since ? live.rows : live.rows.slice(0, 1)).filter((row) => row.ended > since)
    .sort((a, b) => b.ended - a.ended);
  const looked = () => {
    if (document.hidden || Date.now() - kept < 5000) return;
    kept = Date.now();
    studio.store(SEEN, String(live.at));
  };

  // A page opened without a wish of its own shows, once and before the visitor has gone anywhere, the run that trains,
  // else what has ended: one run's page, or the list of several.
  let landed = false;
  const land = () => {
    if (!landed && !/[?&](tab|run|compare|talk|model)=/.test(location.search)) {
      const news = ended();
      if (live.now.length) studio.open("runs", { run: live.now[0].id }, true);
      else if (news.length === 1) studio.open("runs", { run: news[0].id }, true);
      else if (news.length) studio.open("runs", {}, true);
    }
    landed = true;
  };
  live.listen((what) => { if (what.list) { land(); looked(); } });

  // Over the list of runs: what has ended since, each with its one next step.
  const next = (row) => (row.state === "finished" && row.saved
    ? button("button primary", say("Chat with it"), () => studio.open("chat", { model: row.id, run: null }),
      { job: "chat_ask" })
    : button("button", say(["failed", "lost"].includes(row.state) ? "What to do" : "Look at it"),
      () => studio.open("runs", { run: row.id })));
  studio.news = () => {
    const news = since && !closed ? ended().filter((row) => live.rows.includes(row)) : [];
    if (news.length < 2) return null;
    return make("section", { class: "card news", "aria-label": say("Since you were last here") },
      make("div", { class: "news-head" }, make("h3", {}, say("Since you were last here")),
        button("plain", "✕", () => { closed = true; studio.redrawRuns(); }, { "aria-label": say("Close") })),
      news.slice(0, 5).map((row) => make("div", { class: "repair" },
        make("div", {}, make("b", {}, row.name), " ", studio.state(row.state),
          make("p", { class: "quiet" }, row.cause
            ? studio.told(row.cause)
            : row.stage === "grpo" && row.preference
            ? say("Held-out reward {n}", { n: studio.figure(row.preference.reward) })
            : row.eval_loss != null ? say("Held-out loss {n}", { n: studio.figure(row.eval_loss) }) : date(row.ended))),
        make("div", { class: "acts" }, next(row)))));
  };
})();
