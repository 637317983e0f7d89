// Several runs side by side: their curves in one chart, the settings that differ, the numbers they ended with.
(() => {
  const studio = window.studio, { element: make, say, number, bytes, duration } = studio, live = studio.live;
  const NUMBERS = [["state", "State"], ["train_loss", "Loss"], ["eval_loss_before", "Held-out loss before"],
    ["best_eval_loss", "Best held-out loss"], ["step", "Steps"], ["trainable", "Trained parameters"],
    ["tokens_per_second", "Tokens per second"], ["peak_memory", "Peak memory"], ["seconds", "Time"], ["bytes", "Size"]];

  studio.comparePage = () => {
    const curves = new studio.Curves();
    const head = make("header", { class: "run-head" });
    const tables = make("div", { class: "card compare-tables" });
    const node = make("div", { class: "compare-page", hidden: true }, head, make("div", { class: "card" }, curves.node),
      tables);
    let ids = [], differing = null, answers = [], key = null;
    const row = (id) => live.tracks.get(id)?.status || live.rows.find((one) => one.id === id);
    const name = (id) => row(id)?.name || id;
    const shown = (field, value) => value == null
      ? "–"
      : field === "state"
      ? say(value)
      : field === "seconds"
      ? duration(value)
      : field === "peak_memory" || field === "bytes"
      ? bytes(value)
      : field.includes("loss") ? studio.figure(value) : number(value);
    const table = (title, rows) => [make("h3", {}, title), studio.table(
      [make("span", { class: "hidden-but-read" }, say("Setting")), ...ids.map((id) => [name(id)])],
      rows.map(([label, cells]) => [label, ...cells]), { label: title })];
    const draw = () => {
      const now = JSON.stringify([ids.map((id) => NUMBERS.map(([field]) => shown(field, row(id)?.[field]))),
        ids.map(name), differing, studio.language]);
      if (now === key) return;
      key = now;
      head.replaceChildren(studio.allRuns(), make("h2", {}, say("Compare {n} runs", { n: ids.length })));
      tables.replaceChildren(...table(say("Numbers"),
        NUMBERS.map(([field, label]) => [say(label), ids.map((id) => shown(field, row(id)?.[field]))])),
        ...(differing == null
          ? []
          : differing.length
          ? table(say("Settings that differ"),
            differing.map(({ key: setting, values }) => [make("code", {}, setting),
              values.map((value) => (value == null
                ? "–"
                : Array.isArray(value) ? value.join(", ") : String(value)))]))
          : [make("h3", {}, say("Settings that differ")),
            make("p", { class: "quiet" }, say("None: these runs had the same order."))]),
        ...(answers.length
          ? table(say("Answers to the same prompts"),
            answers.map((asked) => [asked.prompt, asked.answers.map((answer) => answer ?? "–")]))
          : []));
    };
    return {
      node,
      open(wanted) {
        if (wanted.join() !== ids.join()) {
          ids = wanted.slice(0, 8); differing = null; answers = []; key = null;
          studio.ask("studio-bar", "differences", { ids }).then((answer) => {
              if (wanted.slice(0, 8).join() === ids.join()) {
                differing = answer.settings;
                answers = answer.answers;
                draw();
              }
            })
            .catch(() => {});
        }
        live.wantsLog = false;
        live.show(ids[0], ids.slice(1));
        curves.show(ids.map((id) => ({ track: live.track(id), label: name(id) })));
        draw();
      },
      heard(what) {
        if (what.list) curves.entries.forEach((entry) => { entry.label = name(entry.track.id); });
        if (what.list && curves.named !== (curves.named = ids.map(name).join())) curves.drawLegend();
        draw();
        if (what.changed || what.also) curves.all();
      },
    };
  };
})();
