// A chart on a canvas: raw faint, smoothed strong, one line of values that follows the cursor. Draws any number of
// runs.
(() => {
  const studio = window.studio, { element: make, say } = studio;
  const PAD = { left: 52, right: 12, top: 8, bottom: 24 };

  const { place, quantile, widened } = studio.axis;

  class Chart {
    // spec: {key, title, columns, smooth, evals, marks, level, format, empty}; columns: [column, its name] of each
    // line; board: what all charts of a page share.
    constructor(board, spec) {
      this.board = board; this.spec = spec; this.dirty = true;
      const make = studio.element;
      this.readout = make("div", { class: "chart-readout" });
      this.canvas = make("canvas", { "aria-hidden": "true" });
      this.over = make("canvas", { class: "chart-over", "aria-hidden": "true" });
      this.empty = make("p", { class: "chart-empty", hidden: true });
      this.stage = make("div", { class: "chart-stage", tabindex: "0", role: "img",
        "aria-label": say(spec.title) }, this.canvas, this.over, this.empty);
      this.title = make("h4", { "aria-level": "2" }, say(spec.title));
      this.about = make("p", { class: "chart-about quiet small", hidden: true });
      this.node = make("figure", { class: `chart chart-${spec.key}` }, make("figcaption", {}, this.title, this.readout),
        this.stage, this.about);
      new ResizeObserver(([seen]) => {
        this.box = seen.contentRect;
        this.dirty = true;
        board.redraw();
      }).observe(this.stage);
      new IntersectionObserver(([seen]) => { this.inSight = seen.isIntersecting; if (this.inSight) board.redraw(); },
        { rootMargin: "50px" }).observe(this.stage);
      this.hands();
    }

    hands() {
      const stage = this.stage, board = this.board;
      const at = (event) => this.xOf(event.clientX - stage.getBoundingClientRect().left);
      let from = null;
      stage.addEventListener("pointermove", (event) => {
        board.point(at(event));
        if (from != null && Math.abs(event.clientX - from.pixel) > 4) {
          board.brush = [from.x, at(event)];
          board.hover();
        }
      });
      stage.addEventListener("pointerleave", () => { if (from == null) board.point(null); });
      stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0 || event.pointerType === "touch") return;
        from = { x: at(event), pixel: event.clientX };
        stage.setPointerCapture(event.pointerId);
      });
      const end = () => {
        if (board.brush) {
          const [a, b] = board.brush;
          board.brush = null;
          if (a !== b) board.zoom(Math.min(a, b), Math.max(a, b));
        }
        from = null;
      };
      stage.addEventListener("pointerup", end);
      stage.addEventListener("pointercancel", () => { board.brush = null; from = null; });
      stage.addEventListener("dblclick", () => board.zoom(null));
      stage.addEventListener("keydown", (event) => this.key(event));
      stage.addEventListener("blur", () => board.point(null));
    }

    key(event) {
      const board = this.board, range = board.range();
      if (!range) return;
      const span = range[1] - range[0], middle = board.cursor ?? (range[0] + range[1]) / 2;
      const acts = {
        ArrowLeft: () => board.point(Math.max(range[0], middle - span / (event.shiftKey ? 10 : 100))),
        ArrowRight: () => board.point(Math.min(range[1], middle + span / (event.shiftKey ? 10 : 100))),
        Home: () => board.point(range[0]), End: () => board.point(range[1]),
        "+": () => board.zoom(middle - span / 4, middle + span / 4),
        "=": () => board.zoom(middle - span / 4, middle + span / 4),
        "-": () => board.zoom(middle - span, middle + span), 0: () => board.zoom(null),
        Escape: () => { board.zoom(null); board.point(null); },
      };
      if (acts[event.key]) { event.preventDefault(); acts[event.key](); this.describe(); }
    }

    xOf(pixel) {
      const range = this.board.range();
      if (!range || !this.width) return null;
      const share = (pixel - PAD.left) / (this.width - PAD.left - PAD.right);
      return range[0] + Math.min(1, Math.max(0, share)) * (range[1] - range[0]);
    }

    // What is drawn of each run: its places in sight, raw and smoothed.
    lines() {
      const { board, spec } = this, entries = board.shown(), ink = board.ink().series;
      return entries.flatMap((entry) => spec.columns.map(([column, name], at) => {
        if (spec.columns.length === 1) return this.line(entry, column);
        const alone = entries.length === 1, colour = alone ? ink[at] : entry.colour;
        const label = alone ? say(name) : `${entry.label} · ${say(name)}`;
        return this.line({ ...entry, label, colour, evalColour: colour }, column);
      }));
    }
    line(entry, column) {
      const { board, spec } = this, range = board.range(), { track } = entry;
      const x = track.columns[board.axis], raw = track.columns[column];
      const evals = spec.evals ? this.evals(track, range, column) : [];
      if (!x || !raw || !track.n) return { ...entry, n: 0, evals };
      const first = Math.max(0, place(x, track.n, range[0]) - 1);
      const last = Math.min(track.n, place(x, track.n, range[1]) + 1);
      const weight = spec.smooth ? board.smoothing : 0, strong = track.smooth(column, weight);
      return { ...entry, x, raw, strong, weight: track.weight(weight), soft: weight > 0, first, last, n: last - first,
        evals };
    }

    evals(track, range, column) {
      const axis = this.board.axis, found = [];
      for (const event of track.others) {
        const y = event.kind !== "eval" ? null : column === "loss" ? event.loss : event.preference?.[column];
        if (y == null) continue;
        const x = axis === "step" ? event.step : axis === "tokens" ? event.total : event.time;
        if (range && x >= range[0] && x <= range[1]) found.push({ x, y, step: event.step });
      }
      return found;
    }

    yRange(lines) {
      let low = Infinity, high = -Infinity;
      const sample = [];
      const { board, spec } = this;
      const fits = (value) => Number.isFinite(value) && (!board.log || !spec.log || value > 0);
      const widen = (value) => { if (fits(value)) { if (value < low) low = value; if (value > high) high = value; } };
      for (const line of lines) {
        const hop = Math.max(1, Math.floor(line.n / 2000));
        for (let i = line.first || 0; i < (line.last || 0); i += 1) {
          if (!board.clip || !line.soft) widen(line.raw[i]);
          widen(line.strong[i]);
          if (board.clip && i % hop === 0 && fits(line.raw[i])) sample.push(line.raw[i]);
        }
        for (const point of line.evals) widen(point.y);
      }
      if (board.clip && sample.length > 20) {
        sample.sort((a, b) => a - b);
        const inner = [quantile(sample, 0.02), quantile(sample, 0.98)], slack = (inner[1] - inner[0]) * 0.15;
        low = Math.max(low, inner[0] - slack); high = Math.min(high, inner[1] + slack);
        for (const line of lines)
          for (const point of line.evals) { low = Math.min(low, point.y); high = Math.max(high, point.y); }
      }
      const level = spec.level && this.level();
      if (level) widen(level);
      if (spec.zero) low = Math.min(low, 0);
      if (!(high >= low)) return null;
      if (high === low) { const slack = Math.abs(high) * 0.1 || 1; low -= spec.zero ? 0 : slack; high += slack; }
      if (board.log && spec.log) return widened([Math.log10(low) - 0.02, Math.log10(high) + 0.02], 30);
      const slack = (high - low) * 0.03;
      return widened([spec.zero || (low >= 0 && low - slack < 0) ? Math.max(0, low - slack) : low - slack,
        high + slack]);
    }

    level() { const first = this.board.shown()[0]; return first?.track.status?.[this.spec.level] ?? null; }

    fit() {
      const { box } = this, ratio = window.devicePixelRatio || 1;
      if (!box?.width) return false;
      const width = Math.round(box.width), height = Math.round(box.height);
      if (width !== this.width || height !== this.height || ratio !== this.ratio) {
        for (const canvas of [this.canvas, this.over]) { canvas.width = width * ratio; canvas.height = height * ratio; }
        Object.assign(this, { width, height, ratio });
      }
      return true;
    }

    draw() {
      if (!this.fit()) return;
      this.dirty = false;
      const pen = this.canvas.getContext("2d");
      const scene = this.scene(this.width, this.height);
      const frame = this.frameOf(scene);
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      if (scene && frame === this.frame && scene.lines.every((line, i) => (line.last || 0) >= this.ends[i]))
        this.extend(pen, scene, this.ends);
      else { pen.clearRect(0, 0, this.width, this.height); this.paint(pen, scene); }
      Object.assign(this, { seen: scene, frame, ends: scene?.lines.map((line) => line.last || 0) });
      const first = this.board.shown()[0]?.track;
      // what is drawn, for tests and measurements
      Object.assign(this.stage.dataset, { points: first?.n ?? 0, last: first?.n ? first.last("step") : 0 });
      this.drawOver();
      this.describe();
    }

    valueAt(line, x) {
      if (!line.n || !line.x) return null;
      let i = Math.min(line.last - 1, place(line.x, line.last, x));
      if (i > line.first && Math.abs(line.x[i - 1] - x) < Math.abs(line.x[i] - x)) i -= 1;
      return { x: line.x[i], raw: line.raw[i], strong: line.strong[i] };
    }

    // Where everything stands in a picture of this size; null: there is nothing to draw yet.
    scene(width, height) {
      const { board, spec } = this;
      const xr = board.range();
      const lines = xr ? this.lines() : [];
      const yr = xr ? this.yRange(lines) : null;
      if (!yr) return null;
      const plot = { x: PAD.left, y: PAD.top, w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
      const scale = board.log && spec.log ? Math.log10 : (value) => value;
      return { width, plot, lines, xr, yr, X: (value) => plot.x + ((value - xr[0]) / (xr[1] - xr[0] || 1)) * plot.w,
        Y: (value) => plot.y + plot.h - ((scale(value) - yr[0]) / (yr[1] - yr[0])) * plot.h };
    }

    // Everything that is painted but the points: while it is the same, only new points are painted.
    frameOf(scene) {
      const { board, spec, width, height, ratio } = this;
      return scene
        && JSON.stringify([scene.xr, scene.yr, width, height, ratio, studio.language, board.ink().paper, board.log,
          board.axis, spec.level && this.level(),
          scene.lines.map((line) => [line.track.id, line.track.generation, line.colour, line.weight, line.first,
            line.n > 3 * width, line.evals.length, spec.marks && line.track.others.length])]);
    }

    // The values under the cursor, else the last ones.
    values() {
      const { board, spec } = this, said = [];
      for (const line of this.seen?.lines || []) {
        const many = this.seen.lines.length > 1;
        const value = this.valueAt(line, board.cursor ?? Infinity);
        if (value)
          said.push({
            colour: line.colour, name: many ? line.label : spec.evals ? say("train") : "",
            text: spec.format(value.strong), raw: value.raw
          });
        const evals = board.cursor == null ? line.evals : line.evals.filter((point) => point.x <= board.cursor);
        if (evals.length && !many)
          said.push({ colour: line.evalColour, name: say("held-out"), text: spec.format(evals.at(-1).y) });
      }
      return said;
    }

    tell() {
      studio.write(this.title, say(this.spec.title));
      const about = this.spec.about && studio.offer?.form.metrics[this.spec.about];
      this.about.hidden = !about;
      if (about) studio.write(this.about, say(about));
      const said = this.values(), key = JSON.stringify(said);
      if (key === this.told) return;
      this.told = key;
      this.readout.replaceChildren(...said.slice(0, 6).map((one) => studio.element("span", { title: one.name || null },
        studio.element("i", { style: `background:${one.colour}` }), one.name ? `${one.name} ` : "",
        studio.element("b", {}, one.text))));
    }

    describe() {
      const said = this.values().map((one) => `${one.name} ${one.text}`.trim()).join(", ");
      const where = this.board.cursor == null ? "" : ` · ${this.board.tell(this.board.cursor, true)}`;
      this.stage.setAttribute("aria-label", `${say(this.spec.title)}: ${said || say(this.spec.empty)}${where}`);
    }
  }

  studio.Chart = Chart;
})();
