// Benchmarks: a task of lm-eval for base and tuned model, its figures beside each other. The file of a task is a
// program.
(() => {
  const studio = window.studio, { element: make, button, say, duration, date } = studio;

  const benchmarkCard = () => {
    let settings = {};
    const reset = () => { settings = { task: "", limit: "", shots: "", chat: false }; };
    reset();
    const number = (text) => (String(text).trim() ? Number(text) : null);
    const begin = () => {
      if (!settings.task.trim()) { studio.tell({ message: say("Give a task first.") }); return; }
      card.begin("start_benchmark", { task: settings.task.trim(), limit: number(settings.limit),
        shots: number(settings.shots), chat: settings.chat });
    };

    const head = () => make("h3", {}, say("How does it do in benchmarks?"));
    const field = (name, label, more) => {
      const entry = make("input", { class: "field", type: "text", value: String(settings[name]), ...more,
        oninput: () => { settings[name] = entry.value; } });
      return make("label", {}, label, entry);
    };
    const form = () => {
      const chat = make("input", { type: "checkbox", checked: settings.chat,
        onchange: () => { settings.chat = chat.checked; } });
      return make("div", { class: "job-form" },
        field("task", say("Task"), { placeholder: say("arc_easy or mine.yaml"), spellcheck: "false" }),
        field("limit", say("Questions at most"), { type: "number", min: "1", placeholder: say("all") }),
        field("shots", say("Examples before each"), { type: "number", min: "0", max: "100",
          placeholder: say("as the task has them") }),
        make("label", { class: "benchmark-chat" }, chat, say("Ask in the chat template")),
        make("div", { class: "acts" },
          button("button primary", say("Run the benchmark"), begin, { job: "start_benchmark" })),
        make("p", { class: "quiet small" },
          say("A file of one's own needs no network. It can name Python functions: "
            + "that is a program, which runs on this computer, so only the owner may give one.")));
    };

    const value = (one) => [studio.number(one.value, 3),
      one.stderr == null ? null : make("small", { class: "quiet" }, `± ${studio.number(one.stderr, 3)}`)];
    const MARKS = { better: "good", worse: "bad" };
    const line = (one, several) => {
      const { value: change, low, high } = one.difference;
      const sign = (n) => `${n > 0 ? "+" : n < 0 ? "−" : ""}${studio.number(Math.abs(n), 3)}`;
      const metric = one.filter === "none" ? one.metric : `${one.metric}, ${one.filter}`;
      return make("tr", {},
        make("th", { scope: "row" }, several ? make("small", { class: "quiet" }, one.task) : null, metric),
        make("td", { class: "num" }, value(one.base)), make("td", { class: "num" }, value(one.tuned)),
        make("td", { class: `num ${MARKS[one.verdict] || ""}` }, sign(change), low == null
          ? null
          : make("small", { class: "quiet" }, say("{low} to {high}", { low: sign(low), high: sign(high) }))));
    };
    const measurement = (one) => {
      const first = one.table[0] || {}, several = new Set(one.table.map((row) => row.task)).size > 1;
      const about = [first.questions && !several ? say("{n} questions", { n: studio.number(first.questions) }) : null,
        one.limit && several ? say("at most {n} questions each", { n: studio.number(one.limit) }) : null,
        first.shots && !several ? say("{n} examples before each", { n: studio.number(first.shots) }) : null,
        one.chat ? say("in the chat template") : null,
        `lm-eval ${one.lm_eval}`, duration(one.seconds), date(one.at)];
      return [make("h4", {}, one.name), make("p", { class: "quiet small num" }, about.filter(Boolean).join(" · ")),
        studio.table(["Metric", "Base", "Tuned", "Difference"], one.table.map((row) => line(row, several)),
          { label: one.name, kind: "figures-table" }),
        one.functions.length
          ? make("p", { class: "quiet small" }, say("The task ran Python functions of its file: {names}.",
            { names: one.functions.join(", ") }))
          : null,
        ...one.notes.map((note) => make("p", { class: "quiet small" }, studio.told(note)))];
    };
    const outcome = () => (card.results
      ? [...card.results.results.flatMap(measurement),
        make("p", { class: "quiet small" }, say("± is the standard "
          + "error, as lm-eval gives it. A difference has its 95 % interval, from the same questions for both; "
          + "coloured is what chance does not explain."))]
      : [make("p", { class: "quiet" }, say("Tasks of lm-eval, such as arc_easy, hellaswag or mmlu, for the "
        + "base and for this run: how they answer what the training data does not ask."))]);
    const missing = () => make("div", { class: "call warn" }, make("div", {},
      make("b", {}, say("The package lm-eval is not installed.")),
      make("p", {}, say("This installs it; the page need not be started again:")),
      make("p", {}, make("code", {}, card.seen.install))));

    const card = studio.jobCard({
      name: "benchmark", read: "benchmarks", stop: "stop_benchmark", stopLabel: () => say("Stop"), head,
      body: () => [...outcome(), card.seen.install ? missing() : card.ready() ? form() : null],
      count: (done, all) => say("{n} of {all} questions", { n: studio.number(done), all: studio.number(all) }),
      cutOff: () => say("The last benchmark was cut off. Run it again."),
      reset
    });
    return card;
  };
  studio.resultCards.push(benchmarkCard);
})();
