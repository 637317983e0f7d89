// The board of charts: one cursor, one zoom, one smoothing for all of them; runs laid over each other; picture and
// table of the numbers.
(() => {
  const studio = window.studio, { element: make, button, say, bytes, duration } = studio;

  const short = (value) => {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && size < 0.001)
      return value.toExponential(size < 1e-12 ? 0 : 1).replace(/\.0e/, "e").replace("e-", "e−");
    if (size >= 10000)
      return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
    return String(+value.toPrecision(size >= 1000 ? 4 : 3));
  };
  const figure = (value, axis, digits = 0) => (axis
    ? (Math.abs(value) >= 1e4 || digits > 4 ? short(value) : value.toFixed(digits))
    : !Number.isFinite(value)
    ? "–"
    : Math.abs(value) >= 0.001 && Math.abs(value) < 1000 ? value.toFixed(Math.abs(value) < 10 ? 4 : 2) : short(value));
  const whole = (value) => (Number.isFinite(value) ? short(Math.round(value)) : "–");
  studio.figure = figure;

  const SPECS = [
    { key: "loss", title: "Loss", columns: [["loss"]], smooth: true, evals: true, marks: true, log: true,
      format: figure,
      empty: "The curve begins with the first step." },
    {
      key: "rate", title: "Learning rate", columns: [["learning_rate"]], zero: true,
      format: (value) => (value === 0 ? "0" : short(value)), empty: "Shown from the first step on."
    },
    {
      key: "gradient", title: "Gradient norm", columns: [["grad_norm"]], smooth: true, log: true,
      format: (value, axis, digits) => (axis ? figure(value, true, digits) : short(value)),
      empty: "Shown from the first step on."
    },
    {
      key: "speed", title: "Tokens per second", columns: [["tokens_per_second"]], smooth: true, zero: true, whole: true,
      format: whole,
      empty: "Shown from the first step on."
    },
    {
      key: "memory", title: "Memory", columns: [["memory"]], level: "estimated_memory", zero: true,
      format: (value) => bytes(value), empty: "Shown from the first step on.", hidden: true
    },
  ];
  // Of runs that compare answers. about: the metric whose meaning is told below.
  const sides = (prefix) => [[`${prefix}chosen`, "chosen"], [`${prefix}rejected`, "rejected"]];
  const COMPARED = [
    { key: "reward", title: "Reward", columns: [["reward"]], about: "reward" },
    { key: "flat", title: "Groups without a difference", columns: [["flat"]], about: "flat" },
    { key: "length", title: "Length of answers", columns: [["length"]], about: "length" },
    { key: "ended", title: "Answers that end by themselves", columns: [["ended"]], about: "ended", hidden: true },
    { key: "accuracy", title: "Chosen answer preferred", columns: [["accuracy"]], about: "accuracy" },
    { key: "rewards", title: "Rewards", columns: sides(""), about: "chosen" },
    { key: "logps", title: "Log-probabilities", columns: sides("logps_"), about: "logps_chosen" },
    { key: "margin", title: "Margin of the rewards", columns: [["margin"]], about: "margin", hidden: true },
    { key: "kl", title: "Divergence (KL)", columns: [["kl"]], about: "kl", hidden: true },
    { key: "lengths", title: "Length of answers", columns: sides("length_"), about: "length_chosen", hidden: true },
  ].map((spec) => ({ smooth: true, evals: true, format: figure, empty: "Shown from the first step on.",
    compared: true, ...spec }));
  const AXES = [["step", "Step"], ["tokens", "Tokens"], ["time", "Time"]];
  const FIRST = {
    smoothing: 0.8, log: false, clip: false, axis: "step",
    hidden: SPECS.filter((spec) => spec.hidden).map((spec) => spec.key),
    // four at first sight: loss, and what is preferred
    hiddenCompared: [...SPECS.slice(1), ...COMPARED.filter((spec) => spec.hidden)].map((spec) => spec.key)
  };

  class Curves {
    // beside: a node that stands among the tools.
    constructor(beside = null) {
      this.beside = beside;
      let kept = {};
      try { kept = JSON.parse(studio.stored("studio-curves") || "{}"); } catch { /* an older page's settings */ }
      Object.assign(this, FIRST, kept, { cursor: null, view: null, brush: null, entries: [], off: new Set() });
      this.charts = [...SPECS, ...COMPARED].map((spec) => new studio.Chart(this, spec));
      this.tools = make("div", { class: "curve-tools" });
      this.legend = make("div", { class: "curve-legend" });
      this.table = make("div", { class: "curve-table" });
      this.grid = make("div", { class: "curve-grid" }, this.charts.map((chart) => chart.node));
      this.details = make("details", { class: "curve-values" },
        make("summary", { "data-say": "Last values as a table" }), this.table);
      this.node = make("section", { class: "curves" }, this.tools, this.legend, this.grid, this.details);
      this.details.addEventListener("toggle", () => this.fillTable());
      for (const name of ["studio:shade", "studio:language"])
        window.addEventListener(name, () => { this.colours = null; this.drawTools(); this.all(); });
      window.addEventListener("studio:tab", () => this.all());
      this.drawTools();
    }

    // tracks: [{track, label}], the first one is the run of the page.
    show(tracks) {
      this.entries = tracks.map((entry, place) => ({ ...entry, place }));
      this.drawLegend();
      this.all();
    }
    // Whether one of the runs has a column with values.
    has(column) {
      return this.entries.some(({ track }) => {
        const values = track.columns[column];
        for (let i = 0; values && i < Math.min(track.n, 50); i += 1) if (Number.isFinite(values[i])) return true;
        return false;
      });
    }
    // The charts there are for these runs, and those of them that are hidden.
    // Answers that earn rewards have no loss to speak of: it stays near 0 whatever is learnt. So from the start on.
    offered() {
      const earns = this.entries.length > 0 && this.entries.every(({ track }) => track.status?.stage === "grpo");
      return this.charts.filter(({ spec: { key, compared, columns } }) =>
        key === "loss" ? !earns : !compared || (earns && key === "reward") || this.has(columns[0][0]));
    }
    get hiding() { return this.offered().some(({ spec }) => spec.compared) ? "hiddenCompared" : "hidden"; }
    isHidden(chart) { return this[this.hiding].includes(chart.spec.key) || !this.offered().includes(chart); }

    shown() {
      const many = this.entries.length > 1;
      return this.entries.filter((entry) => !this.off.has(entry.track.id)).map((entry) => {
        const colour = this.ink().series[entry.place % 8];
        return { ...entry, colour, evalColour: many ? colour : this.ink().series[1] };
      });
    }
    keep() {
      studio.store("studio-curves",
        JSON.stringify({
          smoothing: this.smoothing, log: this.log, clip: this.clip, axis: this.axis, hidden: this.hidden,
          hiddenCompared: this.hiddenCompared
        }));
    }

    ink() {
      if (!this.colours) {
        const style = getComputedStyle(document.body), of = (name) => style.getPropertyValue(name).trim();
        const dark = document.body.classList.contains("dark");
        this.colours = {
          series: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => of(`--series-${n}`)), line: of("--line"), quiet: of("--quiet"),
          paper: of("--card"), ink: of("--ink"),
          tag: of("--ink"), tagText: of("--card"), faint: dark ? 0.32 : 0.26,
          brush: dark ? "rgb(255 255 255 / 10%)" : "rgb(0 0 0 / 7%)"
        };
      }
      return this.colours;
    }

    full() {
      let low = Infinity, high = -Infinity;
      for (const { track } of this.entries) {
        if (this.off.has(track.id)) continue;
        const column = track.columns[this.axis];
        if (column && track.n) { low = Math.min(low, column[0]); high = Math.max(high, column[track.n - 1]); }
        const evals = track.others.filter((event) => event.kind === "eval");
        for (const event of evals) {
          const x = this.axis === "step" ? event.step : this.axis === "tokens" ? event.total : event.time;
          low = Math.min(low, x); high = Math.max(high, x);
        }
      }
      if (!(high >= low)) return null;
      if (this.entries.some(({ track }) => studio.isAlive(track.status?.state))) high = studio.axis.ahead(low, high);
      return [low, high === low ? low + 1 : high];
    }
    range() { return this.view || this.span; }

    point(x) { if (x !== this.cursor) { this.cursor = x; this.hover(); } }
    zoom(low, high) {
      const full = this.full();
      if (low == null || !full) this.view = null;
      else {
        low = Math.max(full[0], low); high = Math.min(full[1], high);
        this.view = high - low >= (full[1] - full[0]) * 0.999 || high - low < 1e-9 ? null : [low, high];
      }
      this.drawTools();
      this.all();
    }
    tell(x, exact) {
      if (this.axis === "time")
        return exact
          ? duration(x)
          : x < 120
          ? `${short(x)} s`
          : x < 7200 ? `${short(x / 60)} min` : `${short(x / 3600)} h`;
      const number = this.axis === "tokens" ? short(Math.round(x)) : studio.number(Math.round(x));
      return exact ? `${say(this.axis === "step" ? "step" : "tokens")} ${number}` : number;
    }

    // Drawing waits for the next frame, and for the tab to be in sight.
    redraw() { this.plan("base"); }
    hover() { this.plan("over"); }
    all() { for (const chart of this.charts) chart.dirty = true; this.plan("base"); }
    plan(what) {
      if (what === "base") this.base = true;
      if (this.planned) return;
      this.planned = requestAnimationFrame(() => {
        this.planned = null;
        if (!this.node.isConnected || !this.node.offsetParent) return;
        this.span = this.full();
        if (this.drawn !== String(this.offered().map(({ spec }) => spec.key))) this.drawTools();
        for (const chart of this.charts) {
          if (chart.node.hidden || !chart.inSight) continue;
          if (this.base && chart.dirty) chart.draw(); else chart.drawOver();
        }
        if (this.base) this.fillTable();
        this.base = false;
      });
    }

    drawTools() {
      const slider = make("input",
        { type: "range", min: "0", max: "0.99", step: "0.01", "aria-label": say("Smoothing"),
          oninput: (event) => {
            this.smoothing = +event.target.value;
            event.target.nextElementSibling.textContent = this.smoothing.toFixed(2);
            this.keep();
            this.all();
          }
        });
      slider.value = this.smoothing;
      const toggle = (name, key, title) =>
        button("chip", say(name), () => { this[key] = !this[key]; this.keep(); this.drawTools(); this.all(); },
          { title: say(title), "aria-pressed": String(this[key]) });
      const axis = make("div", { class: "segments", role: "group", "aria-label": say("Horizontal axis") },
        AXES.map(([key, name]) => make("button", { "aria-pressed": String(this.axis === key),
          onclick: () => {
            this.axis = key;
            this.view = null;
            this.cursor = null;
            this.keep();
            this.drawTools();
            this.all();
          }
        },
          say(name))));
      const chips = make("div", { class: "chip-row", role: "group", "aria-label": say("Charts shown") },
        this.offered().filter(({ spec }) => spec.key !== "loss").map(({ spec }) =>
          button("chip", say(spec.title), () => {
            const hidden = this[this.hiding];
            this[this.hiding] = hidden.includes(spec.key)
              ? hidden.filter((key) => key !== spec.key)
              : [...hidden, spec.key];
            this.keep(); this.drawTools(); this.all();
          }, { "aria-pressed": String(!this[this.hiding].includes(spec.key)) })));
      const row = (...parts) => make("div", { class: "tool-row" }, parts.filter(Boolean));
      const gap = () => make("span", { class: "grow" });
      this.tools.replaceChildren(
        row(make("label", { class: "smoothing" }, make("span", {}, say("Smoothing")), slider,
          make("output", { class: "num" }, this.smoothing.toFixed(2))),
          axis,
          toggle("Log scale", "log", "Draws loss and gradient norm on a logarithmic scale."),
          toggle("Clip outliers", "clip",
            "Leaves the rarest 2 % of values out of the scale, so that one spike does not flatten the curve."),
          this.view && button("chip strong", say("Show all"), () => this.zoom(null)),
          gap(),
          make("span", { class: "saves" },
            button("chip", say("Save PNG"), () => this.picture()),
            button("chip", say("Save CSV"), () => this.numbers()))),
        row(chips, gap(), this.beside));
      this.charts.forEach((chart) => { chart.node.hidden = this.isHidden(chart); });
      this.drawn = String(this.offered().map(({ spec }) => spec.key));
      this.details.firstChild.textContent = say("Last values as a table");
      this.drawLegend();
    }

    drawLegend() {
      this.legend.hidden = this.entries.length < 2;
      this.legend.replaceChildren(...this.entries.map((entry) => make("button",
        { class: "chip", "aria-pressed": String(!this.off.has(entry.track.id)), onclick: () => {
          if (!this.off.delete(entry.track.id)) this.off.add(entry.track.id);
          this.drawLegend(); this.all();
        } }, make("i", { style: `background:${this.ink().series[entry.place % 8]}` }), entry.label)));
    }

    fillTable() {
      if (!this.details.open) return;
      const head = ["Run", "Step", "Loss", "Held-out loss", "Learning rate", "Gradient norm", "Tokens per second",
        "Memory"];
      const rows = this.entries.map(({ track, label }) => {
        const evals = track.others.filter((event) => event.kind === "eval" && event.loss != null);
        return [label, studio.number(track.last("step")), figure(track.last("loss")),
          evals.length ? figure(evals.at(-1).loss) : "–", short(track.last("learning_rate")),
          short(track.last("grad_norm")), whole(track.last("tokens_per_second")), bytes(track.last("memory"))];
      });
      this.table.replaceChildren(studio.table(head, rows));
    }

    picture() {
      const charts = this.charts.filter((chart) => !this.isHidden(chart));
      const width = 1200;
      const height = 340;
      const scale = 2;
      const canvas = make("canvas", {}), ink = this.ink();
      canvas.width = width * scale; canvas.height = height * charts.length * scale;
      const pen = canvas.getContext("2d");
      charts.forEach((chart, place) => {
        pen.setTransform(scale, 0, 0, scale, 0, place * height * scale);
        pen.fillStyle = ink.paper; pen.fillRect(0, 0, width, height);
        pen.fillStyle = ink.ink;
        pen.font = "600 15px system-ui, sans-serif";
        pen.textAlign = "left";
        pen.textBaseline = "top";
        pen.fillText(say(chart.spec.title), 16, 12);
        let left = 180;
        for (const entry of this.shown()) {
          pen.fillStyle = entry.colour;
          pen.fillText(entry.label, left, 12);
          left += pen.measureText(entry.label).width + 24;
        }
        pen.setTransform(scale, 0, 0, scale, 8 * scale, (place * height + 40) * scale);
        const hidden = chart.empty.hidden;
        chart.paint(pen, chart.scene(width - 20, height - 48));
        chart.empty.hidden = hidden;
      });
      canvas.toBlob((blob) => studio.save(blob, `${this.entries[0]?.label || "run"}.png`));
    }

    // Spreadsheets take cells that begin with = + - @ for formulas: text is quoted and gets an apostrophe in front.
    numbers() {
      const compared = COMPARED.flatMap((spec) => spec.columns.map(([column]) => column))
        .filter((column) => this.has(column));
      const names = ["run", "step", "epoch", "loss", "held_out_loss", "learning_rate", "grad_norm", "tokens",
        "tokens_per_second", "memory", "time", ...compared];
      const lines = [names.join(",")];
      const text = (value) => `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
      for (const { track } of this.entries) {
        const evals = new Map(track.others.filter((event) => event.kind === "eval")
          .map((event) => [event.step, event.loss]));
        const cell = (name, i) => (Number.isFinite(track.columns[name]?.[i]) ? track.columns[name][i] : "");
        if (evals.has(0))
          lines.push([text(track.id), 0, 0, "", evals.get(0), "", "", "", "", "", 0,
            ...compared.map(() => "")].join(","));
        for (let i = 0; i < track.n; i += 1) {
          lines.push([text(track.id),
            ...names.slice(1).map((name) => (name === "held_out_loss"
                ? evals.get(track.columns.step[i]) ?? ""
                : cell(name, i)))].join(","));
        }
      }
      studio.save(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }), `${this.entries[0]?.label || "run"}.csv`);
    }
  }

  studio.save = (blob, name) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  studio.Curves = Curves;
})();
