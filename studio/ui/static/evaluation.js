// The evaluation of a run by answers: start and stop it, the verdict, figures of base and tuned with their intervals,
// and the table of answers.
(() => {
  const studio = window.studio, { element: make, button, say, number, duration } = studio;
  const PAGE = 50;
  const FIGURES = [["exact_match", "Exact match"], ["label_accuracy", "Right labels"], ["macro_f1", "Macro F1"],
    ["json_valid", "Valid JSON"], ["json_schema", "Fulfils the schema"], ["json_equal", "The same JSON"],
    ["regex", "Matches the pattern"], ["rouge_l", "ROUGE-L"], ["chrf", "chrF"], ["bleu", "BLEU"],
    ["ended", "Ended by itself"], ["length", "Tokens an answer"], ["loss", "Held-out loss"],
    ["perplexity", "Perplexity"], ["token_accuracy", "Token accuracy"]];
  const RAW = { chrf: 1, bleu: 1, length: 1, loss: 3, perplexity: 2 }; // digits; the others are shares in percent
  const MORE = ["exact_match", "label_accuracy", "json_valid", "json_equal", "json_schema", "regex", "rouge_l", "chrf",
    "bleu"];

  const figure = (key, value) => (value == null
    ? "–"
    : key in RAW ? number(value, RAW[key]) : `${number(100 * value, value < 0.1 ? 1 : 0)} %`);
  // A difference: of two shares it is in percentage points.
  const gap = (key, value) => `${value > 0 ? "+" : ""}${key in RAW
    ? number(value, RAW[key])
    : say("{n} points", { n: number(100 * value, Math.abs(value) < 0.1 ? 1 : 0) })}`;
  const between = (key, range) => (range
    ? say("{low} to {high}", { low: figure(key, range[0]), high: figure(key, range[1]) })
    : "");
  studio.metricName = (key) => say((FIGURES.find(([name]) => name === key) || [key, key])[1]);

  const evaluationCard = () => {
    let streamed = [], order = "worst", shownRows = PAGE, settings = { rows: 200, regex: "", open: false };
    const begin = () => card.begin("evaluate",
      settings.regex ? { rows: settings.rows, regex: settings.regex } : { rows: settings.rows });
    const file = async (kind) => {
      try {
        studio.save(await studio.askFile("studio-bar", "evaluation_file", { id: card.row.id, kind }),
          `${card.row.id}-evaluation.${kind}`);
      } catch (problem) { studio.tell(studio.trouble(problem)); }
    };

    const head = () => make("h3", { "aria-level": "2" }, say("Is it better than before?"));
    const form = () => {
      const count = make("input", {
        type: "number", class: "field", min: "1", max: "5000", value: String(settings.rows),
        onchange: () => { settings.rows = Math.min(5000, Math.max(1, Math.round(Number(count.value)) || 200)); }
      });
      const pattern = make("input", {
        type: "text", class: "field", value: settings.regex, placeholder: say("none"),
        onchange: () => { settings.regex = pattern.value.trim(); }
      });
      return make("details", {
        class: "evaluation-settings", open: settings.open || null,
        ontoggle: (event) => { settings.open = event.target.open; }
      }, make("summary", {}, say("Settings")),
        make("label", {}, say("Questions at most"), count),
        make("label", {}, say("Pattern that an answer must match"), pattern));
    };
    const starter = (text, kind) => button(`button ${kind}`, text, begin, { job: "evaluate" });

    const MARKS = { better: "good", worse: "bad", same: "", few: "" };
    const verdict = (one) => make("p", { class: `verdict ${MARKS[one.state]}` },
      make("b", {}, studio.told(one.text).replaceAll(" %", "\u00a0%")));
    const figures = (base, tuned, difference = {}) => {
      const lines = FIGURES.filter(([name]) => tuned?.[name] != null || base?.[name] != null);
      return studio.table(["Figure", "Base", "Tuned", "Difference"], lines.map(([name, label]) => {
        const cell = (side) => make("td", { class: "num" }, figure(name, side?.[name]),
          make("small", { class: "quiet" }, between(name, side?.intervals?.[name])));
        const change = difference[name] || (base?.[name] != null && tuned?.[name] != null
          ? { value: tuned[name] - base[name] }
          : null);
        const sure = change && change.low != null && (change.low > 0 || change.high < 0);
        const good = change && (["loss", "perplexity"].includes(name) ? change.value < 0 : change.value > 0);
        const neutral = ["length", "ended"].includes(name);
        return [say(label), cell(base), cell(tuned),
          make("td", { class: `num ${sure && !neutral ? (good ? "good" : "bad") : ""}` },
            change ? gap(name, change.value) : "–",
            make("small", { class: "quiet" }, change?.low != null
              ? say("{low} to {high}", { low: gap(name, change.low), high: gap(name, change.high) })
              : ""))];
      }), { label: say("Figures"), kind: "figures-table" });
    };

    const mainScore = (one) => {
      const name = card.results?.verdict?.metric;
      const metric = name && name !== "loss" && name in one.scores.tuned ? name : "rouge_l";
      return { metric, base: one.scores.base[metric], tuned: one.scores.tuned[metric] };
    };
    const similar = (one, side) => MORE.filter((name) => name in one.scores[side])
      .reduce((sum, name) => sum + one.scores[side][name] / (name in RAW ? 100 : 1), 0);
    const ORDERS = {
      worst: ["Worst first", (a, b) => mainScore(a).tuned - mainScore(b).tuned
        || similar(a, "tuned") - similar(b, "tuned")],
      best: ["Best first", (a, b) => mainScore(b).tuned - mainScore(a).tuned
        || similar(b, "tuned") - similar(a, "tuned")],
      changed: ["Most changed first", (a, b) => b.change - a.change],
      row: ["As in the data", (a, b) => a.row - b.row]
    };
    const answer = (text, finish, taught = null) => make("td", { class: "answer-cell" },
      finish === "stop" || finish === "length" || !finish ? null : make("small", { class: "bad" }, say(
        finish === "too long" ? "The question has no room in the model's context." : "Not answered.")),
      make("div", { class: "answer" }, text),
      finish === "length" ? make("small", { class: "quiet" }, say("cut at the longest answer")) : null, taught);
    const taught = (one) => (card.ready() && card.row.method !== "full" && one.tuned
      ? studio.taughtButton(card.row.id, one.prompt, one.tuned) : null);
    const table = (rows, live = false) => {
      const sorted = live ? [...rows].reverse() : [...rows].sort(ORDERS[order][1]);
      const score = (one) => {
        const { metric, base, tuned } = mainScore(one);
        return make("td", { class: `num ${tuned > base ? "good" : tuned < base ? "bad" : ""}` },
          `${figure(metric, base)} → ${figure(metric, tuned)}`);
      };
      return studio.table(["Row", "Question", "In the data", "Base", "Tuned",
        [studio.metricName(rows[0] ? mainScore(rows[0]).metric : "rouge_l")]],
        sorted.slice(0, live ? 10 : shownRows).map((one) =>
          [make("td", { class: "num" }, number(one.data_row || one.row)),
          answer(one.prompt), answer(one.reference), answer(one.base, one.finish?.base),
          answer(one.tuned, one.finish?.tuned, taught(one)), score(one)]),
        { label: say("Answers"), frame: "answers" });
    };
    const tools = () => {
      const pick = studio.select(Object.entries(ORDERS).map(([name, [label]]) => [name, say(label)]), order,
        (name) => { order = name; shownRows = PAGE; card.draw(); },
        { class: "field", "aria-label": say("Order of the answers") });
      return make("div", { class: "evaluation-tools" }, pick,
        button("button", say("Table as CSV"), () => file("csv")),
        button("button", say("All as JSON"), () => file("json")));
    };
    const outcome = () => {
      const results = card.results;
      const stopped = results.state === "stopped";
      const about = [say("{n} questions answered by both", { n: number(results.tuned.answered) }),
        duration(results.seconds), say("95 % intervals by bootstrap"),
        stopped ? say("stopped before the end") : null].filter(Boolean).join(" · ");
      return [results.verdict ? verdict(results.verdict) : null,
        results.verdict_by_loss && results.verdict?.metric !== "loss"
          ? make("p", { class: "quiet" }, studio.told(results.verdict_by_loss.text))
          : null,
        make("p", { class: "quiet num" }, about),
        ...results.notes.map((note) => make("p", { class: "quiet" }, studio.told(note))),
        figures(results.base, results.tuned, results.difference),
        ...(results.table.length
          ? [tools(), table(results.table),
            results.table.length > shownRows
              ? button("button", say("Show more"), () => { shownRows += PAGE; card.draw(); })
              : results.of > results.table.length
              ? make("p", { class: "quiet" }, say("The files hold all {n} rows.", { n: number(results.of) }))
              : null]
          : [make("p", { class: "quiet" }, say("Plain text holds no questions: it is measured by its loss."))]),
        make("div", { class: "acts" }, starter(say("Evaluate again"), "")), form()];
    };
    const offer = () => [make("p", { class: "quiet" },
      say("Base and tuned model answer the held-out questions, and the answers are compared with those in the "
        + "data: exact matches, similarity, labels or JSON where the data has them.")),
      card.seen?.metrics?.base && card.row.stage !== "grpo"
      ? figures(card.seen.metrics.base, card.seen.metrics.tuned) : null,
      card.ready()
      ? make("div", { class: "acts" }, starter(say("Evaluate by answers"), "primary"))
      : make("p", { class: "quiet" }, say("It can be evaluated when it has a result.")),
      card.ready() ? form() : null];

    const card = studio.jobCard({
      read: "evaluation", stop: "stop_evaluation", stopLabel: () => say("Stop and keep what is answered"),
      cutOff: () => say("The last evaluation was cut off."), head,
      body: () => (card.results ? outcome() : offer()),
      count: (done, all) => say("{n} of {all} answers", { n: number(done), all: number(all) }),
      streamed: () => (streamed.length ? table(streamed, true) : null),
      progress: () => streamed.length,
      question: () => ({ rows: streamed.length }),
      begun: () => { streamed = []; },
      take: (answer) => { streamed = answer.state === "going" ? [...streamed, ...(answer.rows || [])] : []; },
      reset: () => { streamed = []; shownRows = PAGE; }
    });
    return card;
  };
  studio.resultCards.push(evaluationCard);
})();
