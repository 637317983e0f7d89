// How a chart is painted: grid, lines, evaluations, marks, and what lies over it while one points at it.
(() => {
  const studio = window.studio, { say } = studio, { ticks, labelled, logTicks, decimals } = studio.axis;

  Object.assign(studio.Chart.prototype, {
    paint(pen, scene) {
      const { board, spec } = this, ink = board.ink();
      this.empty.hidden = Boolean(scene);
      if (!scene) { studio.write(this.empty, say(spec.empty)); return; }
      const { plot, lines, xr, yr, X, Y } = scene;
      this.grid(pen, plot, xr, yr, X, ink);
      this.within(pen, plot, () => {
        if (spec.level && this.level()) this.drawLevel(pen, plot, Y, ink);
        this.strokes(pen, scene, lines);
        for (const line of lines) this.drawEvals(pen, line, X, Y, ink);
      });
      if (spec.marks && lines.length === 1) this.drawMarks(pen, lines[0].track, X, plot, ink);
    },
    // The points that have come since those at `ends` were painted, and no others.
    extend(pen, scene, ends) {
      const fresh = scene.lines.map((line, i) => ({
        ...line, first: Math.max(line.first, ends[i] - 1), added: line.last > ends[i]
      }))
        .filter((line) => line.added);
      if (fresh.length)
        this.within(pen, scene.plot,
          () => this.strokes(pen, scene, fresh.map((line) => ({ ...line, n: line.last - line.first }))));
    },
    strokes(pen, { X, Y, width }, lines) {
      for (const line of lines)
        if (line.n && line.soft) this.stroke(pen, line, line.raw, X, Y, line.colour, 1, this.board.ink().faint, width);
      for (const line of lines) if (line.n) this.stroke(pen, line, line.strong, X, Y, line.colour, 2, 1, width);
    },
    within(pen, plot, draw) {
      pen.save();
      pen.beginPath();
      pen.rect(plot.x, plot.y - 2, plot.w, plot.h + 4);
      pen.clip();
      draw();
      pen.restore();
    },

    grid(pen, plot, xr, yr, X, ink) {
      const { board, spec } = this;
      pen.font = "11px system-ui, sans-serif";
      pen.lineWidth = 1;
      pen.textBaseline = "middle";
      pen.textAlign = "right";
      const logs = board.log && spec.log;
      const rows = logs ? logTicks(yr[0], yr[1]) : ticks(yr[0], yr[1], Math.max(2, plot.h / 44), spec.whole ? 1 : 0);
      const valueOf = (at) => (logs ? 10 ** at : at), digits = decimals(rows.map(valueOf));
      for (const { at, text } of labelled(rows, (mark) => spec.format(valueOf(mark), true, digits))) {
        const y = Math.round(plot.y + plot.h - ((at - yr[0]) / (yr[1] - yr[0])) * plot.h) + 0.5;
        pen.strokeStyle = ink.line;
        pen.beginPath();
        pen.moveTo(plot.x, y);
        pen.lineTo(plot.x + plot.w, y);
        pen.stroke();
        pen.fillStyle = ink.quiet; pen.fillText(text, plot.x - 8, y);
      }
      pen.textBaseline = "top";
      pen.textAlign = "center";
      const columns = ticks(xr[0], xr[1], Math.max(2, plot.w / 90), board.axis === "time" ? 0 : 1);
      for (const { at, text } of labelled(columns, (mark) => board.tell(mark))) {
        const x = X(at), half = pen.measureText(text).width / 2;
        pen.fillStyle = ink.quiet;
        pen.fillText(text, Math.min(plot.x + plot.w - half, Math.max(plot.x + half - 8, x)), plot.y + plot.h + 8);
      }
    },

    // A pixel column holds one stroke from its lowest to its highest value: thousands of points cost no more than the
    // width.
    stroke(pen, line, values, X, Y, colour, thick, alpha, width) {
      pen.strokeStyle = colour; pen.globalAlpha = alpha; pen.lineWidth = thick; pen.lineJoin = "round";
      pen.beginPath();
      let open = false;
      const dense = line.n > 3 * width;
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
        if (at !== column) {
          flush();
          column = at;
          start = low = high = end = y;
        } else { low = Math.min(low, y); high = Math.max(high, y); end = y; }
      }
      if (dense) flush();
      pen.stroke();
      if (line.n === 1) {
        pen.beginPath();
        pen.arc(X(line.x[line.first]), Y(values[line.first]), 2.5, 0, 7);
        pen.fillStyle = colour;
        pen.fill();
      }
      pen.globalAlpha = 1;
    },

    drawEvals(pen, line, X, Y, ink) {
      if (!line.evals.length) return;
      const colour = line.evalColour;
      pen.strokeStyle = colour; pen.fillStyle = colour; pen.lineWidth = 2;
      pen.setLineDash(line.evalColour === line.colour ? [5, 4] : []);
      pen.beginPath();
      line.evals.forEach((point, i) => (i ? pen.lineTo(X(point.x), Y(point.y)) : pen.moveTo(X(point.x), Y(point.y))));
      pen.stroke();
      pen.setLineDash([]);
      const best = this.spec.key === "loss" ? line.evals.reduce((a, b) => (b.y < a.y ? b : a)) : null;
      for (const point of line.evals) {
        pen.beginPath(); pen.arc(X(point.x), Y(point.y), point === best ? 4.5 : 3, 0, 7);
        pen.fillStyle = point === best ? ink.paper : colour; pen.fill(); pen.stroke();
      }
    },

    drawLevel(pen, plot, Y, ink) {
      const y = Y(this.level());
      pen.strokeStyle = ink.quiet; pen.setLineDash([6, 5]); pen.lineWidth = 1.2;
      pen.beginPath(); pen.moveTo(plot.x, y); pen.lineTo(plot.x + plot.w, y); pen.stroke(); pen.setLineDash([]);
      pen.fillStyle = ink.quiet;
      pen.textAlign = "right";
      pen.textBaseline = "bottom";
      pen.font = "11px system-ui, sans-serif";
      pen.fillText(say("estimate"), plot.x + plot.w - 4, y - 3);
    },

    // Checkpoints stand as small triangles on the axis, a resume as a dashed line.
    drawMarks(pen, track, X, plot, ink) {
      const axis = this.board.axis, foot = plot.y + plot.h;
      for (const event of track.others) {
        const at = axis === "step" ? event.step ?? event.from_step : axis === "tokens" ? event.total : event.time;
        if (at == null) continue;
        const x = X(at);
        if (x < plot.x - 1 || x > plot.x + plot.w + 1) continue;
        if (event.kind === "saved" && event.what === "checkpoint") {
          pen.fillStyle = ink.quiet;
          pen.beginPath();
          pen.moveTo(x - 4, foot + 6);
          pen.lineTo(x + 4, foot + 6);
          pen.lineTo(x, foot);
          pen.fill();
        } else if (event.kind === "phase" && event.from_step > 0) {
          pen.strokeStyle = ink.quiet; pen.setLineDash([2, 3]); pen.lineWidth = 1.2;
          pen.beginPath(); pen.moveTo(x, plot.y); pen.lineTo(x, foot); pen.stroke(); pen.setLineDash([]);
          pen.fillStyle = ink.quiet;
          pen.textAlign = "left";
          pen.textBaseline = "top";
          pen.font = "11px system-ui, sans-serif";
          pen.fillText(say("resumed"), x + 4, plot.y + 2);
        }
      }
    },

    drawOver() {
      if (!this.width) return;
      this.tell();
      const { board } = this, before = this.pointed;
      this.pointed = board.cursor != null || board.brush != null;
      if (!this.pointed && !before) return;
      const pen = this.over.getContext("2d"), ink = board.ink();
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.width, this.height);
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
      pen.strokeStyle = ink.quiet;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x, plot.y);
      pen.lineTo(x, plot.y + plot.h);
      pen.stroke();
      for (const line of lines) {
        const value = this.valueAt(line, board.cursor);
        if (value && Number.isFinite(value.strong)) {
          pen.fillStyle = line.colour; pen.beginPath(); pen.arc(X(value.x), Y(value.strong), 3.5, 0, 7); pen.fill();
          pen.strokeStyle = ink.paper; pen.lineWidth = 1.5; pen.stroke();
        }
      }
      const text = board.tell(board.cursor, true);
      const wide = (pen.font = "11px system-ui, sans-serif", pen.measureText(text).width + 10);
      const left = Math.min(plot.x + plot.w - wide, Math.max(plot.x, x - wide / 2));
      pen.fillStyle = ink.tag; pen.beginPath(); pen.roundRect(left, plot.y + plot.h + 4, wide, 17, 4); pen.fill();
      pen.fillStyle = ink.tagText;
      pen.textAlign = "left";
      pen.textBaseline = "middle";
      pen.fillText(text, left + 5, plot.y + plot.h + 13);
    },
  });
})();
