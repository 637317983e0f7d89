// Races of settings and plans: what Tune asks before one, and the view of one on its run's page.
(() => {
  const studio = window.studio, { element: make, button, say, bytes, duration } = studio;
  const VARY = { rates_ranks: "Learning rates and ranks", rates: "Learning rates", ranks: "Ranks", methods: "Methods" };
  const VERDICTS = {
    prompting: "Prompting suffices", enough: "Enough rows", more_rows: "More rows would help",
    nothing: "Nothing measurable"
  };
  const list = (text) => text.split(/[,，;；\s]+/).filter(Boolean).join(",");

  // -- the questions on Tune

  const yaml = async () => (await studio.ask("tune", "write", { order: studio.order.value })).yaml;
  studio.race = async (method) => {
    const ranked = method.knobs.some((knob) => knob.key === "rank");
    const rate = studio.order.get("training.learning_rate") ?? method.rate;
    const near = [1 / 3, 1, 3].map((factor) => String(Number((rate * factor).toPrecision(3)))).join(", ");
    const kinds = Object.entries(VARY).filter(([key]) => ranked || !key.includes("ranks"));
    const wanted = await studio.inquire({ title: say("Race of settings"),
      text: say("All settings are trained in turns over one copy of the model, and the worse half is stopped "
        + "again and again. It takes about a third of the time of training each; the winner's settings can be taken "
        + "or gone on with."),
      fields: [
        { key: "vary", label: say("What to vary"), value: kinds[0][0],
          choices: kinds.map(([key, name]) => [key, say(name)]) },
        { key: "rates", label: say("Learning rates"), value: near, shown: (values) => values.vary.includes("rates") },
        { key: "ranks", label: say("Ranks"), value: "8, 32", shown: (values) => values.vary.includes("ranks") },
        { key: "methods", label: say("Methods"), value: "lora, adapter, ia3, prefix",
          note: () => say("Of {names}.", { names: studio.offer.form.methods.map((one) => one.name).join(", ") }),
          shown: (values) => values.vary === "methods" },
        { key: "how", label: say("Losers"), value: "halving",
          choices: [["halving", say("Stop the worse half again and again")], ["all", say("Train all to the end")]] }],
      act: say("Start the race") });
    if (!wanted) return;
    const settings = [];
    if (wanted.vary === "methods") settings.push(`method.name=${list(wanted.methods)}`);
    if (wanted.vary.includes("ranks")) settings.push(`method.rank=${list(wanted.ranks)}`);
    if (wanted.vary.includes("rates")) settings.push(`training.learning_rate=${list(wanted.rates)}`);
    await begin("start_race", settings, wanted.how === "halving");
  };
  studio.plan = async () => {
    const minutes = await studio.inquire({ title: say("Will it help, and are there rows enough?"),
      text: say("A short look before the real run: the model with examples in its prompt, against short runs on "
        + "12, 25, 50 and 100 % of the rows. You get one curve and a verdict; the runs stay in your history."),
      field: { label: say("Minutes at most"), value: "10", type: "number" }, act: say("Look") });
    if (minutes) await begin("start_plan", Number(minutes));
  };
  const begin = async (job, ...values) => studio.makeRun(job, await yaml(), ...values);

  // -- the picture: lines over steps or rows, drawn as SVG so that it follows the page's colours

  const HEIGHT = 280, LEFT = 50, RIGHT = 14, TOP = 12, BOTTOM = 30;
  // lines: [{points: [[x, y]], colour, thin, faint, dots}]; levels: [{y, name}]; band: [[x, low, high]].
  const picture = (WIDTH, about, name, lines, levels = [], band = []) => {
    const points = [...lines.flatMap((line) => line.points),
      ...band.flatMap(([x, low, high]) => [[x, low], [x, high]])];
    const ys = [...points.map(([, y]) => y), ...levels.map((one) => one.y)].filter(Number.isFinite);
    const box = studio.svg("svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "race-picture", role: "img", "aria-label": about });
    if (!ys.length) return box;
    const right = Math.max(...points.map(([x]) => x), 1), low = Math.min(...ys), high = Math.max(...ys);
    const spare = (high - low) * 0.06 || 0.5;
    const bottom = low < 0 ? low - spare : Math.max(0, low - spare), top = high + spare;
    const X = (x) => LEFT + (x / right) * (WIDTH - LEFT - RIGHT);
    const Y = (y) => TOP + ((top - y) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    const path = (list) => list
      .map(([x, y], place) => `${place ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
    const text = (x, y, said, anchor) => studio.svg("text", { x, y, "text-anchor": anchor, class: "race-tick" }, said);
    for (let n = 0; n <= 4; n += 1) {
      const y = bottom + ((top - bottom) * n) / 4;
      box.append(studio.svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: Y(y), y2: Y(y), class: "race-grid" }),
        text(LEFT - 6, Y(y) + 4, y.toFixed(2), "end"));
    }
    // of two steps there are no quarters
    for (const x of new Set([0, 1, 2, 3, 4].map((n) => Math.round((right * n) / 4))))
      box.append(text(X(x), HEIGHT - 10, studio.number(x), x >= right ? "end" : x ? "middle" : "start"));
    box.append(text(LEFT - 6, HEIGHT - 10, name, "end"));
    if (band.length > 1)
      box.append(studio.svg("path", { class: "race-band",
        d: `${path(band.map(([x, , value]) => [x, value]))}${path(band.map(([x, value]) => [x, value]).reverse())
          .replace("M", "L")}Z` }));
    levels.forEach((one, place) => box.append(
      studio.svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: Y(one.y), y2: Y(one.y), class: "race-level" }),
      place ? text(WIDTH - RIGHT, Y(one.y) - 5, one.name, "end") : text(LEFT + 6, Y(one.y) - 5, one.name, "start")));
    for (const line of lines) {
      box.append(studio.svg("path", { d: path(line.points), fill: "none", stroke: line.colour,
        "stroke-width": line.thin ? 1 : 2.2, opacity: line.faint ? 0.35 : 1, "stroke-linejoin": "round" }));
      if (line.dots)
        for (const [x, y] of line.points)
          box.append(studio.svg("circle", { cx: X(x), cy: Y(y), r: 3, fill: line.colour,
            opacity: line.faint ? 0.5 : 1 }));
    }
    return box;
  };
  const named = (row) => row.label.split(" · ").map((part) => studio.told(part)).join(" · ");
  const colour = (row) => `var(--series-${((row.contestant - 1) % 8) + 1})`;

  // -- the view

  // A setting of a race that is over becomes an ordinary run; the winner's where none is named.
  studio.keepSetting = (race, setting = null) => studio.makeRun("keep_setting", race, setting);

  const STATES = { waiting: "waits", racing: "in the race", out: "stopped", stopped: "stopped with the race",
    failed: "failed", finished: "trained to the end", won: "won" };

  class RaceView {
    constructor() {
      this.node = make("div", { class: "race" }); this.rows = []; this.plan = null;
      window.addEventListener("resize", () => { if (this.run && !this.node.hidden) this.draw(); });
    }
    // Of the picture in pixels, so that its words keep their size.
    width() { return Math.max(280, this.node.clientWidth || 720); }

    // Called at every piece of news; asks for the table at most every second and a half.
    update(row, track) {
      const key = `${row.id} ${track?.version} ${row.state} ${studio.language}`;
      if (key === this.key) return;
      if (row.id !== this.run?.id) { this.rows = []; this.plan = null; this.heard = false; }
      this.key = key; this.run = row;
      clearTimeout(this.later);
      const wait = Math.max(0, 1500 - (Date.now() - (this.asked || 0)));
      this.later = setTimeout(() => this.fetch(), wait);
      this.draw();
    }
    async fetch() {
      const id = this.run.id;
      this.asked = Date.now();
      const answer = await studio.ask("races", "standing", { id }).catch(() => null);
      if (!answer || id !== this.run.id) return;
      Object.assign(this, { rows: answer.rows, plan: answer.plan, heard: true });
      this.draw();
    }

    draw() {
      const over = !studio.isAlive(this.run.state) && this.run.state !== "queued";
      this.node.replaceChildren(...(this.run.race.plan ? this.planned(over) : this.raced(over)).filter(Boolean));
    }

    raced(over) {
      const rows = this.rows;
      if (!rows.length)
        return [make("p", { class: "quiet" },
          say(this.heard ? "Nothing is known of this race." : "Reading the race…"))];
      const lines = rows.flatMap((row) => {
        const faint = ["out", "failed"].includes(row.state);
        return [{ points: row.curves.train, colour: colour(row), thin: true, faint: true },
          { points: row.curves.eval, colour: colour(row), faint, dots: true }];
      });
      const out = rows.filter((row) => ["out", "failed"].includes(row.state));
      return [
        make("h3", {}, say("Race of settings")),
        make("p", { class: "quiet" }, over && rows[0].place === 1
          ? say("Best: {name}, held-out loss {loss}.", { name: named(rows[0]), loss: studio.figure(rows[0].eval_loss) })
          : say("{n} settings over one base; {m} are in the race.", { n: rows.length, m: rows.length - out.length })),
        picture(this.width(), say("Held-out loss of every setting"), say("Step"), lines),
        make("p", { class: "quiet small" },
          say("Strong: held-out loss. Thin: training loss. Pale: settings that were stopped.")),
        this.table(over)];
    }

    table(over) {
      const heads = ["", "Setting", "Held-out loss", "Trained", "Memory alone", "Training time", "Steps", "State", ""];
      return studio.table(heads.map((name) => name || make("span", { class: "hidden-but-read" }, say("Place"))),
        this.rows.map((row) => this.line(row, over)), { label: say("Race of settings"), kind: "race-table" });
    }
    line(row, over) {
      const number = (value, said) => make("td", { class: "num" }, value == null ? "–" : said);
      const acts = make("td", { class: "race-acts" },
        button("button", say("Use these settings"),
          () => { studio.order.replace(row.order, "race"); studio.open("tune", { run: null }); },
          { "data-key": `use ${row.contestant}`, title: say("Opens Tune with these settings; nothing is started.") }),
        over && row.step && row.state !== "failed"
          ? button("button", say(row.state === "finished" ? "Keep as a run" : "Go on with it"),
            () => studio.keepSetting(this.run.id, row.contestant),
            { job: "keep_setting", "data-key": `keep ${row.contestant}`,
              title: say("Becomes an ordinary run that goes on from where it is.") })
          : null);
      return make("tr", { class: ["out", "failed"].includes(row.state) ? "race-out" : "" },
        make("td", { class: "num" }, row.place == null ? "–" : String(row.place)),
        make("th", { scope: "row" }, make("i", { class: "race-key", style: `background:${colour(row)}` }), named(row),
          row.shared === false ? make("small", { class: "quiet" }, ` ${say("base of its own")}`) : null),
        make("td", { class: `num ${row.place === 1 ? "best" : ""}` },
          row.eval_loss == null ? "–" : row.eval_loss.toFixed(4)),
        number(row.trainable, `${studio.number(row.trainable)} (${studio.number(row.share, 2)} %)`),
        number(row.estimated_memory, bytes(row.estimated_memory)),
        number(row.train_seconds || null, duration(row.train_seconds)),
        number(row.steps, `${studio.number(row.step)} / ${studio.number(row.steps)}`),
        make("td", { title: row.cause ? studio.told(row.cause) : null }, say(STATES[row.state] || row.state)),
        acts);
    }

    planned(over) {
      const found = this.plan;
      if (!found) {
        const rows = this.rows.filter((row) => row.curves?.eval.length);
        return [make("h3", {}, say("Will it help, and are there rows enough?")),
          make("p", { class: "quiet" }, over
            ? say("This look ended before it could say anything.")
            : say("Short runs on shares of the rows take turns; the verdict comes at the end.")),
          rows.length ? picture(this.width(), say("Held-out loss of every setting"), say("Step"),
            rows.map((row) => ({ points: row.curves.eval, colour: colour(row), dots: true }))) : null,
          rows.length ? make("p", { class: "quiet small race-legend" }, rows.map((row) => make("span", {},
            make("i", { class: "race-key", style: `background:${colour(row)}` }), named(row)))) : null];
      }
      const points = found.curve.map((one) => [one.rows, one.loss]);
      const levels = [{ y: found.base_loss, name: say("base as it is") }];
      if (found.few_shot_loss != null)
        levels.push({ y: found.few_shot_loss, name: say("base with examples in the prompt") });
      return [make("p", { class: `race-verdict ${found.verdict}` }, say(VERDICTS[found.verdict])),
        make("p", { class: "race-sentence" }, studio.told(found.sentence)),
        picture(this.width(), say("Held-out loss by rows"), say("Rows"),
          [{ points, colour: "var(--series-1)", dots: true }], levels,
          found.curve.map((one) => [one.rows, one.low, one.high])),
        make("p", { class: "quiet small" },
          say("Held-out loss of the answers by rows trained on, with its 95 % band. Lower is better.")),
        studio.table(["Rows", "Held-out loss", "From", "To"], found.curve.map((one) =>
          [studio.number(one.rows), ...[one.loss, one.low, one.high].map((value) => value.toFixed(4))])),
        make("p", { class: "quiet" }, say("Its runs:"), " ",
          found.runs.flatMap((id, place) => [place ? ", " : "", studio.runLink(id)]))];
    }
  }
  studio.raceView = () => new RaceView();
})();
