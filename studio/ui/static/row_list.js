// A list of rows, twenty at a time, with its counter: the Data tab's view of rows and its editor share it. Arrow keys
// go from row to row.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const PAGE = 20;

  // load(): reads the rows from `start` on, of a `kind` of problem alone. show(row): shows one in full. line(one): the
  // parts of its line. goTo(row): a row by its number; left out: no field for it.
  studio.RowList = class {
    constructor(acts) {
      Object.assign(this, acts);
      this.counter = make("p", { class: "quiet small num" });
      this.node = make("div",
        { class: "rows-list", tabindex: "0", role: "group", onkeydown: (event) => this.key(event) });
      this.begin();
    }
    begin() { Object.assign(this, { rows: [], count: 0, start: 0, kind: "", chosen: null }); }
    clear() { this.node.replaceChildren(); this.counter.replaceChildren(); }
    get last() { return Math.min(this.start + this.rows.length, this.count); }
    turn(to) { this.start = Math.max(0, to); return this.load(); }
    only(kind) { this.kind = kind; return this.turn(0); }

    take({ rows, count, start = this.start }) { Object.assign(this, { rows, count, start }); this.draw(); }
    // Chooses the first row where the chosen one is not among these.
    settle() {
      if (!this.rows.some((one) => one.row === this.chosen)) this.choose(this.rows[0]?.row ?? null);
      return this.chosen;
    }
    choose(row) {
      this.chosen = row;
      for (const line of this.node.children) line.setAttribute("aria-pressed",
        String(line.dataset.row === String(row)));
    }

    draw() {
      const { start, last, count } = this;
      this.counter.replaceChildren(
        count ? say("{first}–{last} of {n}", { first: number(start + 1), last: number(last), n: number(count) }) : "–",
        " ",
        button("plain", "←", () => this.turn(start - PAGE),
          { disabled: start === 0, "aria-label": say("Earlier rows") }),
        " ",
        button("plain", "→", () => this.turn(start + PAGE),
          { disabled: last >= count, "aria-label": say("Later rows") }),
        " ", this.goTo && count > PAGE ? this.field() : "", " ",
        this.kind ? button("plain", say("Show all rows"), () => this.only("")) : "");
      this.node.replaceChildren(...this.rows.map((one) => make("button", {
        class: "row-line", tabIndex: -1, "data-row": String(one.row), "aria-pressed": String(one.row === this.chosen),
        onclick: () => { this.show(one.row); this.node.focus(); }
      }, make("span", { class: "num quiet" }, String(one.row)), this.line(one))));
    }
    field() {
      const label = say("Go to row");
      return make("input", {
        type: "text", inputmode: "numeric", class: "go-to num", placeholder: label, "aria-label": label,
        onchange: ({ target }) => {
          const row = Number(target.value.replace(/\D/g, ""));
          if (row) this.goTo(row);
        }
      });
    }

    key(event) {
      const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const place = this.rows.findIndex((one) => one.row === this.chosen), there = this.rows[place + by];
      if (there) { this.show(there.row); this.node.children[place + by]?.scrollIntoView({ block: "nearest" }); }
      else if (by > 0 ? this.last < this.count : this.start > 0) this.turn(this.start + by * PAGE);
    }
  };
})();
