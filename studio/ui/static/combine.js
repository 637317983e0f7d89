// Combining: the question before it, and on the run's page what it was made of and what it is worth.
(() => {
  const studio = window.studio, { element: make, say } = studio;
  const WAYS = [["cat", "Weighted sum"], ["svd", "Weighted sum, smaller"], ["linear", "Linear"], ["ties", "TIES"],
    ["dare_linear", "DARE"], ["dare_ties", "DARE and TIES"]];
  const PRUNING = ["ties", "dare_linear", "dare_ties"];
  const ABOUT = {
    cat: "The exact weighted sum of the changes. Ranks may differ; the rank of the result is their sum.",
    svd:
    "The weighted sum of the changes, brought back to the largest of their ranks by singular values. Slow on large "
      + "models.",
    linear:
    "The matrices A and B are averaged apart: as small as one adapter, and only roughly the sum of the changes. "
      + "Needs equal ranks.",
    ties: "TIES: small numbers are dropped and signs agreed on before A and B are averaged. Needs equal ranks.",
    dare_linear:
    "DARE: numbers are dropped at random, the others scaled up, before A and B are averaged. Needs equal ranks.",
    dare_ties: "DARE, then signs are agreed on as in TIES. Needs equal ranks.",
  };

  // Whether these rows of the table can be combined, as far as the page knows; the studio looks closer.
  studio.combinable = (rows) => rows.length > 1
    && rows.every((row) => row.saved && ["lora", "qlora"].includes(row.method)
      && row.state !== "queued" && !studio.isAlive(row.state));

  studio.combine = async (rows) => {
    const even = String(Math.round(1000 / rows.length) / 1000);
    const wanted = await studio.inquire({ title: say("Combine {n} adapters", { n: rows.length }),
      text:
      say("They become one new adapter, in a run of its own. It is measured on the rows that each of them "
        + "held out."),
      fields: [
        {
          key: "how", label: say("Way"), value: "cat",
          choices: WAYS.map(([key, name]) => [key, say(name)]), note: (values) => say(ABOUT[values.how])
        },
        ...rows.map((row, place) => ({
          key: `weight ${place}`, label: say("Weight of {name}", { name: row.name }), value: even,
          type: "number", step: "any"
        })),
        {
          key: "density", label: say("Share of numbers to keep"), value: "0.5", type: "number", step: "any",
          shown: (values) => PRUNING.includes(values.how)
        },
        { key: "name", label: say("Name"), value: rows.map((row) => row.name).join(" + ").slice(0, 100) }],
      act: say("Combine") });
    if (wanted)
      await studio.makeRun("combine", rows.map((row) => row.id),
        rows.map((_, place) => Number(wanted[`weight ${place}`])), wanted.how,
        PRUNING.includes(wanted.how) ? Number(wanted.density) : null, wanted.name.trim());
  };

  // What a combination was made of, and the losses on each run's held-out rows: the lowest of a line stands out.
  studio.combined = (row, track) => {
    const { how, runs, weights, density } = row.combined;
    const link = (id) => studio.runLink(id, studio.runName(id));
    const table = (track?.others || []).findLast((event) => event.kind === "eval" && event.table)?.table;
    const doing = (track?.others || []).findLast((event) => event.kind === "phase" && event.detail)?.detail;
    const cells = (one) => [["base", one.base], ...runs.map((id) => [id, one.parents[id]]), ["combined", one.combined]];
    const number = (one, [key, value]) => make("td", {
      class: `num ${value === Math.min(...cells(one).map(([, each]) => each ?? Infinity)) ? "best" : ""}`,
      "data-key": key
    }, value == null ? "–" : value.toFixed(4));
    return make("div", { class: "combined" }, make("h3", {}, say("Made of")),
      make("ul", {},
        runs.map((id, place) => make("li", {},
          make("span", { class: "num quiet" }, `${studio.number(weights[place], 3)} ×`), " ", link(id)))),
      make("p", { class: "quiet" }, say(ABOUT[how]),
        density == null ? "" : ` ${say("Share of numbers kept: {n}.", { n: studio.number(density, 2) })}`),
      make("h3", {}, say("Held-out loss")),
      table
        ? [studio.table(["Held-out rows of", "Base", ...runs.map((id) => [studio.runName(id)]), "Combined"],
          table.map((one) => [
            [studio.runName(one.run), make("span", { class: "quiet num" }, ` ${say("{n} rows", { n: one.rows })}`)],
            ...cells(one).map((cell) => number(one, cell))]), { label: say("Held-out loss") }),
          make("p", { class: "quiet" },
            say("Lower is better; the lowest of each line is bold. On its own rows a run is hard to beat: what "
              + "counts is how little is lost there."))]
        : make("p", { class: "quiet" },
          doing && ["starting", "running"].includes(row.state) ? say("{done} rows measured.", { done: doing })
          : ["finished", "failed", "lost", "stopped"].includes(row.state)
          ? say("Nothing was measured.")
          : say("Measured when the adapters have been combined.")));
  };
})();
