// What a data set is: its figures, how it was read, and what can be named by hand where that was not sure.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  const PARTS = [["prompt", "Question"], ["answer", "Answer"], ["input", "More input"], ["system", "System text"],
    ["reasoning", "Reasoning"], ["messages", "List of turns"]];

  // Of preference data: what is compared, what may be learnt instead, and the stages that learn from it.
  const compared = (found, redraw) => {
    const figures = found.compared, stages = studio.offer?.form.stages || [];
    if (!figures) return [];
    const said = figures.pairs != null
      ? say("{n} pairs; the chosen answer is the longer one in {share} % of them ({a} and {b} characters on "
        + "average).",
        { n: number(figures.pairs), share: number(100 * figures.longer_chosen),
          a: number(figures.characters_chosen), b: number(figures.characters_rejected) })
      : say("{good} good and {bad} bad answers.", { good: number(figures.good), bad: number(figures.bad) });
    const takes = stages.filter((one) => found.stages.includes(one.name));
    return [make("p", { class: "compared" }, said),
      ...found.cautions.map((text) => make("p", { class: "note" }, text)),
      make("div", { class: "compared-stages", role: "group", "aria-label": say("Stage") },
        takes.map((one) => button("chip", make("b", {}, say("Train it with {stage}", { stage: say(one.label) })),
          () => { studio.order.set("stage", { name: one.name }, undefined, "data"); redraw(); },
          { title: say(one.about), "aria-pressed": String(studio.order.stage() === one.name) })))];
  };

  // A file of ratings: pairs are made of it with one click.
  const rated = (found) => {
    if (!found.rated) return [];
    const start = async () => {
      const made = await studio.perform("rated_pairs", studio.order.train());
      if (made?.source) studio.usePairs(made);
    };
    return [make("p", { class: "note" }, say("This file holds rated answers."), " ",
      button("plain", say("Make preference pairs of them"), start, { job: "rated_pairs" }))];
  };

  // The encoding of a text file, chosen by hand: where it is not UTF-8, or not sure.
  const encoded = (wanted) => {
    const chosen = studio.order.get("data.encoding");
    if (!wanted && !(chosen && chosen !== "auto")) return [];
    const names = ["auto", "utf-8", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1251", "koi8_r", "cp1252",
      "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "utf-16"];
    const select = studio.select([...new Set([...names, chosen || "auto"])]
      .map((name) => [name, name === "auto" ? say("recognise it") : name]), chosen || "auto",
      (name) => studio.order.set("data.encoding", name, "auto", "data"), { id: "file-encoding" });
    return [make("div", { class: "columns encoding" },
      make("label", { for: "file-encoding" }, say("Encoding"), select))];
  };

  // What a hint says to name by hand, done with one button.
  const suggested = (found) => {
    const guess = found.suggested;
    if (!guess) return [];
    const turned = { ...guess, prompt: guess.answer, answer: guess.prompt };
    const ways = guess.prompt && guess.answer ? [guess, turned] : [guess];
    const label = (part) => say(Object.fromEntries(PARTS)[part] || part);
    return [make("div", { class: "ways" },
      ways.map((way) => button("button read-suggested", say("Read it this way: {columns}",
        { columns: Object.entries(way).map(([part, column]) => `${label(part)} = ${column}`).join(", ") }),
        () => studio.order.set("data.mapping", { ...(studio.order.get("data.mapping") || {}), ...way },
          undefined, "data"))))];
  };

  // The columns, named by hand: where the layout is not known, or may not be what was meant.
  const naming = (found, wanted) => {
    const mapping = studio.order.get("data.mapping");
    if (!found.columns?.length || !(wanted || mapping)) return [];
    const selects = Object.fromEntries(PARTS.map(([part]) => [part,
      studio.select([["", say("none")], ...found.columns.map((name) => [name, name])],
        mapping?.[part] || found.suggested?.[part] || found.classes?.[part] || "", () => {},
        { id: `column-${part}` })]));
    const trouble = make("p", { class: "quiet small", role: "status" });
    const read = () => {
      const chosen = Object.fromEntries(Object.entries(selects).filter(([, select]) => select.value)
        .map(([part, select]) => [part, select.value]));
      if (!chosen.messages && !(chosen.prompt && chosen.answer)) {
        trouble.textContent = say("Give a question and an answer, or a list of turns.");
        return;
      }
      studio.order.set("data.mapping", chosen, undefined, "data");
    };
    return [make("details", { class: "naming", open: true }, make("summary", {}, say("Name the columns")),
      make("div", { class: "columns", role: "group", "aria-label": say("Which column holds what") },
        PARTS.map(([part, label]) => make("label", { for: `column-${part}` }, say(label), selects[part]))),
      make("div", { class: "row-head" }, trouble,
        mapping
          && button("plain", say("Recognise it again"),
            () => studio.order.set("data.mapping", undefined, undefined, "data"))
          || "",
        button("primary read-so", say("Read it this way"), read)))];
  };

  // Draws what was found of a data set; told: {source, text}, how a new file came about.
  studio.aboutData = (about, found, told) => {
    const redraw = () => studio.aboutData(about, found, told);
    if (!found || found.nothing) {
      about.replaceChildren(make("p", { class: "quiet" },
        say(found ? "Choose a data set on the left, or bring your own file." : "Reading…")));
      return;
    }
    if (found.error) {
      about.replaceChildren(studio.fault(found.error),
        ...suggested(found), ...rated(found),
        ...encoded(found.error.where === "data.encoding"), ...naming(found, true));
      return;
    }
    const figure = (value, label, tone) => make("div", { class: `figure ${tone || ""}` },
      make("b", { class: "num" }, value), make("span", {}, say(label)));
    const total = Math.max(1, found.train + found.held);
    about.replaceChildren(...[
      told?.source === found.source && make("p", { class: "saved-note", role: "status" }, told.text),
      make("div", { class: "figures" }, figure(number(found.rows), "rows in the file"),
        figure(number(found.train), "to train on"),
        figure(number(found.held), "held out to measure on"),
        found.rows - found.kept > 0 && figure(number(found.rows - found.kept), "dropped", "bad")),
      make("div", {
        class: "split", role: "img",
        "aria-label": say("{train} to train on, {held} held out", { train: found.train, held: found.held })
      },
        make("i", { class: "split-train", style: `width:${(100 * found.train) / total}%` }),
        make("i", { class: "split-held", style: `width:${(100 * found.held) / total}%` })),
      make("p", {}, make("span", { class: "tag" }, found.format), make("span", { class: "tag" }, found.container),
        " ",
        found.reason),
      found.made
        && make("p", { class: "quiet small made-from" },
          say("Made in the editor from {name}: {what}.",
            { name: found.made.from, what: studio.editedCounts(found.made.counts) })),
      found.unsure && make("p", { class: "note" }, found.unsure),
      ...suggested(found),
      ...(found.notes || []).map((note) => make("p", { class: "note" }, note)),
      found.unused?.length > 0
        && make("p", { class: "unused small" }, say("Columns not used:"), " ",
          ...found.unused.slice(0, 20).map((name) => make("span", { class: "tag idle" }, name)),
          found.unused.length > 20 && say("and {n} more", { n: number(found.unused.length - 20) }),
          found.classes
            && make("span", { class: "quiet" }, " ",
              say("To learn {label} as the answer to {text}, name the columns below.",
                { label: found.classes.answer, text: found.classes.prompt }))),
      ...compared(found, redraw), ...rated(found),
      ...encoded(!found.encoding?.startsWith("utf-")), ...naming(found, Boolean(found.unsure || found.classes)),
      found.stopped && studio.fault(found.stopped)].filter(Boolean));
  };
})();
