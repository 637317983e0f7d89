// One question a second for the whole page: what is new? Only new points travel. A page that is hidden asks nothing, or
// seldom and for the list alone where the visitor wants to be told when a run ends.
(() => {
  const studio = window.studio, { say } = studio;
  const away = /\.hf\.space$/.test(location.hostname);
  // milliseconds
  const BUSY = away ? 3000 : 1000, IDLE = away ? 6000 : 3000, HIDDEN = 20000, SLOWEST = 8000, PATIENCE = 12000;

  // Asks a reading function of a part of the page (studio/ui/questions.py). Rejects with {status, message, hint};
  // status 0: no answer came.
  studio.ask = (id, name, data, patience = PATIENCE) => asked(id, name, data, patience, reading);
  // The reading functions of a part, each as one of its own: asking("tune").look(order). Of those in `latest` only the
  // newest question counts: an older one is given up, so that its connection is free. A browser holds six.
  studio.asking = (id, ...latest) => {
    const going = new Map();
    return new Proxy({}, { get: (_, name) => (data) => {
      const stop = new AbortController();
      if (latest.includes(name)) { going.get(name)?.abort(); going.set(name, stop); }
      return asked(id, name, data, 60000, reading, stop);
    } });
  };
  studio.askFile = (id, name, data) => asked(id, name, data, 600000, (answer) => answer.blob());
  const reading = (answer) => ((answer.headers.get("content-type") || "").includes("json")
    ? answer.json()
    : answer.text());
  const asked = async (id, name, data, patience, read, stop = new AbortController()) => {
    const base = (window.gradio_config?.root || "").replace(/\/$/, "");
    const timer = setTimeout(() => stop.abort(), patience);
    try {
      const answer = await fetch(`${base}/studio/ask/${id}/${name}`,
        { method: "POST", headers: { "Content-Type": "application/json" },
          body: JSON.stringify(data), signal: stop.signal });
      if (!answer.ok) throw { status: answer.status, ...(await answer.json().catch(() => ({}))).error };
      studio.permit(answer.headers.get("x-studio-may"));
      if (answer.headers.get("x-studio-login")) document.querySelector(".studio-leave")?.removeAttribute("hidden");
      return await read(answer);
    } catch (error) {
      throw typeof error?.status === "number" ? error : { status: 0 };
    } finally {
      clearTimeout(timer);
    }
  };

  // Why a question or a call got no answer, as {message, hint}. That nobody answers is said only where nobody did.
  studio.trouble = (problem) => {
    if (problem?.message && !(problem instanceof Error)) return problem;
    if (problem?.status === 401)
      return { message: say("You are no longer logged in."), hint: say("Load the page again.") };
    if (problem?.status === 403)
      return { message: say("Only the owner may do this here."), hint: say("Log in as the owner.") };
    if (problem?.status === 413) return { message: say("The question is too long."), hint: "" };
    if (problem?.status > 0)
      return {
        message: say("The studio answered with {status}.", { status: problem.status }),
        hint: say("Its terminal says more.")
      };
    return {
      message: say("The studio does not answer."),
      hint: say("Is it still running in its terminal? This page goes on by itself when it is back.")
    };
  };

  // What the page holds of one run: columns of numbers that grow, and every other event.
  class Track {
    constructor(id) { this.id = id; this.reset(); this.status = null; this.gone = null; this.asked = null; }
    reset() {
      this.generation = null; this.points = 0; this.next = 0; this.stride = 1; this.n = 0;
      this.columns = {}; this.others = []; this.smoothed = new Map(); this.version = (this.version || 0) + 1;
    }
    question() {
      return { id: this.id, generation: this.generation, points: this.points, others: this.next, stride: this.stride };
    }
    take(part) {
      this.gone = part.gone || null;
      if (part.gone) return false;
      if (part.fresh) this.reset();
      const rows = part.columns[0].length;
      part.names.forEach((name, place) => this.extend(name, part.columns[place]));
      this.n += rows;
      const changed = rows > 0 || part.others.length > 0 || part.fresh;
      for (const event of part.others) this.others.push(event);
      Object.assign(this, { generation: part.generation, points: part.points, next: part.next, stride: part.stride,
        status: part.status, checkpoints: part.checkpoints, more: part.more });
      if (changed) this.version += 1;
      return changed;
    }
    extend(name, values) {
      let column = this.columns[name];
      if (!column || column.length < this.n + values.length) {
        const room = new Float64Array(Math.max(1024, 2 * (this.n + values.length)));
        if (column) room.set(column.subarray(0, this.n));
        column = this.columns[name] = room;
      }
      for (let i = 0; i < values.length; i += 1) column[this.n + i] = values[i] == null ? NaN : values[i];
    }
    // How strongly a curve of this length is smoothed.
    weight(weight) {
      return weight > 0 && this.n > 1000 ? weight ** (1 / 2 ** Math.ceil(Math.log2(this.n / 1000))) : weight;
    }
    // Exponential moving average without the bias of its start (as in Adam, Kingma & Ba 2015), extended as points
    // arrive. The weight is meant for a thousand points; a longer curve is smoothed over as much of its width (in
    // doublings, so that it seldom changes).
    smooth(name, weight) {
      weight = this.weight(weight);
      const key = `${name} ${weight}`, column = this.columns[name];
      if (!column) return null;
      if (!(weight > 0)) return column;
      let kept = this.smoothed.get(key);
      if (!kept) {
        if (this.smoothed.size > 12) this.smoothed.clear();
        this.smoothed.set(key, kept = { n: 0, sum: 0, share: 0, values: new Float64Array(0) });
      }
      if (kept.values.length < this.n) {
        const room = new Float64Array(column.length);
        room.set(kept.values.subarray(0, kept.n));
        kept.values = room;
      }
      for (; kept.n < this.n; kept.n += 1) {
        const value = column[kept.n];
        if (Number.isFinite(value)) {
          kept.sum = weight * kept.sum + (1 - weight) * value;
          kept.share = weight * kept.share + (1 - weight);
        }
        kept.values[kept.n] = kept.share ? kept.sum / kept.share : NaN;
      }
      return kept.values;
    }
    last(name) { const column = this.columns[name]; return column && this.n ? column[this.n - 1] : NaN; }
  }

  const live = studio.live = {
    tracks: new Map(), now: [], waiting: 0, count: null, rows: [], unread: [], mark: null, ready: false, since: null,
    lapsed: false,
    fault: null,
    open: null, compared: [], listing: false, device: null, wantsDevice: false, wantsLog: false, log: null,
  };
  const listeners = new Set();
  live.listen = (heard) => { listeners.add(heard); return () => listeners.delete(heard); };
  const tell = (what) => {
    for (const heard of listeners) { try { heard(what); } catch (error) { console.error(error); } }
  };
  live.track = (id) => { if (!live.tracks.has(id)) live.tracks.set(id, new Track(id)); return live.tracks.get(id); };
  // The run whose page is open (null: none), and runs laid over it.
  live.show = (id, others = []) => {
    if (live.open !== id) live.log = { file: null, at: 0, lines: [], half: "" };
    live.open = id;
    live.compared = others.filter((other) => other !== id);
    for (const known of live.tracks.keys())
      if (known !== id && !live.compared.includes(known)) live.tracks.delete(known);
    live.hurry();
  };
  // Another tab is open: only the bar's news is asked for.
  live.rest = () => Object.assign(live, { open: null, compared: [], wantsLog: false });

  const question = () => {
    const ask = { device: live.wantsDevice && !document.hidden };
    ask.list = live.mark;
    if (document.hidden) return ask;
    if (live.open)
      ask.run = {
        ...live.track(live.open).question(), log: live.wantsLog ? { file: live.log.file, at: live.log.at } : null
      };
    ask.also = live.compared.map((id) => live.track(id).question());
    return ask;
  };

  const LINES = 3000; // of a log, kept in the page
  let turns = 0;
  const takeLog = (part) => {
    const log = live.log;
    if (part.fresh) { log.lines = []; log.skipped = part.skipped; log.turn = (turns += 1); }
    log.file = part.file; log.at = part.at; log.size = part.size;
    const fresh = part.text ? part.text.replace(/\n$/, "").split("\n") : [];
    log.lines.push(...fresh);
    // the whole file is one click away
    if (log.lines.length > 2 * LINES) { log.lines.splice(0, log.lines.length - LINES); log.skipped = 1; }
    return fresh;
  };

  const receive = (answer, asked) => {
    const what = { list: false, run: false, also: false, log: null };
    Object.assign(live, { at: answer.at, now: answer.now, waiting: answer.waiting, count: answer.count });
    live.skew = Date.now() / 1000 - answer.at;
    if (answer.list) {
      const { rows, mark, unread = [] } = answer.list;
      Object.assign(live, { rows, mark, unread });
      what.list = true;
    } else if (answer.now.length) {
      const moving = new Map(answer.now.map((row) => [row.id, row]));
      live.rows = live.rows.map((row) => moving.get(row.id) || row);
      what.list = true;
    }
    if (answer.device) live.device = answer.device;
    let more = false;
    if (answer.run && answer.run.id === live.open) {
      const track = live.track(live.open);
      what.changed = track.take(answer.run);
      what.run = true;
      more = Boolean(answer.run.more);
      if (answer.run.log && asked.run?.log) { what.log = takeLog(answer.run.log); more = more || answer.run.log.more; }
    }
    for (const part of answer.also || []) {
      if (!live.compared.includes(part.id)) continue;
      if (live.track(part.id).take(part)) what.also = true;
      more = more || Boolean(part.more);
    }
    live.ready = true;
    tell(what);
    return more;
  };

  let timer = null, asking = false, again = false, misses = 0;
  const turn = async () => {
    clearTimeout(timer);
    if (document.hidden && studio.stored("studio-notify") !== "on") return;
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    let wait = IDLE;
    try {
      const ask = question();
      const more = receive(await studio.ask("studio-bar", "poll", ask), ask);
      misses = 0;
      if (live.since || live.lapsed) {
        live.since = null;
        live.lapsed = false;
        live.fault = null;
        tell({ link: true });
      }
      wait = more ? 0 : document.hidden ? HIDDEN : live.now.length || live.waiting ? BUSY : IDLE;
    } catch (error) {
      if (typeof error?.status !== "number") console.error(error);
      misses += 1;
      live.lapsed = error.status === 401;
      live.fault = error.status > 0 ? studio.trouble(error) : null;
      if (!live.since) live.since = new Date();
      tell({ link: true });
      wait = error.status === 429 ? 12000 : Math.min(SLOWEST, 1000 * 1.6 ** Math.min(misses, 6));
      if (error.status === 0) wait = Math.min(wait, 2500);
    }
    asking = false;
    timer = setTimeout(turn, again ? 0 : wait && wait * (0.97 + 0.06 * Math.random()));
  };
  studio.runName = (id) => live.rows.find((row) => row.id === id)?.name || studio.undated(id);
  live.hurry = () => { if (live.started) turn(); };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) live.hurry(); });
  live.start = () => { if (!live.started) { live.started = true; turn(); } };
})();
