// The bar under the header, on every tab: the running job, and whether the studio can be reached.
(() => {
  const studio = window.studio, { element: make, say, number, duration } = studio;
  const live = studio.live;

  // A cause or action that the core has filled with values, in the page's language: by the sentence whose {0} {1} …
  // it fits.
  // Sentences with numbered slots as patterns, those with the most words of their own first (as in ui/words.py).
  const patterns = {};
  const own = (key) => key.replace(/\{\w*\}/g, "").length;
  const patternsOf = (table) => Object.entries(table).filter(([key]) => /\{\d+\}/.test(key))
    .sort(([a], [b]) => own(b) - own(a))
    .map(([key, said]) => [new RegExp(`^${key.split(/\{(\d+)\}/)
      .map((part, place) => (place % 2 ? `(?<slot${part}>[\\s\\S]*?)` : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")))
      .join("")}$`), said]);
  studio.told = studio.told || ((message) => {
    const table = (window.studioWords || {})[studio.language] || {};
    if (!message || Object.hasOwn(table, message)) return say(message || "");
    if (studio.language === "en") return studio.ofOne(message);
    for (const [pattern, said] of patterns[studio.language] ||= patternsOf(table)) {
      const found = message.match(pattern);
      if (found) return said.replace(/\{(\d+)\}/g, (slot, n) => studio.told(found.groups[`slot${n}`] ?? slot));
    }
    return message;
  });
  studio.methodLabel = (name) => say(studio.offer?.form.methods.find((one) => one.name === name)?.label || name);
  // A folder or file of this computer by its last name; ids and samples as they are.
  const isPath = (name) => /^([/~]|[A-Za-z]:[\\/])/.test(name || "");
  const last = (name) => (isPath(name) ? name.split(/[/\\]/).filter(Boolean).pop() : name);
  studio.brief = (names) => names?.split(", ").map(last).join(", ");

  const PHASES = {
    queued: "Waiting", starting: "Starting", sending: "Sending it there",
    "setting up": "Installing what it needs there", reconnecting: "The connection is lost; trying again",
    "fetching model": "Fetching the model", "reading data": "Reading the data", "loading model": "Loading the model",
    probing: "Trying the longest batch", training: "Training", evaluating: "Evaluating", saving: "Saving",
    "fetching result": "Fetching the result"
  };
  const STATES = {
    queued: "waiting", starting: "starting", running: "running", stopping: "stopping", finished: "finished",
    stopped: "stopped", failed: "failed", lost: "lost"
  };
  studio.phase = (row) => say(row.state === "stopping" ? "Stopping" : PHASES[row.phase] || row.phase || "Starting");
  studio.state = (state) => make("span", { class: `state state-${state}` }, say(STATES[state] || state));

  // A note of the browser when a run ends that was seen alive, for those who asked for it.
  const seen = new Map(), ENDED = ["finished", "failed", "stopped", "lost"];
  const notify = () => {
    for (const row of live.rows) {
      const before = seen.get(row.id), ended = ENDED.includes(row.state);
      if (before && ended && !ENDED.includes(before) && studio.stored("studio-notify") === "on"
        && window.Notification?.permission === "granted") {
          new Notification(`${row.name}: ${say(STATES[row.state])}`,
            { body: row.cause ? studio.told(row.cause) : "", tag: row.id });
        }
      seen.set(row.id, row.state);
    }
  };
  studio.wantNotes = async () => {
    if (studio.stored("studio-notify") === "on") { studio.store("studio-notify", "off"); return; }
    const granted = window.Notification && (await Notification.requestPermission()) === "granted";
    if (granted) studio.store("studio-notify", "on");
    else
      studio.tell({
        message: say("The browser does not allow notifications here."),
        hint: say("Allow them for this page in the browser's settings.")
      });
  };

  studio.parts.bar = (element) => {
    const link = make("p", { class: "bar-link", role: "alert", hidden: true });
    const job = make("a", { class: "bar-job", href: "?tab=runs", hidden: true });
    element.replaceChildren(link, job);
    const header = document.getElementById("studio-header"); // the bar sticks under it, however high it is
    const root = document.documentElement.style;
    if (header) new ResizeObserver(() => root.setProperty("--header", `${header.offsetHeight}px`)).observe(header);
    new ResizeObserver(() => root.setProperty("--bar", `${element.offsetHeight}px`)).observe(element);
    const meter = make("i", {});
    const name = make("b", {});
    const doing = make("span", { class: "bar-doing" });
    const numbers = make("span", { class: "bar-numbers num" });
    job.append(make("span", { class: "bar-dot", "aria-hidden": "true" }), name, doing, numbers,
      make("span", { class: "bar-meter", "aria-hidden": "true" }, meter));
    job.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      studio.open("runs", { run: job.dataset.run });
    });
    const draw = () => {
      link.hidden = !live.since;
      if (live.since) {
        const time = new Intl.DateTimeFormat(studio.language === "zh" ? "zh-CN" : "en-GB",
          { timeStyle: "medium" }).format(live.since);
        link.textContent = live.lapsed ? say("You are no longer logged in. Load the page again.")
          : live.fault
          ? `${live.fault.message} ${live.fault.hint}`
          : say("Server unreachable since {time}. A run goes on by itself; this page fills in what it missed.",
            { time });
      }
      const row = live.now[0];
      job.hidden = !row;
      const title = row
        ? `${row.percent == null ? "" : `${Math.floor(row.percent)} % · `}${row.name} · Fine-Tuning Studio`
        : "Fine-Tuning Studio";
      if (document.title !== title) document.title = title;
      if (!row) return;
      job.dataset.run = row.id;
      job.href = `?tab=runs&run=${encodeURIComponent(row.id)}`;
      studio.write(name, row.name);
      studio.write(doing, studio.phase(row));
      const others = live.now.length - 1 + live.waiting;
      const learnt = row.stage === "grpo" ? ["reward", row.reward] : ["loss", row.train_loss];
      studio.write(numbers, [learnt[1] == null ? null : `${say(learnt[0])} ${studio.figure(learnt[1])}`,
        row.percent == null ? null : `${number(Math.floor(row.percent))} %`,
        row.left == null ? null : say("{time} left", { time: duration(row.left) }),
        others ? say("{n} more", { n: others }) : null].filter(Boolean).join(" · "));
      meter.style.width = `${row.percent || 0}%`;
    };
    live.listen((what) => { draw(); if (what.list) notify(); });
    window.addEventListener("studio:language", draw);
    live.start();
  };
})();
