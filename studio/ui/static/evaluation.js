// The evaluation of a run by answers: start and stop it, the verdict, figures of base and tuned with their intervals, and
// the table of answers.
(() => {
  const studio = window.studio, make = studio.element;
  studio.resultCards = studio.resultCards || [];
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
    : key in RAW ? studio.number(value, RAW[key]) : `${studio.number(100 * value, value < 0.1 ? 1 : 0)} %`);
  const between = (key, range) => (range
    ? studio.say("{low} to {high}", { low: figure(key, range[0]), high: figure(key, range[1]) })
    : "");
  studio.metricName = (key) => studio.say((FIGURES.find(([name]) => name === key) || [key, key])[1]);

  const card = () => {
    const node = make("section", { class: "card evaluation" });
    let row = null, seen = null, results = null, streamed = [], timer = null, key = null, begun = 0;
    let order = "worst", shownRows = PAGE, settings = { rows: 200, regex: "", open: false };

    const going = () => seen?.state === "going" || Date.now() - begun < 10000;
    const ready = () => row && row.saved && !["starting", "running", "stopping", "queued"].includes(row.state);
    const begin = async () => {
      const wanted = { rows: settings.rows };
      if (settings.regex) wanted.regex = settings.regex;
      begun = Date.now(); streamed = [];
      draw();
      try { await studio.call("evaluate", row.id, wanted); } catch (problem) { begun = 0; studio.tell(problem); }
      look();
    };
    const stop = async () => {
      begun = 0;
      try { await studio.call("stop_evaluation", row.id); } catch (problem) { studio.tell(problem); }
      look();
    };
    const file = async (kind) => {
      try {
        studio.save(await studio.askFile("studio-bar", "evaluation_file", { id: row.id, kind }),
          `${row.id}-evaluation.${kind}`);
      } catch (problem) { studio.tell(studio.trouble(problem)); }
    };

    const head = () => make("h3", {}, studio.say("Is it better than before?"));
    const form = () => {
      const count = make("input", {
        type: "number", class: "field", min: "1", max: "5000", value: String(settings.rows),
        onchange: () => { settings.rows = Math.min(5000, Math.max(1, Math.round(Number(count.value)) || 200)); }
      });
      const pattern = make("input", {
        type: "text", class: "field", value: settings.regex, placeholder: studio.say("none"),
        onchange: () => { settings.regex = pattern.value.trim(); }
      });
      return make("details", {
        class: "evaluation-settings", open: settings.open || null,
        ontoggle: (event) => { settings.open = event.target.open; }
      }, make("summary", {}, studio.say("Settings")),
        make("label", {}, studio.say("Questions at most"), count),
        make("label", {}, studio.say("Pattern that an answer must match"), pattern));
    };
    const button = (text, kind) => make("button",
      { type: "button", job: "evaluate", class: `button ${kind}`, onclick: begin }, text);

    const progress = () => {
      const done = seen?.done || 0, all = seen?.of || 0;
      const doing = seen?.state === "going" && seen.doing ? studio.told(seen.doing) : studio.say("Starting…");
      return [make("p", { class: "doctor-now", role: "status" }, make("span", { class: "spinner" }),
        make("span", {}, doing), all ? make("span", { class: "quiet num" }, studio.say("{n} of {all} answers",
          { n: studio.number(done), all: studio.number(all) })) : null),
      all
        ? make("span", { class: "row-meter doctor-meter", role: "img",
          "aria-label": studio.say("{n} of {all} answers", { n: done, all }) },
          make("i", { style: `width:${(100 * done) / all}%` }))
        : null,
      make("p", { class: "quiet" }, studio.say("A run that is ordered meanwhile waits. This page may be closed.")),
      make("div", { class: "acts" }, make("button", {
        type: "button", job: "stop_evaluation", class: "button", onclick: stop
      }, studio.say("Stop and keep what is answered"))),
      streamed.length ? table(streamed, true) : null];
    };

    const MARKS = { better: "good", worse: "bad", same: "", few: "" };
    const verdict = (one) => make("p", { class: `verdict ${MARKS[one.state]}` },
      make("b", {}, studio.told(one.text).replaceAll(" %", "\u00a0%")));
    const figures = (base, tuned, difference = {}) => {
      const lines = FIGURES.filter(([name]) => tuned?.[name] != null || base?.[name] != null);
      return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": studio.say("Figures") },
        make("table", { class: "simple figures-table" },
          make("thead", {}, make("tr", {}, ["Figure", "Base", "Tuned", "Difference"]
            .map((name) => make("th", { scope: "col" }, studio.say(name))))),
          make("tbody", {}, lines.map(([name, label]) => {
            const cell = (side) => make("td", { class: "num" }, figure(name, side?.[name]),
              make("small", { class: "quiet" }, between(name, side?.intervals?.[name])));
            const change = difference[name];
            const sure = change && change.low != null && (change.low > 0 || change.high < 0);
            const good = change && (["loss", "perplexity"].includes(name) ? change.value < 0 : change.value > 0);
            const neutral = ["length", "ended"].includes(name);
            return make("tr", {}, make("th", { scope: "row" }, studio.say(label)), cell(base), cell(tuned),
              make("td", { class: `num ${sure && !neutral ? (good ? "good" : "bad") : ""}` },
                change ? `${change.value > 0 ? "+" : ""}${figure(name, change.value)}` : "–",
                make("small", { class: "quiet" }, change?.low != null ? between(name, [change.low, change.high]) : "")));
          }))));
    };

    const mainScore = (one) => {
      const name = results?.verdict?.metric;
      const metric = name && name !== "loss" && name in one.scores.tuned ? name : "rouge_l";
      return { metric, base: one.scores.base[metric], tuned: one.scores.tuned[metric] };
    };
    const similar = (one, side) => MORE.filter((name) => name in one.scores[side])
      .reduce((sum, name) => sum + one.scores[side][name] / (name in RAW ? 100 : 1), 0);
    const ORDERS = {
      worst: ["Worst first", (a, b) => mainScore(a).tuned - mainScore(b).tuned || similar(a, "tuned") - similar(b, "tuned")],
      best: ["Best first", (a, b) => mainScore(b).tuned - mainScore(a).tuned || similar(b, "tuned") - similar(a, "tuned")],
      changed: ["Most changed first", (a, b) => b.change - a.change],
      row: ["As in the data", (a, b) => a.row - b.row]
    };
    const answer = (text, reference, finish) => make("td", { class: "answer-cell" },
      finish === "stop" || finish === "length" || !finish ? null : make("small", { class: "bad" }, studio.say(
        finish === "too long" ? "The question has no room in the model's context." : "Not answered.")),
      make("div", { class: "answer" }, text),
      finish === "length" ? make("small", { class: "quiet" }, studio.say("cut at the longest answer")) : null);
    const table = (rows, live = false) => {
      const sorted = live ? [...rows].reverse() : [...rows].sort(ORDERS[order][1]);
      const score = (one) => {
        const { metric, base, tuned } = mainScore(one);
        return make("td", { class: `num ${tuned > base ? "good" : tuned < base ? "bad" : ""}` },
          `${figure(metric, base)} → ${figure(metric, tuned)}`);
      };
      return make("div", { class: "scroll answers", tabindex: "0", role: "region",
        "aria-label": studio.say("Answers") },
        make("table", { class: "simple" }, make("thead", {}, make("tr", {},
          ["Row", "Question", "In the data", "Base", "Tuned", studio.metricName(rows[0] ? mainScore(rows[0]).metric : "rouge_l")]
            .map((name) => make("th", { scope: "col" }, studio.say(name))))),
        make("tbody", {}, sorted.slice(0, live ? 10 : shownRows).map((one) => make("tr", {},
          make("td", { class: "num" }, studio.number(one.row)),
          make("td", { class: "answer-cell" }, make("div", { class: "answer" }, one.prompt)),
          make("td", { class: "answer-cell" }, make("div", { class: "answer" }, one.reference)),
          answer(one.base, one.reference, one.finish?.base), answer(one.tuned, one.reference, one.finish?.tuned),
          score(one))))));
    };
    const tools = () => {
      const pick = make("select", {
        class: "field", "aria-label": studio.say("Order of the answers"),
        onchange: () => { order = pick.value; shownRows = PAGE; draw(); }
      }, Object.entries(ORDERS).map(([name, [label]]) => make("option", { value: name }, studio.say(label))));
      pick.value = order;
      return make("div", { class: "evaluation-tools" }, pick,
        make("button", { type: "button", class: "button", onclick: () => file("csv") }, studio.say("Table as CSV")),
        make("button", { type: "button", class: "button", onclick: () => file("json") }, studio.say("All as JSON")));
    };
    const outcome = () => {
      const stopped = results.state === "stopped";
      const about = [studio.say("{n} questions answered by both", { n: studio.number(results.tuned.answered) }),
        studio.duration(results.seconds), studio.say("95 % intervals by bootstrap"),
        stopped ? studio.say("stopped before the end") : null].filter(Boolean).join(" · ");
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
              ? make("button", { type: "button", class: "button", onclick: () => { shownRows += PAGE; draw(); } },
                studio.say("Show more"))
              : results.of > results.table.length
              ? make("p", { class: "quiet" }, studio.say("The files hold all {n} rows.", { n: studio.number(results.of) }))
              : null]
          : [make("p", { class: "quiet" }, studio.say("Plain text holds no questions: it is measured by its loss."))]),
        make("div", { class: "acts" }, button(studio.say("Evaluate again"), "")), form()];
    };
    const offer = () => [make("p", { class: "quiet" },
      studio.say("Base and tuned model answer the held-out questions, and the answers are compared with those in the "
        + "data: exact matches, similarity, labels or JSON where the data has them.")),
    seen?.metrics?.base ? figures(seen.metrics.base, seen.metrics.tuned) : null,
    ready()
      ? make("div", { class: "acts" }, button(studio.say("Evaluate by answers"), "primary"))
      : make("p", { class: "quiet" }, studio.say("It can be evaluated when it has a result.")),
    ready() ? form() : null];

    const draw = () => {
      const failed = seen?.state === "failed" && !going()
        ? make("div", { class: "call bad", role: "alert" }, make("div", {},
          make("b", {}, studio.told(seen.error.message)), make("p", {}, studio.told(seen.error.hint || ""))))
        : seen?.state === "cut off" && !going()
        ? make("p", { class: "bad" }, studio.say("The last evaluation was cut off."))
        : null;
      const body = going() ? progress() : results ? outcome() : offer();
      node.replaceChildren(...[head(), failed, ...body].flat().filter(Boolean));
    };
    const look = async () => {
      clearTimeout(timer);
      const id = row?.id;
      if (!id || studio.tab() !== "runs" || document.hidden) { timer = id ? setTimeout(look, 3000) : null; return; }
      const answer = await studio.ask("studio-bar", "evaluation",
        { id, rows: streamed.length, mark: results ? String(results.at) : "" }).catch(() => null);
      if (row?.id !== id) return;
      if (answer) {
        streamed = answer.state === "going" ? [...streamed, ...(answer.rows || [])] : [];
        if (answer.results) results = answer.results;
        if (answer.state === "going" || answer.state === "failed") begun = 0;
        if (results && seen?.state === "going" && answer.state !== "going") begun = 0;
        seen = { ...answer, rows: null, results: null };
      }
      const now = JSON.stringify([seen, results?.at, streamed.length, studio.language, row.state, row.saved, going()]);
      if (now !== key) { key = now; draw(); }
      timer = setTimeout(look, going() ? 1500 : 10000);
    };
    window.addEventListener("studio:language", () => { if (row) draw(); });
    return {
      node,
      show(wanted) {
        const changed = wanted?.id !== row?.id || wanted?.state !== row?.state || wanted?.saved !== row?.saved;
        if (wanted?.id !== row?.id && wanted) {
          seen = results = key = null; streamed = []; begun = 0; shownRows = PAGE;
          node.replaceChildren(head(), make("p", { class: "quiet" }, studio.say("Reading…")));
        }
        row = wanted;
        if (!wanted) { clearTimeout(timer); return; }
        if (changed || !timer) look();
      },
    };
  };
  studio.resultCards.push(card);
})();
