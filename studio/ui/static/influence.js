// Which training rows taught an answer: ask, see the rows that pushed and those that pulled against, leave some out and
// train again. Chat and the samples begin it through studio.whoTaught.
(() => {
  const studio = window.studio, { element: make, button, say, number } = studio;
  let pending = null; // {id, prompt, answer}: asked for elsewhere on the page

  // Open a run's results and look for the rows that taught an answer. prompt: text, or turns before the answer.
  studio.whoTaught = (id, prompt, answer) => {
    pending = { id, prompt, answer };
    studio.open("runs", { run: id, compare: null });
    setTimeout(() => document.getElementById("run-view-results")?.click(), 50);
  };
  studio.taughtButton = (id, prompt, answer) =>
    button("icon plain taught", say("Who taught it?"), () => studio.whoTaught(id, prompt, answer),
      { job: "find_influence", title: say("Find the training rows that pushed the model towards this answer") });

  const influenceCard = () => {
    let asked = { question: "", answer: "" };
    const chosen = new Map(); // "source row" -> {source, row}
    const begin = (prompt, answer) => card.begin("find_influence", prompt, answer);
    const again = async () => {
      if (!(await studio.makeRun("train_without", card.row.id, [...chosen.values()]))) return;
      studio.tell({ message: say("Ordered: the same run without these rows, measured on the same held-out rows.") },
        "good");
      window.scrollTo(0, 0);
    };

    const head = () => make("h3", {}, say("Which rows taught it?"));
    const box = (key, label, placeholder) => {
      const field = make("textarea", {
        class: "field", rows: "2", "aria-label": say(label), placeholder: say(placeholder),
        oninput: () => { asked[key] = field.value; }
      });
      field.value = asked[key];
      return field;
    };
    const form = () => {
      const question = box("question", "Question", "A question");
      const answer = box("answer", "Answer", "An answer; empty: the model's own");
      return make("div", { class: "influence-form" }, question, answer, make("div", { class: "acts" },
        button("button primary", say("Find the rows"), () => {
            if (asked.question.trim()) begin(asked.question.trim(), asked.answer.trim() || null);
            else { studio.tell({ message: say("Write a question first.") }); question.focus(); }
          }, { job: "find_influence" }),
        button("button", say("Only rows that hurt the held-out loss"), () => begin(null, null),
          { job: "find_influence" })));
    };
    const open = (one) => {
      if (studio.order.train() !== one.source) {
        studio.order.use(one.source);
        studio.tell({ message: say("The Data tab now shows the data of this run.") }, "good");
      }
      studio.wantedRow = one.row;
      studio.open("data");
    };
    const line = (one) => {
      const name = `${one.source} ${one.row}`;
      const box = make("input", {
        type: "checkbox", checked: chosen.has(name), "aria-label": say("Leave out row {n}", { n: one.row }),
        onchange: () => { if (box.checked) chosen.set(name, { source: one.source, row: one.row });
          else chosen.delete(name); card.draw(); }
      });
      return make("li", {}, box,
        make("span", { class: `num influence-score ${one.score > 0 ? "good" : "bad"}` },
          `${one.score > 0 ? "+" : "−"}${number(Math.abs(one.score), 2)}`),
        make("div", { class: "influence-text" },
          button("plain num", say("Row {n}", { n: number(one.row) }), () => open(one),
            { title: say("Show it in the Data tab") }), make("div", { class: "answer" }, one.text)));
    };
    const list = (title, about, rows) => (rows?.length
      ? make("div", {}, make("h4", {}, say(title)), make("p", { class: "quiet small" }, say(about)),
        make("ol", { class: "influence-list" }, rows.map(line)))
      : null);
    const last = (prompt) => (typeof prompt === "string" ? prompt : (prompt || []).map((turn) => turn.content).at(-1));
    const outcome = (results) => [
      results.answer == null
        ? null
        : make("div", { class: "influence-asked" }, make("b", {}, last(results.prompt)),
          make("p", { class: "answer" }, results.answer)),
      list("Pushed towards this answer",
        "Learning these rows moves the model towards the answer. The number is the cosine of the two gradients, 1 at "
          + "most.",
        results.answer == null ? [] : results.rows.filter((one) => one.score > 0)),
      list("Pulled against it", "Learning these rows moves the model away from the answer.", results.against),
      list("Hurt the held-out loss", "Learning these rows moves the model away from what the held-out rows say.",
        results.harmful),
      make("p", { class: "quiet small" },
        say("Compared were {n} training rows, in {s} seconds. A hint, not a proof: leave rows out, train again, "
          + "and compare.", { n: number(results.of), s: number(results.seconds) })),
      results.left_out
        ? make("p", { class: "quiet small" },
          say("For {n} rows memory did not suffice; they count as 0.", { n: number(results.left_out) }))
        : null,
      make("div", { class: "acts" },
        button("button", chosen.size === 1
          ? say("Train again without 1 row")
          : say("Train again without {n} rows", { n: chosen.size }), again,
          { job: "train_without", disabled: !chosen.size }),
        results.harmful?.length
          ? button("button", say("Choose those that hurt"), () => {
              for (const one of results.harmful)
                chosen.set(`${one.source} ${one.row}`, { source: one.source, row: one.row });
              card.draw();
            })
          : null)];

    const about = () => make("p", { class: "quiet" }, card.ready()
      ? say("Finds the training rows whose gradients point where an answer's does, and those that point "
        + "against it. The first look takes about as long as two epochs; later ones are quick.")
      : say("It can be asked when the run has a result."));
    const full = () => make("p", { class: "quiet" },
      say("Full fine-tuning trains all weights, and a gradient of each row would be as large as the model. "
        + "Train the same data with an adapter, such as LoRA, and look there."));

    const card = studio.jobCard({
      name: "influence", read: "influences", stop: "stop_influence", stopLabel: () => say("Stop"),
      cutOff: () => say("The last search was cut off. What was computed is kept."), head,
      body: () => (card.row.method === "full"
        ? [full()]
        : [about(), card.ready() ? form() : null, ...(card.results ? outcome(card.results) : [])]),
      count: (done, all) => say("{n} of {all} rows", { n: number(done), all: number(all) }),
      begun: () => chosen.clear(),
      reset: () => { asked = { question: "", answer: "" }; chosen.clear(); },
      wanted() {
        if (pending?.id !== card.row.id) return false;
        const { prompt, answer } = pending;
        pending = null;
        begin(prompt, answer);
        card.node.scrollIntoView({ block: "start" });
        return true;
      }
    });
    return card;
  };
  studio.resultCards.push(influenceCard);
})();
