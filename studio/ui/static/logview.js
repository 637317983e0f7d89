// The log: follows only while one is at its end, can be searched, coloured by level; the whole file is one click away.
(() => {
  const studio = window.studio, { element: make, say, number } = studio;
  const KEPT = 3000; // lines in the page
  const LEVELS = [[/\b(error|traceback|exception|fatal|critical)\b|Error:/i, "bad"], [/\bwarn(ing)?\b/i, "warn"],
    [/^\[\d\d:\d\d:\d\d\]/, "phase"]];
  const level = (line) => (LEVELS.find(([pattern]) => pattern.test(line)) || [null, ""])[1];

  class LogView {
    constructor() {
      this.box = make("div",
        { class: "log-box", tabindex: "0", role: "log", "aria-live": "off", onscroll: () => this.scrolled() });
      this.search = make("input", { type: "search", class: "field", oninput: () => this.filter() });
      this.count = make("span", { class: "quiet num", role: "status" });
      this.only = make("button", { class: "chip", "aria-pressed": "false", onclick: () => {
        this.only.setAttribute("aria-pressed", String(this.only.getAttribute("aria-pressed") !== "true"));
        this.filter();
      } });
      this.file = make("button", { class: "chip", onclick: () => this.whole() });
      this.follow = make("button",
        { class: "log-follow", hidden: true, onclick: () => { this.end = true; this.settle(); } });
      this.node = make("section", { class: "logview" },
        make("div", { class: "log-tools" }, this.search, this.only, this.count, make("span", { class: "grow" }),
          this.file),
        make("div", { class: "log-frame" }, this.box, this.follow));
      this.end = true;
      this.speak();
      window.addEventListener("studio:language", () => this.speak());
    }
    speak() {
      this.search.placeholder = say("Search the log");
      this.search.setAttribute("aria-label", say("Search the log"));
      this.box.setAttribute("aria-label", say("Log"));
      this.only.textContent = say("Warnings and errors");
      this.file.textContent = say("Whole file");
      this.follow.textContent = say("↓ Newest lines");
    }
    // Start over with the lines known so far.
    fill(lines, skipped, id) {
      this.id = id;
      this.turn = studio.live.log?.turn;
      this.box.replaceChildren();
      if (skipped)
        this.box.append(make("p", { class: "log-note" }, say("Earlier lines are in the whole file.")));
      this.add(lines.slice(-KEPT));
      if (!lines.length)
        this.box.append(make("p", { class: "log-note" }, say("No output yet: it comes with the run's first words.")));
      this.end = true;
      this.settle();
    }
    add(lines) {
      if (!lines.length) return;
      if (this.box.children.length === 1 && !this.lines) this.box.replaceChildren();
      const fresh = document.createDocumentFragment();
      for (const text of lines) fresh.append(make("p", { class: level(text) }, text || "\u00a0"));
      this.box.append(fresh);
      this.lines = (this.lines || 0) + lines.length;
      while (this.box.children.length > KEPT + 500 && this.end) this.box.firstChild.remove();
      if (this.search.value || this.only.getAttribute("aria-pressed") === "true") this.filter();
      this.settle();
    }
    settle() {
      if (this.end) { this.quiet = true; this.box.scrollTop = this.box.scrollHeight; }
      this.follow.hidden = this.end;
    }
    scrolled() {
      this.end = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 24;
      this.follow.hidden = this.end;
    }
    filter() {
      const wanted = this.search.value.trim().toLowerCase(), grave = this.only.getAttribute("aria-pressed") === "true";
      let found = 0;
      for (const line of this.box.children) {
        const fits = (!wanted || line.textContent.toLowerCase().includes(wanted))
          && (!grave || ["bad", "warn"].includes(line.className));
        line.hidden = !fits;
        if (fits) found += 1;
      }
      this.count.textContent = wanted || grave ? say("{n} lines", { n: number(found) }) : "";
      this.settle();
    }
    async whole() {
      const text = await studio.ask("studio-bar", "whole_log", { id: this.id }, 60000).catch(() => null);
      if (text != null) studio.save(new Blob([text], { type: "text/plain" }), `${this.id}.log.txt`);
    }
  }
  studio.LogView = LogView;
})();
