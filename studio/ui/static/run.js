// One run's page: how it stands in large, what went wrong or what comes next, curves, samples, log, order, checkpoints.
(() => {
  const studio = window.studio, { element: make, button, say, duration, date } = studio, live = studio.live;
  const VIEWS = [["curves", "Curves"], ["results", "Results"], ["samples", "Samples"], ["log", "Log"],
    ["order", "Order"], ["checkpoints", "Checkpoints"], ["away", "Take away"]];

  class RunPage {
    constructor() {
      this.overlay = make("div", { class: "run-overlay" });
      this.curves = new studio.Curves(this.overlay);
      this.logview = new studio.LogView();
      this.ordered = studio.ordered();
      this.head = make("header", { class: "run-head" });
      this.hero = make("section", { class: "card run-hero", "aria-label": "" });
      this.calls = make("div", { class: "run-calls" });
      this.views = make("div", { class: "run-views", role: "tablist" });
      this.body = make("div", { class: "run-body" });
      this.made = make("div");
      this.race = studio.raceView();
      this.panels = {
        curves: make("div", { class: "card" }, this.made, this.race.node, this.curves.node),
        results: make("div", { class: "run-results" }, (this.cards = studio.resultCards.map((card) => card()))
          .map((card) => card.node)),
        samples: make("div", { class: "card" }),
        log: make("div", { class: "card" }, this.logview.node), order: this.ordered.order,
        checkpoints: this.ordered.checkpoints,
        away: (this.away = studio.takeAway()).node };
      for (const [key, panel] of Object.entries(this.panels)) {
        panel.id = `run-panel-${key}`;
        panel.setAttribute("role", "tabpanel");
        this.body.append(panel);
      }
      this.device = studio.devicePanel();
      this.node = make("div", { class: "run-page", hidden: true }, this.head, this.hero, this.calls, this.views,
        this.body, this.device);
      this.view = "curves";
      this.over = [];
      this.choose(this.view);
    }

    open(id) {
      if (id !== this.id) {
        this.id = id; this.over = []; this.drawn = {}; this.logged = null;
        this.ordered.open(id); this.panels.samples.replaceChildren();
        this.curves.view = null; this.curves.off.clear();
        this.choose("curves");
      }
      live.wantsLog = this.view === "log";
      live.show(id, this.over);
      this.entries();
      this.draw();
    }
    entries() {
      this.curves.show([this.id, ...this.over].map((id) => ({ track: live.track(id), label: studio.runName(id) })));
    }

    heard(what) {
      if (what.run || what.link) this.draw();
      // else they are drawn when they are looked at
      if ((what.changed || what.also) && this.view === "curves") this.curves.all();
      if (what.log) {
        if (this.logged !== `${this.id} ${live.log.turn}`) {
          this.logged = `${this.id} ${live.log.turn}`;
          this.logview.fill(live.log.lines, live.log.skipped, this.id);
        } else this.logview.add(what.log);
      }
      if (what.changed && this.view === "samples") studio.drawSamples(this.panels.samples, this.id);
      if (what.run && this.view === "checkpoints") this.ordered.draw();
      if (what.run && this.view === "results") for (const card of this.cards) card.show(this.row);
    }

    choose(view) {
      this.view = view;
      this.views.replaceChildren(...VIEWS.map(([key, name]) => make("button",
        {
          role: "tab", id: `run-view-${key}`, "aria-selected": String(key === view),
          "aria-controls": `run-panel-${key}`,
          tabindex: key === view ? "0" : "-1", onclick: () => this.choose(key), onkeydown: (event) => this.step(event)
        },
        say(key === "curves" ? this.firstName() : name))));
      for (const [key, panel] of Object.entries(this.panels)) {
        panel.hidden = key !== view;
        panel.setAttribute("aria-labelledby", `run-view-${key}`);
      }
      live.wantsLog = view === "log";
      if (view === "log") { this.logview.id = this.id; live.hurry(); }
      if (view === "samples") studio.drawSamples(this.panels.samples, this.id);
      if (view === "order" || view === "checkpoints") this.ordered.fetch();
      if (view === "curves") this.curves.all();
      this.away.show(view === "away" ? this.row : null);
      this.panels.results.dataset.stage = this.row?.stage || "";
      for (const card of this.cards) card.show(view === "results" ? this.row : null);
    }
    step(event) {
      const place = VIEWS.findIndex(([key]) => key === this.view);
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
      if (to == null) return;
      event.preventDefault();
      this.choose(VIEWS[(to + VIEWS.length) % VIEWS.length][0]);
      this.views.querySelector("[aria-selected=true]").focus();
    }
    speak() { this.drawn = {}; this.choose(this.view); this.draw(); }

    get row() { return live.tracks.get(this.id)?.status || live.rows.find((row) => row.id === this.id); }

    // Redraws a part only when what it shows has changed, so that a menu stays open.
    part(name, node, values, make_) {
      const key = JSON.stringify([values, studio.language]);
      if (this.drawn[name] === key || node.querySelector("details[open]")) return;
      this.drawn[name] = key;
      node.replaceChildren(...make_().flat().filter(Boolean));
    }

    // The name of the first view, by what it shows.
    firstName() {
      const row = this.row;
      return row?.combined ? "Combination" : row?.race?.plan ? "Verdict" : row?.race ? "Race" : "Curves";
    }
    // In the place of curves: what a combination was made of, or the settings of a race.
    drawMade(row, track) {
      this.curves.node.hidden = Boolean(row.combined || row.race);
      this.made.hidden = !row.combined;
      this.race.node.hidden = !row.race;
      if (row.race) this.race.update(row, track);
      if (row.combined)
        this.part("made", this.made, [row.id, row.combined, row.state, track?.version, live.mark],
          () => [studio.combined(row, track)]);
      if (this.spoken !== this.firstName()) { this.spoken = this.firstName(); this.choose(this.view); }
    }

    draw() {
      const track = live.tracks.get(this.id), row = this.row;
      const gone = track?.gone;
      for (const part of [this.hero, this.calls, this.views, this.body]) part.hidden = Boolean(gone) || !row;
      if (gone || !row) {
        this.part("head", this.head, [gone, this.id],
          () => [studio.allRuns(),
            make("div", { class: "empty card" },
              make("h3", { "aria-level": "1" }, gone ? say("This run is not here") : say("Reading the run…")),
              gone ? make("p", {}, say("It may have been deleted, or the link is from another studio.")) : null)]);
        return;
      }
      this.hero.hidden = row.state === "queued" && !row.step; // nothing has happened yet
      this.drawMade(row, track);
      const locked = studio.locked(row);
      this.part("head", this.head,
        [row.name, row.star, row.state, row.model, studio.methodLabel(row.method), row.data, row.note, row.hold, locked,
          row.saved],
        () => this.drawHead(row));
      this.part("hero", this.hero,
        [row.state, row.phase, row.train_loss, row.reward, row.eval_loss, row.eval_loss_before, row.best_eval_loss,
          row.percent, duration(row.left), row.step, row.tokens_per_second, row.memory_now,
          duration(row.seconds),
          row.forgetting],
        () => studio.runHero(row));
      this.part("calls", this.calls,
        [row.state, row.hold, row.cause, row.action, row.saved, studio.runNotes(track), row.signs, studio.locked(row),
          row.state === "queued" && [studio.place(row), studio.queue().length]],
        () => studio.runCalls(row, track, () => {
          this.choose("log");
          this.views.scrollIntoView({ block: "start" });
        }));
      this.part("overlay", this.overlay, [this.over, live.rows.map((one) => one.id)], () => this.drawOverlay());
    }

    drawHead(row) {
      const star = button(`star ${row.star ? "on" : ""}`, row.star ? "★" : "☆", () => studio.ACTS.star.run(row),
        { job: "label", "aria-pressed": String(Boolean(row.star)),
          "aria-label": say("Star {name}", { name: row.name }) });
      const chat = row.saved && row.state !== "finished"
        ? button("button", say("Chat with it"), () => studio.open("chat", { model: row.id, run: null }),
          { job: "chat_ask" })
        : null;
      const acts = studio.acts(row);
      if (chat) acts.prepend(chat);
      if (studio.isAlive(row.state) || row.state === "queued")
        acts.prepend(button("button", say("Notify me"),
          async () => { await studio.wantNotes(); this.drawn.head = null; this.draw(); },
          { "aria-pressed": String(studio.stored("studio-notify") === "on"),
            title: say("The browser says so when a run ends, as long as this page is open.") }));
      return [studio.allRuns(),
        make("div", { class: "run-title" }, make("div", {},
          make("h2", { "aria-level": "1" }, star, row.name, studio.state(row.state)),
          make("p", { class: "quiet", title: [row.model, row.data].filter(Boolean).join("\n") },
            [studio.brief(row.model), studio.methodLabel(row.method), studio.brief(row.data), date(row.created)]
              .filter(Boolean).join(" · ")),
          ...(row.edited || []).map((one) => make("p", { class: "quiet small run-edited" },
            say("Edited from {name}: {what}", { name: one.from, what: studio.editedCounts(one.counts) }))),
          row.note ? make("p", { class: "row-note" }, row.note) : null),
          acts)];
    }

    drawOverlay() {
      const others = live.rows.filter((row) => row.id !== this.id && !this.over.includes(row.id) && row.points);
      if (!others.length && !this.over.length) return [];
      const pick = studio.select([["", say("Lay another run over this one…")], ...others.slice(0, 200).map((row) =>
        [row.id, `${row.name} (${studio.state(row.state).textContent}, ${date(row.created)})`])], "",
      (id) => { if (id) this.lay([...this.over, id]); },
      { class: "field", "aria-label": say("Lay another run over this one") });
      return [this.over.length < 7 ? pick : null,
        this.over.length ? button("chip", say("Only this run"), () => this.lay([])) : null];
    }
    lay(ids) { this.over = ids; live.show(this.id, ids); this.entries(); this.draw(); }
  }
  studio.runPage = () => new RunPage();
})();
