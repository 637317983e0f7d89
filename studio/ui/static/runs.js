// The Runs tab: the table of all runs, one run's page, and several runs side by side. What is open stands in the
// address.
(() => {
  const studio = window.studio, { element: make, button, say, bytes, duration, date } = studio, live = studio.live;
  const STATES = ["running", "queued", "finished", "stopped", "failed", "lost"];

  studio.parts.runs = (element) => {
    const table = new List(), page = studio.runPage(), compared = studio.comparePage();
    element.replaceChildren(table.node, page.node, compared.node);
    const route = () => {
      if (studio.tab() !== "runs") { live.rest(); return; }
      const query = new URLSearchParams(location.search);
      const several = (query.get("compare") || "").split(",").filter(Boolean);
      const id = several.length ? null : query.get("run");
      table.node.hidden = Boolean(id || several.length);
      page.node.hidden = !id;
      compared.node.hidden = !several.length;
      if (id) page.open(id);
      else if (several.length) compared.open(several);
      else { live.wantsLog = false; live.show(null); table.draw(); }
    };
    studio.redrawRuns = () => { if (!table.node.hidden) table.draw(); if (!page.node.hidden) page.draw(); };
    live.listen((what) => {
      if (studio.tab() !== "runs") return;
      if (what.list && !table.node.hidden) table.draw();
      if (!page.node.hidden) page.heard(what);
      if (!compared.node.hidden) compared.heard(what);
    });
    window.addEventListener("studio:tab", route);
    window.addEventListener("studio:offered", () => { // the methods have their names now
      table.ids = table.drawn = null;
      table.leaders.speak();
      studio.redrawRuns();
    });
    window.addEventListener("studio:language", () => { table.speak(); route(); page.speak(); });
    route();
  };

  // What of a row can be seen: the time as it is said, and nothing of what only the run's own page shows.
  const shown = (row) => ({
    ...row, seconds: duration(row.seconds), left: 0, points: 0, memory_now: 0, peak_memory: 0,
    tokens_per_second: 0, learning_rate: 0, epoch: 0
  });

  class List {
    constructor() {
      this.chosen = new Set();
      this.wanted = ""; this.state = ""; this.starred = false;
      this.head = make("header", { class: "runs-head" });
      this.body = make("div", { class: "runs-body" });
      this.device = studio.devicePanel();
      this.doctor = studio.doctorPanel();
      this.leaders = studio.leaderboard();
      this.news = make("div");
      this.unread = make("div");
      this.node = make("div", { class: "runs-list" }, this.head, this.news, this.unread,
        make("div", { class: "runs-frame" }, this.body, this.leaders.node, this.device, this.doctor.node));
      this.speak();
    }
    speak() {
      const search = make("input",
        {
          type: "search", class: "field", placeholder: say("Filter by name, model, method or data"),
          "aria-label": say("Filter the runs"),
          oninput: (event) => { this.wanted = event.target.value.toLowerCase(); this.draw(); } });
      search.value = this.wanted;
      const states = studio.select([["", say("All states")],
        ...STATES.map((state) => [state, say(state === "queued" ? "waiting" : state)])], this.state,
        (state) => { this.state = state; this.draw(); }, { class: "field", "aria-label": say("State") });
      this.star = button("chip", `★ ${say("Starred")}`,
        () => { this.starred = !this.starred; this.speak(); this.draw(); }, { "aria-pressed": String(this.starred) });
      this.compare = make("button", {
        class: "button",
        onclick: () => studio.open("runs", { compare: [...this.chosen].join(","), run: null })
      });
      this.combine = make("button", { job: "combine", class: "button", onclick: () => studio.combine(this.taken()) });
      this.tools = make("div", { class: "runs-tools" }, search, states, this.star, this.compare, this.combine);
      this.title = make("h2", { "aria-level": "1" }, say("Runs"));
      this.head.replaceChildren(this.title, this.tools);
      this.drawn = null;
      this.leaders.speak();
    }
    taken() { return live.rows.filter((row) => this.chosen.has(row.id)); }
    rows() {
      const fits = (row) => (!this.state || row.state === this.state
        || (this.state === "running" && ["starting", "stopping"].includes(row.state)))
        && (!this.starred || row.star)
        && (!this.wanted
          || [row.id, row.name, row.model, row.method, row.data,
            row.note].some((text) => (text || "").toLowerCase().includes(this.wanted)));
      return live.rows.filter(fits);
    }
    draw() {
      if (!live.ready) {
        this.body.replaceChildren(make("p", { class: "quiet" }, say("Reading the runs…")));
        return;
      }
      this.leaders.draw();
      this.drawNews();
      this.drawUnread();
      for (const id of this.chosen) if (!live.rows.some((row) => row.id === id)) this.chosen.delete(id);
      studio.write(this.compare, say("Compare {n}", { n: this.chosen.size }));
      this.compare.hidden = this.combine.hidden = this.chosen.size < 2;
      studio.write(this.combine, say("Combine {n}…", { n: this.chosen.size }));
      this.combine.disabled = !studio.may("combine") || !studio.combinable(this.taken());
      this.combine.title = this.combine.disabled
        ? say("Only finished runs of LoRA or QLoRA can be combined.")
        : say("Make one adapter of them.");
      this.tools.hidden = !live.rows.length;
      const rows = this.rows();
      const key = JSON.stringify([rows.map(shown), [...this.chosen], studio.language,
        rows.map((row) => studio.locked(row))]);
      if (key === this.drawn || this.body.querySelector("details[open]")) return;
      this.drawn = key;
      const table = this.body.querySelector("tbody"), ids = rows.map((row) => row.id).join("\n");
      if (table && rows.length && ids === this.ids && studio.language === this.spoken) {
        this.redraw(table, rows);
        return;
      }
      Object.assign(this, { ids, spoken: studio.language, keys: rows.map((row) => this.key(row)) });
      this.body.replaceChildren(!live.rows.length
        ? live.unread.length ? "" : this.empty()
        : !rows.length
        ? make("p", { class: "quiet empty" }, say("No run fits this filter."))
        : make("table", { class: "runs-table" }, this.heading(), make("tbody", {}, rows.map((row) => this.row(row)))));
    }
    drawNews() {
      const news = studio.news(), text = news?.textContent || "";
      if (text === this.told) return;
      this.told = text;
      this.news.replaceChildren(...(news ? [news] : []));
    }
    // Runs that are there and cannot be read: each with what to do.
    drawUnread() {
      const key = JSON.stringify([live.unread, studio.language]);
      if (key === this.unreadKey) return;
      this.unreadKey = key;
      this.unread.replaceChildren(...(live.unread.length
        ? [make("section", { class: "card news", role: "alert" }, live.unread.map((error) =>
          make("p", {}, make("b", {}, studio.told(error.message)), " ", studio.told(error.hint || ""))))]
        : []));
    }
    // The same runs in the same order: only the rows that changed are made anew, so a table of hundreds costs what its
    // one running run costs.
    redraw(table, rows) {
      rows.forEach((row, place) => {
        const key = this.key(row);
        if (key === this.keys[place]) return;
        this.keys[place] = key;
        table.children[place].replaceWith(this.row(row));
      });
    }
    key(row) { return JSON.stringify([shown(row), this.chosen.has(row.id), studio.locked(row)]); }
    empty() {
      return make("div", { class: "empty card" }, make("h3", {}, say("No runs yet")),
        make("p", {},
          say("A run appears here as soon as you start one, with its curve, its log and its result. Everything "
            + "is ready for a first one: sample data and a small model.")),
        button("button primary", say("Go to Tune"), () => studio.open("tune")));
    }
    heading() {
      const names = ["", "", "Run", "State", "Method", "Best loss", "Time", "Size", ""];
      return make("thead", {},
        make("tr", {},
          names.map((name) => make("th", { scope: "col" },
            name ? say(name) : make("span", { class: "hidden-but-read" }, say("Actions"))))));
    }
    row(row) {
      const box = make("input",
        {
          type: "checkbox", "aria-label": say("Choose {name} for comparing", { name: row.name }),
          "data-key": `box ${row.id}`,
          onchange: () => { if (!this.chosen.delete(row.id)) this.chosen.add(row.id); this.draw(); } });
      box.checked = this.chosen.has(row.id);
      const star = button(`star ${row.star ? "on" : ""}`, row.star ? "★" : "☆", () => studio.ACTS.star.run(row),
        { job: "label", "aria-pressed": String(Boolean(row.star)), "aria-label": say("Star {name}", { name: row.name }),
          "data-key": `star ${row.id}` });
      const alive = studio.isAlive(row.state);
      const progress = alive && row.percent != null
        ? make("span", { class: "row-meter", role: "img", "aria-label": `${row.percent} %` },
          make("i", { style: `width:${row.percent}%` }))
        : null;
      const cell = (name, content, kind = "") => make("td", { class: `at-${name} ${kind}` }, content);
      return make("tr", { class: alive ? "alive" : "" }, cell("box", box), cell("star", star),
        cell("name",
          [studio.runLink(row.id, row.name),
            make("span", { class: "quiet", title: [row.model, row.data].filter(Boolean).join("\n") },
              [date(row.created), ...[row.model, row.data].filter(Boolean).map(studio.brief)].join(" · ")),
            row.note ? make("span", { class: "row-note" }, row.note) : null]),
        cell("state", [studio.state(row.state), progress, studio.steps(row)].filter(Boolean)),
        cell("method", row.race
          ? say(row.race.plan ? "plan" : "race of {n}", { n: row.race.settings })
          : row.combined ? `${studio.methodLabel(row.method)}, ${say("combined")}`
          : row.method ? studio.methodLabel(row.method) : "–"),
        cell("loss", studio.figure(row.loss ?? NaN), "num"),
        cell("time", row.seconds ? duration(row.seconds) : "–", "num"),
        cell("size", row.bytes == null ? "–" : bytes(row.bytes), "num"), cell("menu", studio.menu(row)));
    }
  }
})();
