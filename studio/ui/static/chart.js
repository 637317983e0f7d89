// A chart on a canvas: raw faint, smoothed strong, one line of values that follows the cursor. Draws any number of runs.
(() => {
  const studio = window.studio;
  const PAD = { left: 52, right: 12, top: 8, bottom: 24 };

  const nice = (span, count) => {
    const rough = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough)), share = rough / power;
    return power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  };
  const ticks = (low, high, count) => {
    if (!(high > low)) return [low];
    const step = nice(high - low, count), found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
    return found;
  };
  const logTicks = (low, high) => {
    const found = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
      for (const factor of high - low > 2.5 ? [1] : high - low > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
        const at = power + Math.log10(factor);
        if (at >= low && at <= high) found.push(at);
      }
    }
    return found.length > 1 ? found : ticks(low, high, 4);
  };
  // The first place whose x is not below the value; x never falls.
  const place = (column, n, value) => {
    let low = 0, high = n;
    while (low < high) { const middle = (low + high) >> 1; if (column[middle] < value) low = middle + 1; else high = middle; }
    return low;
  };
  const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];

  class Chart {
    // spec: {key, title, column, smooth, evals, marks, level, format, empty}; board: what all charts of a page share.
    constructor(board, spec) {
      this.board = board; this.spec = spec; this.dirty = true;
      const make = studio.element;
      this.readout = make("div", { class: "chart-readout" });
      this.canvas = make("canvas", { "aria-hidden": "true" });
      this.over = make("canvas", { class: "chart-over", "aria-hidden": "true" });
      this.empty = make("p", { class: "chart-empty", hidden: true });
      this.stage = make("div", { class: "chart-stage", tabindex: "0", role: "img" }, this.canvas, this.over, this.empty);
      this.title = make("h4", {});
      this.node = make("figure", { class: `chart chart-${spec.key}` }, make("figcaption", {}, this.title, this.readout), this.stage);
      new ResizeObserver(() => { this.dirty = true; board.redraw(); }).observe(this.stage);
      this.hands();
    }

    hands() {
      const stage = this.stage, board = this.board;
      const at = (event) => this.xOf(event.clientX - stage.getBoundingClientRect().left);
      let from = null;
      stage.addEventListener("pointermove", (event) => {
        board.point(at(event));
        if (from != null && Math.abs(event.clientX - from.pixel) > 4) { board.brush = [from.x, at(event)]; board.hover(); }
      });
      stage.addEventListener("pointerleave", () => { if (from == null) board.point(null); });
      stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0 || event.pointerType === "touch") return;
        from = { x: at(event), pixel: event.clientX };
        stage.setPointerCapture(event.pointerId);
      });
      const end = () => {
        if (board.brush) { const [a, b] = board.brush; board.brush = null; if (a !== b) board.zoom(Math.min(a, b), Math.max(a, b)); }
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
        "+": () => board.zoom(middle - span / 4, middle + span / 4), "=": () => board.zoom(middle - span / 4, middle + span / 4),
        "-": () => board.zoom(middle - span, middle + span), 0: () => board.zoom(null), Escape: () => { board.zoom(null); board.point(null); },
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
      const { board, spec } = this, range = board.range();
      return board.shown().map((entry) => {
        const { track } = entry, x = track.columns[board.axis], raw = track.columns[spec.column];
        if (!x || !raw || !track.n) return { ...entry, n: 0, evals: spec.evals ? this.evals(track, range) : [] };
        const first = Math.max(0, place(x, track.n, range[0]) - 1), last = Math.min(track.n, place(x, track.n, range[1]) + 1);
        const weight = spec.smooth ? board.smoothing : 0;
        return { ...entry, x, raw, strong: track.smooth(spec.column, weight), soft: weight > 0, first, last, n: last - first,
          evals: spec.evals ? this.evals(track, range) : [] };
      });
    }

    evals(track, range) {
      const axis = this.board.axis, found = [];
      for (const event of track.others) {
        if (event.kind !== "eval" || event.loss == null) continue;
        const x = axis === "step" ? event.step : axis === "tokens" ? event.total : event.time;
        if (range && x >= range[0] && x <= range[1]) found.push({ x, y: event.loss, step: event.step });
      }
      return found;
    }

    yRange(lines) {
      let low = Infinity, high = -Infinity;
      const sample = [], { board, spec } = this, fits = (value) => Number.isFinite(value) && (!board.log || !spec.log || value > 0);
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
        for (const line of lines) for (const point of line.evals) { low = Math.min(low, point.y); high = Math.max(high, point.y); }
      }
      const level = spec.level && this.level();
      if (level) widen(level);
      if (spec.zero) low = Math.min(low, 0);
      if (!(high >= low)) return null;
      if (high === low) { const slack = Math.abs(high) * 0.1 || 1; low -= spec.zero ? 0 : slack; high += slack; }
      if (board.log && spec.log) return [Math.log10(low) - 0.02, Math.log10(high) + 0.02];
      const slack = (high - low) * 0.06;
      return [spec.zero || (low >= 0 && low - slack < 0) ? Math.max(0, low - slack) : low - slack, high + slack];
    }

    level() { const first = this.board.shown()[0]; return first?.track.status?.[this.spec.level] ?? null; }

    fit() {
      const box = this.stage.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
      if (!box.width) return false;
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
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      this.paint(pen, this.width, this.height);
      const first = this.board.shown()[0]?.track;
      Object.assign(this.stage.dataset, { points: first?.n ?? 0, last: first?.n ? first.last("step") : 0 }); // what is drawn, for tests and measurements
      this.drawOver();
      this.describe();
    }

    paint(pen, width, height) {
      const { board, spec } = this, ink = board.ink(), xr = board.range(), lines = xr ? this.lines() : [];
      const yr = xr ? this.yRange(lines) : null;
      this.seen = null;
      this.empty.hidden = Boolean(yr);
      if (!yr) { this.empty.textContent = studio.say(spec.empty); return; }
      const plot = { x: PAD.left, y: PAD.top, w: width - PAD.left - PAD.right, h: height - PAD.top - PAD.bottom };
      const X = (value) => plot.x + ((value - xr[0]) / (xr[1] - xr[0] || 1)) * plot.w;
      const scale = board.log && spec.log ? Math.log10 : (value) => value;
      const Y = (value) => plot.y + plot.h - ((scale(value) - yr[0]) / (yr[1] - yr[0])) * plot.h;
      this.seen = { X, Y, plot, lines };
      this.grid(pen, plot, xr, yr, X, ink);
      pen.save();
      pen.beginPath();
      pen.rect(plot.x, plot.y - 2, plot.w, plot.h + 4);
      pen.clip();
      if (spec.level && this.level()) this.drawLevel(pen, plot, Y, ink);
      for (const line of lines) if (line.n && line.soft) this.stroke(pen, line, line.raw, X, Y, line.colour, 1, ink.faint);
      for (const line of lines) if (line.n) this.stroke(pen, line, line.strong, X, Y, line.colour, 2, 1);
      for (const line of lines) this.drawEvals(pen, line, X, Y, ink);
      pen.restore();
      if (spec.marks && lines.length === 1) this.drawMarks(pen, lines[0].track, X, plot, ink);
    }

    grid(pen, plot, xr, yr, X, ink) {
      const { board, spec } = this;
      pen.font = "11px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      const logs = board.log && spec.log;
      for (const at of logs ? logTicks(yr[0], yr[1]) : ticks(yr[0], yr[1], Math.max(2, plot.h / 44))) {
        const y = Math.round(plot.y + plot.h - ((at - yr[0]) / (yr[1] - yr[0])) * plot.h) + 0.5;
        pen.strokeStyle = ink.line; pen.beginPath(); pen.moveTo(plot.x, y); pen.lineTo(plot.x + plot.w, y); pen.stroke();
        pen.fillStyle = ink.quiet; pen.fillText(spec.format(logs ? 10 ** at : at, true), plot.x - 8, y);
      }
      pen.textBaseline = "top";
      pen.textAlign = "center";
      for (const at of ticks(xr[0], xr[1], Math.max(2, plot.w / 90))) {
        const x = X(at), text = board.tell(at), half = pen.measureText(text).width / 2;
        pen.fillStyle = ink.quiet;
        pen.fillText(text, Math.min(plot.x + plot.w - half, Math.max(plot.x + half - 8, x)), plot.y + plot.h + 8);
      }
    }

    // A pixel column holds one stroke from its lowest to its highest value: thousands of points cost no more than the width.
    stroke(pen, line, values, X, Y, colour, width, alpha) {
      pen.strokeStyle = colour; pen.globalAlpha = alpha; pen.lineWidth = width; pen.lineJoin = "round";
      pen.beginPath();
      let open = false;
      const dense = line.n > 3 * (this.width || 600);
      let column = null, low = 0, high = 0, end = 0, start = 0;
      const flush = () => {
        if (column == null) return;
        if (!open) { pen.moveTo(column, start); open = true; } else pen.lineTo(column, start);
        if (high !== low) { pen.lineTo(column, low); pen.lineTo(column, high); }
        pen.lineTo(column, end);
      };
      for (let i = line.first; i < line.last; i += 1) {
        if (!Number.isFinite(values[i])) { if (dense) { flush(); column = null; } open = false; continue; }
        const x = X(line.x[i]), y = Math.max(-1e4, Math.min(1e4, Y(values[i])));
        if (!Number.isFinite(y)) { open = false; continue; }
        if (!dense) { if (open) pen.lineTo(x, y); else { pen.moveTo(x, y); open = true; } continue; }
        const at = Math.round(x);
        if (at !== column) { flush(); column = at; start = low = high = end = y; } else { low = Math.min(low, y); high = Math.max(high, y); end = y; }
      }
      if (dense) flush();
      pen.stroke();
      if (line.n === 1) { pen.beginPath(); pen.arc(X(line.x[line.first]), Y(values[line.first]), 2.5, 0, 7); pen.fillStyle = colour; pen.fill(); }
      pen.globalAlpha = 1;
    }

    drawEvals(pen, line, X, Y, ink) {
      if (!line.evals.length) return;
      const colour = line.evalColour;
      pen.strokeStyle = colour; pen.fillStyle = colour; pen.lineWidth = 2;
      pen.setLineDash(line.evalColour === line.colour ? [5, 4] : []);
      pen.beginPath();
      line.evals.forEach((point, i) => (i ? pen.lineTo(X(point.x), Y(point.y)) : pen.moveTo(X(point.x), Y(point.y))));
      pen.stroke();
      pen.setLineDash([]);
      const best = line.evals.reduce((a, b) => (b.y < a.y ? b : a));
      for (const point of line.evals) {
        pen.beginPath(); pen.arc(X(point.x), Y(point.y), point === best ? 4.5 : 3, 0, 7);
        pen.fillStyle = point === best ? ink.paper : colour; pen.fill(); pen.stroke();
      }
    }

    drawLevel(pen, plot, Y, ink) {
      const y = Y(this.level());
      pen.strokeStyle = ink.quiet; pen.setLineDash([6, 5]); pen.lineWidth = 1.2;
      pen.beginPath(); pen.moveTo(plot.x, y); pen.lineTo(plot.x + plot.w, y); pen.stroke(); pen.setLineDash([]);
      pen.fillStyle = ink.quiet; pen.textAlign = "right"; pen.textBaseline = "bottom"; pen.font = "11px system-ui, sans-serif";
      pen.fillText(studio.say("estimate"), plot.x + plot.w - 4, y - 3);
    }

    // Checkpoints stand as small triangles on the axis, a resume as a dashed line.
    drawMarks(pen, track, X, plot, ink) {
      const axis = this.board.axis, foot = plot.y + plot.h;
      for (const event of track.others) {
        const at = axis === "step" ? event.step ?? event.from_step : axis === "tokens" ? event.total : event.time;
        if (at == null) continue;
        const x = X(at);
        if (x < plot.x - 1 || x > plot.x + plot.w + 1) continue;
        if (event.kind === "saved" && event.what === "checkpoint") {
          pen.fillStyle = ink.quiet; pen.beginPath(); pen.moveTo(x - 4, foot + 6); pen.lineTo(x + 4, foot + 6); pen.lineTo(x, foot); pen.fill();
        } else if (event.kind === "phase" && event.from_step > 0) {
          pen.strokeStyle = ink.quiet; pen.setLineDash([2, 3]); pen.lineWidth = 1.2;
          pen.beginPath(); pen.moveTo(x, plot.y); pen.lineTo(x, foot); pen.stroke(); pen.setLineDash([]);
          pen.fillStyle = ink.quiet; pen.textAlign = "left"; pen.textBaseline = "top"; pen.font = "11px system-ui, sans-serif";
          pen.fillText(studio.say("resumed"), x + 4, plot.y + 2);
        }
      }
    }

    drawOver() {
      if (!this.width) return;
      const pen = this.over.getContext("2d"), { board } = this, ink = board.ink();
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
      this.tell();
      if (!this.seen) return;
      const { X, Y, plot, lines } = this.seen;
      if (board.brush) {
        pen.fillStyle = ink.brush;
        const [a, b] = board.brush.map(X);
        pen.fillRect(Math.min(a, b), plot.y, Math.abs(b - a), plot.h);
      }
      if (board.cursor == null) return;
      const x = Math.round(X(board.cursor)) + 0.5;
      if (x < plot.x || x > plot.x + plot.w + 1) return;
      pen.strokeStyle = ink.quiet; pen.lineWidth = 1; pen.beginPath(); pen.moveTo(x, plot.y); pen.lineTo(x, plot.y + plot.h); pen.stroke();
      for (const line of lines) {
        const value = this.valueAt(line, board.cursor);
        if (value && Number.isFinite(value.strong)) {
          pen.fillStyle = line.colour; pen.beginPath(); pen.arc(X(value.x), Y(value.strong), 3.5, 0, 7); pen.fill();
          pen.strokeStyle = ink.paper; pen.lineWidth = 1.5; pen.stroke();
        }
      }
      const text = board.tell(board.cursor, true), wide = (pen.font = "11px system-ui, sans-serif", pen.measureText(text).width + 10);
      const left = Math.min(plot.x + plot.w - wide, Math.max(plot.x, x - wide / 2));
      pen.fillStyle = ink.tag; pen.beginPath(); pen.roundRect(left, plot.y + plot.h + 4, wide, 17, 4); pen.fill();
      pen.fillStyle = ink.tagText; pen.textAlign = "left"; pen.textBaseline = "middle"; pen.fillText(text, left + 5, plot.y + plot.h + 13);
    }

    valueAt(line, x) {
      if (!line.n || !line.x) return null;
      let i = Math.min(line.last - 1, place(line.x, line.last, x));
      if (i > line.first && Math.abs(line.x[i - 1] - x) < Math.abs(line.x[i] - x)) i -= 1;
      return { x: line.x[i], raw: line.raw[i], strong: line.strong[i] };
    }

    // The values under the cursor, else the last ones.
    values() {
      const { board, spec } = this, said = [];
      for (const line of this.seen?.lines || []) {
        const many = this.seen.lines.length > 1;
        const value = this.valueAt(line, board.cursor ?? Infinity);
        if (value) said.push({ colour: line.colour, name: many ? line.label : spec.evals ? studio.say("train") : "", text: spec.format(value.strong), raw: value.raw });
        const evals = board.cursor == null ? line.evals : line.evals.filter((point) => point.x <= board.cursor);
        if (evals.length && !many) said.push({ colour: line.evalColour, name: studio.say("held-out"), text: spec.format(evals.at(-1).y) });
      }
      return said;
    }

    tell() {
      this.title.textContent = studio.say(this.spec.title);
      const said = this.values(), key = JSON.stringify(said);
      if (key === this.told) return;
      this.told = key;
      this.readout.replaceChildren(...said.slice(0, 6).map((one) => studio.element("span", { title: one.name || null },
        studio.element("i", { style: `background:${one.colour}` }), one.name ? `${one.name} ` : "", studio.element("b", {}, one.text))));
    }

    describe() {
      const said = this.values().map((one) => `${one.name} ${one.text}`.trim()).join(", ");
      const where = this.board.cursor == null ? "" : ` · ${this.board.tell(this.board.cursor, true)}`;
      this.stage.setAttribute("aria-label", `${studio.say(this.spec.title)}: ${said || studio.say(this.spec.empty)}${where}`);
    }
  }

  studio.Chart = Chart;
})();
