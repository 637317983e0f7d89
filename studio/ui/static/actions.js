// What can be done with a run. A button locks until the run's real state has changed, or 30 seconds have passed.
(() => {
  const studio = window.studio, { element: make, button, say, bytes } = studio, live = studio.live;
  const locks = new Map(); // run -> {state, until, seen}
  const PATIENCE = 30000;

  const lock = (row) => locks.set(row.id, { state: row.state, until: Date.now() + PATIENCE });
  studio.locked = (row) => {
    const kept = locks.get(row.id);
    if (!kept) return false;
    if (kept.state !== row.state || Date.now() > kept.until) { locks.delete(row.id); return false; }
    return true;
  };
  const act = async (row, job, ...values) => {
    lock(row);
    studio.redrawRuns?.();
    try {
      return await studio.call(job, row.id, ...values);
    } catch (problem) {
      studio.tell(problem);
      locks.delete(row.id);
      return null;
    } finally {
      live.hurry();
    }
  };
  // Save, evaluate, sample: the state stays what it is, so the lock is short.
  const ask = async (row, what, said) => {
    const done = await act(row, "ask", what);
    locks.delete(row.id);
    if (done) studio.tell({ message: said }, "good");
    studio.redrawRuns?.();
  };

  // The queue: runs that wait, the next one first, and a run's place in it from 1.
  studio.queue = () => live.rows.filter((row) => row.state === "queued")
    .sort((a, b) => a.order - b.order || (a.id < b.id ? -1 : 1));
  studio.place = (row) => studio.queue().findIndex((one) => one.id === row.id) + 1;
  const place = async (row, wanted) => { await act(row, "move", wanted); locks.delete(row.id); };

  const ACTS = {
    stop: {
      job: "stop", name: "Stop and keep", title: "Ends after this step and saves what was learnt.",
      run: (row) => act(row, "stop", false)
    },
    cancel: { job: "stop", name: "Take out of the queue", run: (row) => act(row, "stop", false) },
    discard: { job: "stop", name: "Stop and discard", grave: true, run: async (row) => {
      if (await studio.inquire({
        title: say("Stop and discard?"),
        text:
        say("The run ends now. Nothing of what it learnt since its last checkpoint is kept, and no model is "
          + "written."),
        act: say("Stop and discard"), grave: true
      }))
        act(row, "stop", true);
    } },
    pause: {
      job: "pause", name: "Pause",
      title: "Saves a checkpoint, frees the device and waits in the queue until you resume it.",
      run: (row) => act(row, "pause")
    },
    save: {
      job: "ask", name: "Save a checkpoint now",
      run: (row) => ask(row, "save", say("A checkpoint is written after this step."))
    },
    evaluate: {
      job: "ask", name: "Evaluate now",
      run: (row) => ask(row, "evaluate", say("The held-out rows are measured after this step."))
    },
    sample: {
      job: "ask", name: "Sample now",
      run: (row) => ask(row, "sample", say("The sample prompts are answered after this step."))
    },
    resume: {
      job: "resume", name: "Resume", title: "Goes on from the newest checkpoint; without one, from the start.",
      run: (row) => act(row, "resume")
    },
    finish: {
      job: "finish", name: "Make a model of the newest checkpoint",
      title: "For a run that ended without one: no further step is trained.", run: (row) => act(row, "finish")
    },
    extend: {
      job: "extend", name: "Train further…", title: "Goes on from the last checkpoint for more epochs.",
      run: async (row) => {
        const epochs = await studio.inquire({
          title: say("Train further"), text: say("The run goes on where it ended, for so many epochs more."),
          field: { label: say("Epochs"), value: "1", type: "number" }, act: say("Start")
        });
        if (epochs) act(row, "extend", Number(epochs));
      } },
    duplicate: {
      name: "Use as a new order", title: "Opens Tune with this run's settings; nothing is started.",
      run: (row) => studio.reuse(row.id)
    },
    rename: { job: "label", name: "Rename…", run: async (row) => {
      const name = await studio.inquire({
        title: say("Rename"), field: { label: say("Name"), value: row.name }, act: say("Rename")
      });
      if (name != null) { await act(row, "label", { name: name.trim() }); locks.delete(row.id); }
    } },
    note: { job: "label", name: "Note…", run: async (row) => {
      const note = await studio.inquire({
        title: say("Note"),
        field: { label: say("What is worth remembering about this run"), value: row.note || "", long: true },
        act: say("Save")
      });
      if (note != null) { await act(row, "label", { note: note.trim() }); locks.delete(row.id); }
    } },
    first: { job: "move", name: "Start it next", run: (row) => place(row, 1) },
    earlier: { job: "move", name: "Earlier in the queue", run: (row) => place(row, studio.place(row) - 1) },
    later: { job: "move", name: "Later in the queue", run: (row) => place(row, studio.place(row) + 1) },
    star: {
      job: "label", name: "Star",
      run: async (row) => { await act(row, "label", { star: !row.star }); locks.delete(row.id); }
    },
    remove: { job: "delete", name: "Delete…", grave: true, run: async (row) => {
      const size = bytes(row.bytes);
      if (!(await studio.inquire({
        title: say("Delete {name}?", { name: row.name }),
        text: say("Its order, curve, log, checkpoints and model are removed: {size}. This cannot be undone.", { size }),
        act: say("Delete {size}", { size }), grave: true
      })))
        return;
      const gone = await act(row, "delete");
      if (gone) {
        locks.delete(row.id);
        studio.tell({ message: say("Deleted; {size} freed.", { size: bytes(gone.bytes) }) }, "good");
        if (gone.note) studio.tell({ message: gone.note });
        if (live.open === row.id) studio.open("runs", { run: null });
      }
    } },
  };
  const BY_STATE = {
    queued: [["cancel"], ["first", "earlier", "later", "duplicate", "rename", "note"]],
    starting: [["stop"], ["discard", "pause", "duplicate", "rename", "note"]],
    running: [["stop"], ["pause", "save", "evaluate", "sample", "discard", "duplicate", "rename", "note"]],
    stopping: [[], ["duplicate", "rename", "note"]],
    finished: [[], ["extend", "duplicate", "rename", "note", "remove"]],
    stopped: [["resume"], ["finish", "duplicate", "rename", "note", "remove"]],
    // the call has the button
    failed: [[], ["resume", "finish", "duplicate", "rename", "note", "remove"]],
    lost: [[], ["resume", "finish", "duplicate", "rename", "note", "remove"]],
  };

  // Calls a job that makes a run, and opens the run's page.
  studio.makeRun = async (job, ...values) => {
    const made = await studio.perform(job, ...values);
    if (!made?.run) return null;
    live.hurry();
    studio.open("runs", { run: made.run, compare: null });
    return made;
  };
  studio.repair = async (row, one) => {
    const done = await act(row, "repair_run", one.change);
    if (done && done.run !== row.id) { locks.delete(row.id); studio.open("runs", { run: done.run }); }
  };
  // Opens Tune with the order of a run in it.
  studio.reuse = async (id) => {
    const answer = await studio.ask("studio-bar", "order", { id }).catch(() => null);
    if (!answer?.plain) { studio.tell({ message: say("The order of this run cannot be read.") }); return; }
    studio.order.replace(answer.plain, "run");
    studio.open("tune", { run: null });
  };

  // Nothing stands before the first in the queue, nothing behind the last.
  const idle = (row, name) => studio.locked(row) || (["first", "earlier"].includes(name) && studio.place(row) <= 1)
    || (name === "later" && studio.place(row) >= studio.queue().length) || (name === "finish" && row.saved);
  const actButton = (row, name, kind = "") =>
    button(`button ${kind} ${ACTS[name].grave ? "grave" : ""}`, say(ACTS[name].name), () => ACTS[name].run(row),
      { job: ACTS[name].job, title: ACTS[name].title ? say(ACTS[name].title) : null, disabled: idle(row, name) });

  // The buttons of a run in its state: what is said first, and a menu for the rest.
  studio.acts = (row) => {
    const [first, more] = BY_STATE[row.state] || [[], []];
    const node = make("div", { class: "acts" });
    if (studio.locked(row))
      node.append(make("span", { class: "spinner", role: "status", "aria-label": say("Waiting for the run") }));
    for (const name of row.hold ? ["resume", ...first] : first) node.append(actButton(row, name));
    if (more.length) node.append(studio.menu(row, more));
    return node;
  };
  // ↑ and ↓ beside a run that waits, with its place.
  studio.steps = (row) => {
    if (row.state !== "queued" || studio.queue().length < 2) return null;
    const step = (name, sign) => button("chip step", sign, () => ACTS[name].run(row),
      { job: "move", "data-key": `${name} ${row.id}`, disabled: idle(row, name),
        "aria-label": `${row.name}: ${say(ACTS[name].name)}`, title: say(ACTS[name].name) });
    return make("span", { class: "steps" },
      make("span", { class: "quiet num" },
        say("{place} of {n}", { place: studio.place(row), n: studio.queue().length })),
      step("earlier", "↑"), step("later", "↓"));
  };
  const TRAINED = ["extend", "duplicate", "finish"]; // of a run that was combined there is no order to train from
  const ONE = [...TRAINED, "save", "evaluate", "sample"]; // what a race of several settings cannot be asked
  studio.menu = (row, names = (BY_STATE[row.state] || [[], []]).flat()) => {
    if (row.combined) names = names.filter((name) => !TRAINED.includes(name));
    if (row.race) names = names.filter((name) => !ONE.includes(name));
    const list = make("div", { class: "menu-list", role: "menu" },
      names.map((name) => button(ACTS[name].grave ? "grave" : "", say(ACTS[name].name),
        () => { box.open = false; box.firstChild.focus(); ACTS[name].run(row); },
        { role: "menuitem", job: ACTS[name].job, title: ACTS[name].title ? say(ACTS[name].title) : null,
          disabled: idle(row, name) })));
    const box = make("details",
      { class: "menu", ontoggle: () => { if (box.open) list.querySelector("button")?.focus(); },
        onkeydown: (event) => {
          if (event.key === "Escape" && box.open) { event.stopPropagation(); box.open = false; box.firstChild.focus(); }
        }
      },
      make("summary", { "aria-label": say("More"), title: say("More") }, "⋯"), list);
    box.addEventListener("focusout", (event) => {
      if (!box.contains(event.relatedTarget))
        setTimeout(() => { if (!box.contains(document.activeElement)) box.open = false; }, 120);
    });
    return box;
  };
  studio.ACTS = ACTS;
})();
