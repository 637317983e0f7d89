// What a run's page says above the curves: what went wrong and what would help, what comes next, warnings.
(() => {
  const studio = window.studio, { element: make, button, say, bytes } = studio;
  const ANEW = ["order", "data", "template", "model"]; // what a resume would meet again

  // After an out-of-memory, or a loss that blew up: what would help, ranked, each one click away.
  const repairs = (row) => {
    const list = make("div", { class: "repairs", hidden: true });
    studio.ask("studio-bar", "repairs", { id: row.id }).then((answer) => {
      if (!answer.repairs.length) { list.remove(); return; }
      const rows = answer.repairs.map((one, place) => make("div", { class: "repair" },
        make("div", {}, make("b", {}, studio.told(one.text)),
          make("p", { class: "quiet" },
            [one.saves ? say("saves about {size}", { size: bytes(one.saves) }) : null,
              studio.told(one.cost)].filter(Boolean)
              .join(" · "))),
        button(`button ${place ? "" : "primary"}`, one.resumes ? say("Resume with it") : say("Start anew with it"),
          () => studio.repair(row, one), { job: "repair_run", disabled: studio.locked(row) })));
      list.hidden = false;
      list.append(make("h3", { "aria-level": "2" },
        say(row.reason === "nan" ? "What would help" : "What would make it fit")),
        ...rows.slice(0, 3));
      if (rows.length > 3)
        list.append(make("details", { class: "repairs-more" },
          make("summary", {}, say("{n} more", { n: rows.length - 3 })), rows.slice(3)));
    }).catch(() => list.remove());
    return list;
  };

  // SFT, then DPO: one click where preference data was uploaded.
  const aligning = (row) => {
    const box = make("div", { class: "call info", hidden: true });
    const start = async (one) => {
      const made = await studio.perform("align", row.id, one.source);
      if (made?.run) studio.open("runs", { run: made.run });
    };
    const look = async (one) => {
      const answer = await studio.ask("studio-bar", "alignment", { id: row.id, name: one.source }).catch(studio.tell);
      if (!answer?.order) return;
      studio.order.replace(answer.order, "run");
      studio.open("tune", { run: null });
    };
    studio.ask("studio-bar", "preferences", { id: row.id, lang: studio.language }).then(({ sources, fault }) => {
      if (!sources.length) { box.remove(); return; }
      const about = fault
        ? `${fault.message} ${fault.hint}`
        : say("It goes on from here: what it learnt stays, and is what it is compared with.");
      box.append(make("div", {}, make("b", {}, say("Teach it which answers to prefer.")), make("p", {}, about)),
        ...(fault
          ? []
          : sources.map((one) => button("button", say("{stage} on {name}", { stage: one.label, name: one.name }),
            () => start(one), { job: "align" }))),
        fault ? "" : button("plain", say("Look at the settings first"), () => look(sources[0])));
      box.hidden = false;
    }).catch(() => box.remove());
    return box;
  };

  studio.runNotes = (track) => (track?.others || []).filter((event) => event.kind === "note" && event.level !== "info")
    .slice(-3);
  studio.runCalls = (row, track, toLog) => {
    const calls = [];
    const call = (...given) => calls.push(studio.callout(...given));
    const log = () => button("button", say("Read the log"), () => toLog());
    if (row.state === "failed" || row.state === "lost")
      call("bad", studio.told(row.cause || (row.state === "lost" ? "The run was cut off." : "The run failed.")),
        studio.told(row.action || ""),
        ["memory", "nan"].includes(row.reason)
          ? null
          : ANEW.includes(row.reason) && !row.combined
          ? button("button primary", say("Change the settings"), () => studio.reuse(row.id))
          : button("button primary", say("Resume"), () => studio.ACTS.resume.run(row),
            { job: "resume", disabled: studio.locked(row) }),
        log());
    if (["failed", "lost"].includes(row.state) && ["memory", "killed", "nan"].includes(row.reason) && !row.race)
      calls.push(repairs(row));
    if (row.state === "stopped" && row.cause) call("warn", studio.told(row.cause), studio.told(row.action || ""));
    if (row.state === "queued")
      call("info", row.hold ? say("This run is paused.") : say("This run waits for the device."),
        row.hold ? say("Resume puts it back in line.") : say("It starts by itself when the run before it has ended."),
        ...[studio.steps(row)].filter(Boolean));
    for (const sign of row.signs || [])
      call(sign.level === "error" ? "bad" : "warn", studio.told(sign.text),
        studio.told(studio.isAlive(row.state) ? sign.action : sign.rule));
    for (const note of studio.runNotes(track))
      call(note.level === "error" ? "bad" : "warn", studio.told(note.text), studio.told(note.hint || ""));
    if (row.state === "finished" && row.race && !row.race.plan)
      call("good", say("The race is over."),
        say("Take the winner's settings, or go on with it as an ordinary run."),
        button("button primary", say("Go on with the winner"), () => studio.keepSetting(row.id),
          { job: "keep_setting" }));
    if (row.state === "finished" && row.stage === "reward")
      call("good", say("Finished. It gives answers a score."),
        say("Take it as a reward of GRPO, or score a file: {command}",
          { command: `python -m studio score ${row.id} FILE` }));
    else if (row.state === "finished" && !row.race)
      call("good", say("Finished. See what it learnt."),
        say("Ask it and the base model the same question, side by side."),
        button("button primary", say("Chat with it"), () => studio.open("chat", { model: row.id, run: null }),
          { job: "chat_ask" }));
    if (row.state === "finished" && !row.race && !row.combined && row.stage !== "reward") calls.push(aligning(row));
    return calls;
  };
})();
