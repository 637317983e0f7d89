// One run's page: how it stands in large, what went wrong or what comes next, curves, samples, log, order, checkpoints.
(() => {
  const studio = window.studio, make = studio.element, live = studio.live;
  const VIEWS = [["curves", "Curves"], ["samples", "Samples"], ["log", "Log"], ["order", "Order"], ["checkpoints", "Checkpoints"], ["away", "Take away"]];
  const ALIVE = ["starting", "running", "stopping"];

  class RunPage {
    constructor() {
      this.overlay = make("div", { class: "run-overlay" });
      this.curves = new studio.Curves(this.overlay);
      this.logview = new studio.LogView();
      this.head = make("header", { class: "run-head" });
      this.hero = make("section", { class: "card run-hero", "aria-label": "" });
      this.calls = make("div", { class: "run-calls" });
      this.views = make("div", { class: "run-views", role: "tablist" });
      this.body = make("div", { class: "run-body" });
      this.panels = { curves: make("div", { class: "card" }, this.curves.node), samples: make("div", { class: "card" }),
        log: make("div", { class: "card" }, this.logview.node), order: make("div", { class: "card" }), checkpoints: make("div", { class: "card" }),
        away: (this.away = studio.takeAway()).node };
      for (const [key, panel] of Object.entries(this.panels)) { panel.id = `run-panel-${key}`; panel.setAttribute("role", "tabpanel"); this.body.append(panel); }
      this.device = studio.devicePanel();
      this.node = make("div", { class: "run-page", hidden: true }, this.head, this.hero, this.calls, this.views, this.body, this.device);
      this.view = "curves";
      this.over = [];
      this.choose(this.view);
    }

    open(id) {
      if (id !== this.id) {
        this.id = id; this.over = []; this.drawn = {}; this.ordered = null; this.logged = null;
        this.panels.order.replaceChildren(); this.panels.checkpoints.replaceChildren(); this.panels.samples.replaceChildren();
        this.curves.view = null; this.curves.off.clear();
        this.choose("curves");
      }
      live.wantsLog = this.view === "log";
      live.show(id, this.over);
      this.entries();
      this.draw();
    }
    entries() {
      const label = (id) => live.rows.find((row) => row.id === id)?.name || id.replace(/^\d{4}-\d\d-\d\d-\d{4}-/, "");
      this.curves.show([this.id, ...this.over].map((id) => ({ track: live.track(id), label: label(id) })));
    }

    heard(what) {
      if (what.run || what.link) this.draw();
      if (what.changed || what.also) this.curves.all();
      if (what.log) {
        if (this.logged !== `${this.id} ${live.log.turn}`) { this.logged = `${this.id} ${live.log.turn}`; this.logview.fill(live.log.lines, live.log.skipped, this.id); }
        else this.logview.add(what.log);
      }
      if (what.changed && this.view === "samples") this.drawSamples();
      if (what.run && this.view === "checkpoints") this.drawCheckpoints();
    }

    choose(view) {
      this.view = view;
      this.views.replaceChildren(...VIEWS.map(([key, name]) => make("button", { type: "button", role: "tab", id: `run-view-${key}`, "aria-selected": String(key === view), "aria-controls": `run-panel-${key}`,
        tabindex: key === view ? "0" : "-1", onclick: () => this.choose(key), onkeydown: (event) => this.step(event) }, studio.say(name))));
      for (const [key, panel] of Object.entries(this.panels)) { panel.hidden = key !== view; panel.setAttribute("aria-labelledby", `run-view-${key}`); }
      live.wantsLog = view === "log";
      if (view === "log") { this.logview.id = this.id; live.hurry(); }
      if (view === "samples") this.drawSamples();
      if (view === "order" || view === "checkpoints") this.fetchOrder();
      if (view === "curves") this.curves.all();
      this.away.show(view === "away" ? this.row : null);
    }
    step(event) {
      const place = VIEWS.findIndex(([key]) => key === this.view), to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
      if (to == null) return;
      event.preventDefault();
      this.choose(VIEWS[(to + VIEWS.length) % VIEWS.length][0]);
      this.views.querySelector("[aria-selected=true]").focus();
    }
    speak() { this.drawn = {}; this.choose(this.view); this.draw(); }

    get row() { return live.tracks.get(this.id)?.status || live.rows.find((row) => row.id === this.id); }

    // Redraws a part only when what it shows has changed, so that a menu stays open and a focus stays where it is.
    part(name, node, values, make_) {
      const key = JSON.stringify([values, studio.language]);
      if (this.drawn[name] === key || node.querySelector("details[open]")) return;
      this.drawn[name] = key;
      const focus = node.contains(document.activeElement) ? document.activeElement.textContent : null;
      node.replaceChildren(...make_().flat().filter(Boolean));
      if (focus) [...node.querySelectorAll("button, a, summary")].find((one) => one.textContent === focus)?.focus();
    }

    draw() {
      const track = live.tracks.get(this.id), row = this.row;
      const gone = track?.gone;
      for (const part of [this.hero, this.calls, this.views, this.body]) part.hidden = Boolean(gone) || !row;
      if (gone || !row) {
        this.part("head", this.head, [gone, this.id], () => [this.back(), make("div", { class: "empty card" }, make("h3", {}, gone ? studio.say("This run is not here") : studio.say("Reading the run…")),
          gone ? make("p", {}, studio.say("It may have been deleted, or the link is from another studio.")) : null)]);
        return;
      }
      const locked = studio.locked(row);
      this.part("head", this.head, [row.name, row.star, row.state, row.model, row.method, row.data, row.note, row.hold, locked, row.saved], () => this.drawHead(row));
      this.part("hero", this.hero, [row.state, row.phase, row.train_loss, row.eval_loss, row.eval_loss_before, row.best_eval_loss, row.percent, row.left, row.step, row.tokens_per_second, row.memory_now, Math.floor(row.seconds)], () => this.drawHero(row));
      this.part("calls", this.calls, [row.state, row.hold, row.cause, row.action, row.saved, this.notes(track), row.signs, studio.locked(row), row.state === "queued" && [studio.place(row), studio.queue().length]], () => this.drawCalls(row, track));
      this.part("overlay", this.overlay, [this.over, live.rows.map((one) => one.id)], () => this.drawOverlay());
    }

    back() {
      return make("a", { class: "back", href: "?tab=runs", onclick: (event) => { event.preventDefault(); studio.open("runs", { run: null, compare: null }); } }, `← ${studio.say("All runs")}`);
    }
    drawHead(row) {
      const star = make("button", { type: "button", job: "label", class: `star ${row.star ? "on" : ""}`, "aria-pressed": String(Boolean(row.star)), "aria-label": studio.say("Star {name}", { name: row.name }), onclick: () => studio.ACTS.star.run(row) }, row.star ? "★" : "☆");
      const chat = row.state === "finished" || row.saved ? make("button", { type: "button", class: `button ${ALIVE.includes(row.state) ? "" : "primary"}`, onclick: () => studio.open("chat", { model: row.id, run: null }) }, studio.say("Chat with it")) : null;
      const acts = studio.acts(row);
      if (chat) acts.prepend(chat);
      if (ALIVE.includes(row.state) || row.state === "queued") acts.prepend(make("button", { type: "button", class: "chip", "aria-pressed": String(studio.stored("studio-notify") === "on"),
        title: studio.say("The browser says so when a run ends, as long as this page is open."), onclick: async () => { await studio.wantNotes(); this.drawn.head = null; this.draw(); } }, studio.say("Notify me")));
      return [this.back(), make("div", { class: "run-title" }, make("div", {}, make("h2", {}, star, row.name, studio.state(row.state)),
        make("p", { class: "quiet" }, [row.model, row.method, row.data, studio.date(row.created)].filter(Boolean).join(" · ")), row.note ? make("p", { class: "row-note" }, row.note) : null), acts)];
    }

    drawHero(row) {
      const alive = ALIVE.includes(row.state), dropped = row.eval_loss_before && row.eval_loss != null ? (1 - row.eval_loss / row.eval_loss_before) * 100 : null;
      const big = (name, value, small) => make("div", { class: "figure" }, make("span", { class: "figure-name" }, studio.say(name)), make("b", { class: "num" }, value), make("small", { class: "quiet num" }, small || "\u00a0"));
      const steps = row.steps ? studio.say("step {step} of {steps}", { step: studio.number(row.step), steps: studio.number(row.steps) }) : studio.phase(row);
      const held = dropped == null ? "" : dropped >= 0 ? studio.say("{n} % lower than before", { n: studio.number(dropped) }) : studio.say("{n} % higher than before", { n: studio.number(-dropped) });
      const time = alive ? big("Time left", row.left == null ? "–" : studio.duration(row.left), studio.say("{time} so far", { time: studio.duration(row.seconds) })) : big("Time", studio.duration(row.seconds), "");
      const speed = row.tokens_per_second ? studio.say("{n} tokens/s", { n: studio.number(row.tokens_per_second) }) : "";
      const memory = row.memory_now || row.peak_memory;
      const facts = [alive ? studio.phase(row) : null, row.epoch != null ? studio.say("epoch {n}", { n: studio.number(row.epoch, 2) }) : null,
        row.learning_rate != null && alive ? `${studio.say("learning rate")} ${row.learning_rate.toExponential(1)}` : null,
        memory ? studio.say("{used} memory", { used: studio.bytes(memory) }) + (row.estimated_memory ? ` (${studio.say("estimate")} ${studio.bytes(row.estimated_memory)})` : "") : null,
        row.trainable ? studio.say("{n} trained parameters ({share} %)", { n: studio.number(row.trainable), share: studio.number((100 * row.trainable) / row.parameters, 2) }) : null].filter(Boolean);
      return [make("div", { class: "figures" }, big("Loss", row.train_loss == null ? "–" : row.train_loss.toFixed(3), speed), big("Held-out loss", row.eval_loss == null ? "–" : row.eval_loss.toFixed(3), held),
        big("Done", row.percent == null ? "–" : `${studio.number(Math.floor(row.percent))} %`, steps), time),
      make("div", { class: `meter ${alive ? "alive" : row.state}`, role: "progressbar", "aria-label": studio.say("Progress"), "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(row.percent || 0)) },
        make("i", { style: `width:${row.percent || (alive ? 2 : 0)}%` })), make("p", { class: "facts quiet num" }, facts.map((fact) => make("span", {}, fact)))];
    }

    notes(track) { return (track?.others || []).filter((event) => event.kind === "note" && event.level !== "info").slice(-3); }
    drawCalls(row, track) {
      const calls = [], call = (kind, title, text, ...acts) => calls.push(make("div", { class: `call ${kind}`, role: kind === "bad" ? "alert" : "status" }, make("div", {}, make("b", {}, title), text ? make("p", {}, text) : null), acts));
      const log = () => make("button", { type: "button", class: "button", onclick: () => this.choose("log") }, studio.say("Read the log"));
      if (row.state === "failed" || row.state === "lost") call("bad", studio.told(row.cause || (row.state === "lost" ? "The run was cut off." : "The run failed.")), studio.told(row.action || ""),
        make("button", { type: "button", job: "resume", class: "button primary", disabled: studio.locked(row), onclick: () => studio.ACTS.resume.run(row) }, studio.say("Resume")), log());
      if (row.state === "failed" && row.reason === "memory") calls.push(this.repairs(row));
      if (row.state === "stopped" && row.cause) call("warn", studio.told(row.cause), studio.told(row.action || ""));
      if (row.state === "queued") call("info", row.hold ? studio.say("This run is paused.") : studio.say("This run waits for the device."), row.hold ? studio.say("Resume puts it back in line.") : studio.say("It starts by itself when the run before it has ended."), ...[studio.steps(row)].filter(Boolean));
      for (const sign of row.signs || []) call(sign.level === "error" ? "bad" : "warn", studio.told(sign.text), studio.told(ALIVE.includes(row.state) ? sign.action : sign.rule));
      for (const note of this.notes(track)) call(note.level === "error" ? "bad" : "warn", studio.told(note.text), studio.told(note.hint || ""));
      if (row.state === "finished") call("good", studio.say("Finished. See what it learnt."), studio.say("Ask it and the base model the same question, side by side."),
        make("button", { type: "button", class: "button primary", onclick: () => studio.open("chat", { model: row.id, run: null }) }, studio.say("Chat with it")));
      return calls;
    }

    // After an out-of-memory: what would help, ranked, each one click away.
    repairs(row) {
      const list = make("div", { class: "repairs" });
      studio.ask("studio-bar", "repairs", { id: row.id }).then((answer) => {
        if (!answer.repairs.length) { list.remove(); return; }
        list.append(make("h3", {}, studio.say("What would make it fit")), ...answer.repairs.map((one) => make("div", { class: "repair" }, make("div", {}, make("b", {}, studio.told(one.text)),
          make("p", { class: "quiet" }, [one.saves ? studio.say("saves about {size}", { size: studio.bytes(one.saves) }) : null, studio.told(one.cost)].filter(Boolean).join(" · "))),
        make("button", { type: "button", job: "repair_run", class: "button", disabled: studio.locked(row), onclick: () => studio.repair(row, one) }, one.resumes ? studio.say("Resume with it") : studio.say("Start anew with it")))));
      }).catch(() => list.remove());
      return list;
    }

    drawOverlay() {
      const others = live.rows.filter((row) => row.id !== this.id && !this.over.includes(row.id) && row.points);
      if (!others.length && !this.over.length) return [];
      const pick = make("select", { class: "field", "aria-label": studio.say("Lay another run over this one"), onchange: () => { if (pick.value) this.lay([...this.over, pick.value]); } },
        make("option", { value: "" }, studio.say("Lay another run over this one…")), others.slice(0, 200).map((row) => make("option", { value: row.id }, row.name + ` (${row.state})`)));
      return [this.over.length < 7 ? pick : null, this.over.length ? make("button", { type: "button", class: "chip", onclick: () => this.lay([]) }, studio.say("Only this run")) : null];
    }
    lay(ids) { this.over = ids; live.show(this.id, ids); this.entries(); this.draw(); }

    drawSamples() {
      const samples = live.track(this.id).others.filter((event) => event.kind === "sample"), panel = this.panels.samples;
      const key = `${this.id} ${samples.length} ${studio.language}`;
      if (panel.dataset.key === key && panel.childElementCount) return;
      panel.dataset.key = key;
      if (!samples.length) {
        panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, studio.say("No samples")), make("p", {}, studio.say("Give sample prompts in Tune (Advanced), and the model answers them at every evaluation: you can read how it changes."))));
        return;
      }
      const prompts = [...new Set(samples.map((event) => event.prompt))], steps = [...new Set(samples.map((event) => event.step))].sort((a, b) => b - a);
      const answer = (step, prompt) => samples.findLast((event) => event.step === step && event.prompt === prompt)?.answer ?? "";
      panel.replaceChildren(make("div", { class: "samples", tabindex: "0", role: "region", "aria-label": studio.say("Samples over time") }, make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, studio.say("Step")),
        prompts.map((prompt) => make("th", { scope: "col" }, prompt)))), make("tbody", {}, steps.map((step) => make("tr", {}, make("th", { scope: "row", class: "num" }, step === 0 ? studio.say("before") : studio.number(step)),
        prompts.map((prompt) => make("td", {}, answer(step, prompt)))))))));
    }

    async fetchOrder() {
      const id = this.id, answer = await studio.ask("studio-bar", "order", { id }).catch(() => null);
      if (!answer || id !== this.id) return;
      this.ordered = answer;
      const text = make("pre", { class: "order", tabindex: "0" }, answer.order || answer.error);
      this.panels.order.replaceChildren(make("div", { class: "order-tools" }, make("p", { class: "quiet" }, studio.say("The order this run was started with. It repeats the run: python -m studio train ORDER.yaml")), make("span", { class: "grow" }),
        make("button", { type: "button", class: "chip", onclick: () => navigator.clipboard?.writeText(answer.order).then(() => studio.tell({ message: studio.say("Copied.") }, "good")) }, studio.say("Copy")),
        make("button", { type: "button", class: "chip", onclick: () => studio.save(new Blob([answer.order], { type: "text/yaml" }), `${id}.yaml`) }, studio.say("Save")),
        make("button", { type: "button", class: "button", onclick: () => studio.reuse(id) }, studio.say("Use as a new order"))), text);
      this.drawCheckpoints();
    }
    drawCheckpoints() {
      const panel = this.panels.checkpoints, known = this.ordered?.checkpoints || [], steps = live.track(this.id).checkpoints || [];
      if (steps.length && steps.join() !== known.map((one) => one.step).join() && this.fetched !== steps.join()) { this.fetched = steps.join(); this.fetchOrder(); return; }
      if (!known.length) {
        panel.replaceChildren(make("div", { class: "empty" }, make("h3", {}, studio.say("No checkpoints")), make("p", {}, studio.say("A checkpoint is written now and then while the run trains. A resume goes on from the newest complete one."))));
        return;
      }
      panel.replaceChildren(make("table", { class: "simple" }, make("thead", {}, make("tr", {}, ["Step", "Written", "Size", "Complete"].map((name) => make("th", { scope: "col" }, studio.say(name))))),
        make("tbody", {}, known.map((one) => make("tr", {}, make("th", { scope: "row", class: "num" }, studio.number(one.step)), make("td", {}, studio.date(one.at)), make("td", { class: "num" }, studio.bytes(one.bytes)),
          make("td", {}, one.faults.length ? make("span", { class: "state state-failed" }, one.faults.join("; ")) : make("span", { class: "state state-finished" }, studio.say("complete"))))))));
    }
  }
  studio.runPage = () => new RunPage();
})();
