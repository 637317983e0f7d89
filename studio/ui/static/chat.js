// The Chat tab: the base and the tuned model side by side, conversations kept on disk, a blind comparison. Answers are
// read by asking for what is new, so a refresh or a second tab shows the same, and no connection is held open.
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes } = studio, live = studio.live;
  const QUICK = 140, SLOW = 4000; // milliseconds between two looks, while an answer is written and else
  const PRECISE = matchMedia("(pointer: fine)"); // elsewhere a keyboard comes up with the focus and covers the page
  // what decides who can be talked to
  const runsMark = () => JSON.stringify(live.rows.map((row) => [row.id, row.name, row.state, row.saved]));
  studio.parts.chat = (element) => new Chat(element);

  class Chat {
    constructor(element) {
      Object.assign(this,
        { models: [], server: { ready: false }, turns: [], id: null, going: false, count: 0, started: [] });
      this.picks = [0, 1].map((side) => make("select",
        { class: "field", onchange: () => { this.chosen[side] = this.picks[side].value; this.keepPicks(); } }));
      this.chosen = ["", ""];
      this.blind = make("button", {
        job: "chat_vote", class: "chip", "aria-pressed": "false",
        onclick: () => { this.blind.setAttribute("aria-pressed", String(!this.isBlind())); }
      });
      this.status = make("div", { class: "server", role: "status" });
      this.talks = new studio.Talks(this);
      this.stream = make("div", { class: "turns" });
      this.suggest = make("div", { class: "suggest" });
      this.box = make("textarea", { class: "field", rows: "2", oninput: () => this.grow(), onkeydown: (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); }
      } });
      this.go = make("button", {
        job: "chat_ask", class: "button primary send",
        onclick: () => (this.going ? this.stop() : this.send())
      });
      this.knobs = new studio.Knobs();
      this.modelsLine = make("div", { class: "chat-models" });
      this.sheet = make("div", { class: "chat-main" },
        make("h1", { class: "hidden-but-read", "data-say": "Chat" }, say("Chat")), this.modelsLine, this.stream,
        make("div", { class: "composer card" }, this.suggest, make("div", { class: "compose" }, this.box, this.go),
          this.knobs.node));
      this.aside = make("aside", { class: "chat-side" }, this.talks.node, this.status);
      element.replaceChildren(make("div", { class: "chat-page" }, this.aside, this.sheet));
      this.speak();
      window.addEventListener("studio:tab", () => this.route());
      window.addEventListener("studio:language", () => { this.speak(); this.drawAll(); this.meet(true); });
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.look(); });
      live.listen(() => { if (studio.tab() === "chat" && this.runs !== (this.runs = runsMark())) this.meet(); });
      this.route();
    }

    speak() {
      this.picks[0].setAttribute("aria-label", say("Left model"));
      this.picks[1].setAttribute("aria-label", say("Right model"));
      this.blind.textContent = say("Blind comparison");
      if (!this.blind.disabled)
        this.blind.title = say("Hides which answer is whose, shuffles the sides and lets you vote.");
      this.box.placeholder = say("Ask something");
      this.box.setAttribute("aria-label", say("Your question"));
      const fresh = button("button", say("New conversation"), () => this.fresh());
      this.modelsLine.replaceChildren(this.picks[0], make("span", { class: "quiet" }, say("beside")), this.picks[1],
        this.blind, make("span", { class: "grow" }), fresh);
      this.knobs.speak();
      this.drawSend();
    }
    keepPicks() { this.meet(true); }
    isBlind() { return this.blind.getAttribute("aria-pressed") === "true"; }
    nameOf(model) {
      if (!model) return "";
      const known = this.models.find((one) => one.name === model);
      const bare = (name) => say("{name}, untuned", { name: studio.brief(name) });
      if (known) return known.kind === "base" ? bare(known.label) : known.label;
      const under = this.models.find((one) => one.base === model);
      return under ? bare(under.under) : model;
    }

    // What stands in the address: ?model=RUN picks the models and begins anew; ?talk=ID opens a conversation.
    async route() {
      if (studio.tab() !== "chat") { clearTimeout(this.timer); return; }
      const query = new URLSearchParams(location.search), model = query.get("model"), id = query.get("talk");
      await this.meet();
      if (model && model !== this.met) {
        this.met = model;
        this.choose(model); this.fresh(PRECISE.matches); this.warm();
      }
      if (id && id !== this.id) await this.open(id);
      this.drawAll();
      this.look();
    }
    async meet(force = false) {
      const name = this.chosen[1] || this.chosen[0] || new URLSearchParams(location.search).get("model") || "";
      const answer = await studio.ask("studio-chat", "models", { name, lang: studio.language }).catch(() => null);
      if (!answer) return;
      Object.assign(this, { models: answer.models, prompts: answer.prompts });
      this.note(answer.server);
      if (!this.chosen[0] && !this.chosen[1]) this.choose(this.models[0]?.name);
      if (force || this.asked !== name) { this.asked = name; this.drawSuggest(); }
      this.drawPicks();
      this.drawServer();
    }
    choose(name) {
      const known = this.models.find((one) => one.name === name);
      this.chosen = !known ? ["base", ""] : known.base ? [known.base, known.name] : [known.name, ""];
      this.asked = null;
      this.drawPicks();
      this.meet();
    }
    drawPicks() {
      const options = [...new Map(this.models.flatMap((one) => (one.base
        ? [[one.name, one.label], [one.base, say("{name}, untuned", { name: one.under })]]
        : [[one.name, say("{name}, untuned", { name: one.label })]]))).entries()];
      const several = new Map();
      for (const [value, label] of options)
        if (!several.has(label) || this.chosen.includes(value)) several.set(label, value);
      const key = JSON.stringify([...several, this.chosen, studio.language]);
      if (key === this.picked) return;
      this.picked = key;
      this.picks.forEach((pick, side) => {
        pick.replaceChildren(...(side ? [make("option", { value: "" }, say("nobody else"))] : []),
          ...[...several].map(([label, value]) => make("option", { value, title: label }, studio.brief(label))));
        pick.value = this.chosen[side];
      });
      this.blind.hidden = !this.chosen[1];
    }
    sides() { return this.chosen.filter(Boolean); }

    // How the model server stands; gone without our doing, it has died.
    note(server) {
      this.died = !server.ready && (this.died || this.server.ready);
      this.server = server;
    }
    drawServer() {
      const { server } = this;
      const key = JSON.stringify([this.warming, server.ready, server.doing, server.models,
        Math.round((server.memory || 0) / 5e7), studio.language, this.died]);
      if (key === this.served) return;
      this.served = key;
      const parts = [];
      if (this.warming && !server.doing)
        parts.push(make("p", { class: "quiet server-load" }, say("Loading the model; this happens once…")));
      else if (this.died && !server.ready)
        parts.push(make("p", { class: "bad" }, say("The model server has ended.")),
          button("button", say("Restart it"), () => this.warm(), { job: "chat_load" }));
      else if (!server.ready)
        parts.push(make("p", { class: "quiet" }, say("No model in memory. It is loaded with your first question.")));
      else {
        parts.push(make("p", { class: "quiet num" },
          server.doing
            ? `${studio.told(server.doing)}…`
            : say("{n} in memory, {size}", { n: (server.models || []).length, size: bytes(server.memory) })));
        parts.push(button("chip", say("Unload"), () => this.unload(),
          { job: "chat_unload", title: say("Ends the model server; all its memory is given back.") }));
      }
      this.status.replaceChildren(...parts);
    }
    // Loads before the first question, so that its answer comes sooner.
    async warm() {
      if (!studio.may("chat_load")) return; // who only looks reads what was said
      Object.assign(this, { died: false, warming: true });
      this.drawServer();
      await studio.perform("chat_load", this.sides());
      this.warming = false;
      this.meet();
    }
    async unload() {
      const answer = await studio.perform("chat_unload");
      if (answer) {
        Object.assign(this, { died: false, server: { ready: false } });
        studio.tell({ message: say("Unloaded; {size} given back.", { size: bytes(answer.bytes) }) }, "good");
      }
      this.drawServer();
    }

    fresh(focus = true) {
      Object.assign(this, { id: null, turns: [], going: false, count: 0, started: [], editing: null });
      this.stream.replaceChildren();
      this.title = "";
      studio.open("chat", { talk: null, run: null }, true);
      this.drawAll();
      if (focus) this.box.focus();
    }
    async open(id) {
      const answer = await studio.ask("studio-chat", "said", { id }).catch(() => null);
      if (!answer || answer.gone) { if (answer) studio.open("chat", { talk: null }, true); return; }
      Object.assign(this,
        { id, turns: answer.turns, going: answer.going, count: answer.count, started: [], title: answer.title });
      this.stream.replaceChildren();
      if (answer.sides?.length && !answer.blind) this.chosen = [answer.sides[0], answer.sides[1] || ""];
      this.knobs.system.value = answer.system || "";
      this.blind.setAttribute("aria-pressed", String(Boolean(answer.blind)));
      this.drawPicks();
    }

    async send(prompt = this.box.value, turn = null) {
      if (!prompt.trim() || this.sending || !studio.may("chat_ask")) return;
      this.sending = true;
      const from = turn ?? this.editing;
      const answer = await studio.perform("chat_ask", {
        prompt, id: this.id, turn: from, sides: this.sides(), system: this.knobs.system.value,
        sampling: this.knobs.sampling(), blind: this.isBlind()
      });
      if (answer) {
        if (turn == null) this.box.value = "";
        if (this.id !== answer.id) studio.open("chat", { talk: this.id = answer.id }, true);
        Object.assign(this, { editing: null, going: true, count: -1, end: true });
      }
      this.sending = false;
      this.grow();
      this.look();
    }
    async stop() {
      await studio.perform("chat_stop", this.id);
      this.look();
    }
    retry(place) { this.send(this.turns[place].prompt, place); }
    edit(place) { this.editing = place; this.box.value = this.turns[place].prompt; this.grow(); this.box.focus(); }
    async vote(place, choice) {
      if (await studio.perform("chat_vote", this.id, place, choice)) this.count = -1;
      this.look();
    }
    async pairs() {
      const made = await studio.perform("chat_pairs");
      if (made?.source) studio.usePairs(made);
    }
    // The button that finds the rows behind an answer of a run with an adapter; null where there is none to ask.
    taught(place, side) {
      const turn = this.turns[place], model = turn.sides[side];
      const run = live.rows.find((row) => row.id === model);
      if (turn.hidden || run?.stage !== "sft" || run.method === "full" || !turn.answers[side].text) return null;
      const earlier = this.turns.slice(0, place).flatMap((one) => {
        const own = one.answers[one.sides.indexOf(model)];
        return own?.text ? [{ role: "user", content: one.prompt }, { role: "assistant", content: own.text }] : [];
      });
      const system = this.knobs.system.value.trim();
      if (system) earlier.unshift({ role: "system", content: system });
      return studio.taughtButton(model, [...earlier, { role: "user", content: turn.prompt }], turn.answers[side].text);
    }
    async keep(place, side, answer) {
      const text = await studio.inquire({
        title: say("Keep as a training row"),
        text:
        say("The conversation up to this answer becomes one row of the data set kept-answers. Correct the "
          + "answer first if it should be better."),
        field: { label: say("Answer"), value: studio.thoughts(answer.text).text, long: true },
        act: say("Keep")
      });
      if (!text) return;
      const kept = await studio.perform("chat_keep", { id: this.id, turn: place, side, text });
      if (kept)
        studio.tell({ message: say("Kept: the data set kept-answers now has {n} rows.", { n: number(kept.rows) }) },
          "good");
    }

    // One look at what is new; comes again soon while an answer is being written.
    async look() {
      clearTimeout(this.timer);
      if (studio.tab() !== "chat" || document.hidden) return;
      if (this.id) {
        const answer = await studio.ask("studio-chat", "said", { id: this.id, last: true, turns: this.count })
          .catch(() => null);
        if (answer && !answer.gone && answer.id === this.id) this.take(answer);
      }
      if (!this.going && Date.now() - (this.metAt || 0) > SLOW) { this.metAt = Date.now(); this.meet(); }
      this.timer = setTimeout(() => this.look(), this.going ? QUICK : SLOW);
    }
    take(answer) {
      const was = this.going;
      if (answer.turns)
        this.turns = answer.turns;
      else if (answer.last) this.turns[this.turns.length - 1] = answer.last;
      this.going = answer.going;
      this.count = answer.count;
      if (answer.server) { this.note(answer.server); this.drawServer(); }
      const trouble = answer.trouble?.message;
      // once: the answer goes on
      if (trouble && trouble !== this.troubled)
        studio.tell({ message: studio.told(trouble), hint: studio.told(answer.trouble.hint) });
      this.troubled = trouble;
      this.drawTurns();
      this.drawSend();
      if (was && !this.going) { this.meet(); this.talks.draw(); }
    }
    drawAll() { this.drawTurns(); this.drawSend(); this.drawSuggest(); this.talks.draw(); }
    drawTurns() {
      const low = this.sheet.getBoundingClientRect().bottom - innerHeight < 120;
      if (this.turns.length) { this.stream.querySelector(".hello")?.remove(); this.suggested = null; }
      while (this.started.length < this.turns.length) {
        const made = new studio.Turn(this.started.length, this);
        this.started.push(made);
        this.stream.append(made.node);
      }
      while (this.started.length > this.turns.length) this.started.pop().node.remove();
      this.turns.forEach((turn, place) => this.started[place].draw(turn, this.server));
      this.suggest.hidden = this.turns.length > 0;
      this.sheet.classList.toggle("begun", this.turns.length > 0);
      if (!this.turns.length && !this.stream.childElementCount) this.drawSuggest();
      if (this.going && (low || this.end)) {
        window.scrollTo({ top: document.documentElement.scrollHeight });
        this.end = false;
      }
    }
    drawSend() {
      this.go.textContent = this.going ? say("Stop") : say("Send");
      this.go.classList.toggle("primary", !this.going);
    }
    drawSuggest() {
      if (this.turns.length) return;
      const prompts = (this.prompts || []).slice(0, 5), tuned = this.models.find((one) => one.name === this.chosen[1]);
      const key = JSON.stringify([prompts, this.chosen, studio.language]);
      if (key !== this.suggested) {
        this.suggested = key;
        this.stream.replaceChildren(make("div", { class: "hello" },
          make("h2", {}, tuned ? say("See what {name} learnt", { name: tuned.label }) : say("Talk to a model")),
          make("p", { class: "quiet" },
            tuned
              ? say("The same question goes to both: to the untuned model first, then to yours.")
              : say("When a run has finished, it stands here beside the untuned model."))));
        this.suggest.replaceChildren(...prompts.map((prompt) =>
          button("chip", prompt, () => { this.box.value = prompt; this.grow(); this.box.focus(); })));
        if (prompts.length && (!this.box.value || this.filled === this.box.value)) {
          this.box.value = this.filled = prompts[0];
          this.grow();
        }
      } else if (!this.stream.childElementCount) { this.suggested = null; this.drawSuggest(); }
    }
    grow() { this.box.style.height = "auto"; this.box.style.height = `${Math.min(240, this.box.scrollHeight + 2)}px`; }
  }
})();
