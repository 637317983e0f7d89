// Which training rows taught an answer: ask, see the rows that pushed and those that pulled against, leave some out and
// train again. Chat and the samples begin it through studio.whoTaught.
(() => {
  const studio = window.studio, make = studio.element;
  studio.resultCards = studio.resultCards || [];
  let pending = null; // {id, prompt, answer}: asked for elsewhere on the page

  // Open a run's results and look for the rows that taught an answer. prompt: text, or turns before the answer.
  studio.whoTaught = (id, prompt, answer) => {
    pending = { id, prompt, answer };
    studio.open("runs", { run: id, compare: null });
    setTimeout(() => document.getElementById("run-view-results")?.click(), 50);
  };
  studio.taughtButton = (id, prompt, answer) => make("button", {
    type: "button", job: "find_influence", class: "icon",
    title: studio.say("Find the training rows that pushed the model towards this answer"),
    onclick: () => studio.whoTaught(id, prompt, answer)
  }, studio.say("Who taught it?"));

  const card = () => {
    const node = make("section", { class: "card evaluation influence" });
    let row = null, seen = null, results = null, timer = null, key = null, begun = 0;
    let question = "";
    const chosen = new Map(); // "source row" -> {source, row}

    const going = () => seen?.state === "going" || Date.now() - begun < 10000;
    const ready = () => row && row.saved && !["starting", "running", "stopping", "queued"].includes(row.state);
    const begin = async (prompt, answer) => {
      begun = Date.now(); chosen.clear();
      draw();
      try { await studio.call("find_influence", row.id, prompt, answer); }
      catch (problem) { begun = 0; studio.tell(problem); draw(); }
      look();
    };
    const stop = async () => {
      begun = 0;
      try { await studio.call("stop_influence", row.id); } catch (problem) { studio.tell(problem); }
      look();
    };
    const again = async () => {
      try {
        const made = await studio.call("train_without", row.id, [...chosen.values()]);
        studio.tell({ message: studio.say("Ordered: the same run without these rows, measured on the same held-out "
          + "rows.") }, "good");
        studio.open("runs", { run: made.run, compare: null });
      } catch (problem) { studio.tell(problem); }
    };

    const head = () => make("h3", {}, studio.say("Which rows taught it?"));
    const form = () => {
      const box = make("textarea", {
        class: "field", rows: "2", "aria-label": studio.say("Question"),
        placeholder: studio.say("A question; the model's own answer is looked at"), oninput: () => { question = box.value; }
      });
      box.value = question;
      return make("div", { class: "influence-form" }, box, make("div", { class: "acts" },
        make("button", {
          type: "button", job: "find_influence", class: "button primary",
          onclick: () => {
            if (question.trim()) begin(question.trim(), null);
            else { studio.tell({ message: studio.say("Write a question first.") }); box.focus(); }
          }
        }, studio.say("Find the rows")),
        make("button", {
          type: "button", job: "find_influence", class: "button", onclick: () => begin(null, null)
        }, studio.say("Only rows that hurt the held-out loss"))));
    };
    const progress = () => {
      const done = seen?.done || 0, all = seen?.of || 0;
      const doing = seen?.state === "going" && seen.doing && seen.doing !== "starting"
        ? studio.told(seen.doing)
        : studio.say("Starting…");
      const counted = studio.say("{n} of {all} rows", { n: studio.number(done), all: studio.number(all) });
      return [make("p", { class: "doctor-now", role: "status" }, make("span", { class: "spinner" }),
        make("span", {}, doing), all ? make("span", { class: "quiet num" }, counted) : null),
      all
        ? make("span", { class: "row-meter doctor-meter", role: "img", "aria-label": counted },
          make("i", { style: `width:${(100 * done) / all}%` }))
        : null,
      make("p", { class: "quiet" }, studio.say("A run that is ordered meanwhile waits. This page may be closed.")),
      make("div", { class: "acts" }, make("button", {
        type: "button", job: "stop_influence", class: "button", onclick: stop
      }, studio.say("Stop")))];
    };

    const open = (one) => {
      if (studio.order.train() !== one.source) {
        studio.order.use(one.source);
        studio.tell({ message: studio.say("The Data tab now shows the data of this run.") }, "good");
      }
      studio.wantedRow = one.row;
      studio.open("data");
    };
    const line = (one) => {
      const name = `${one.source} ${one.row}`;
      const box = make("input", {
        type: "checkbox", checked: chosen.has(name), "aria-label": studio.say("Leave out row {n}", { n: one.row }),
        onchange: () => { if (box.checked) chosen.set(name, { source: one.source, row: one.row });
          else chosen.delete(name); draw(); }
      });
      return make("li", {}, box,
        make("span", { class: `num influence-score ${one.score > 0 ? "good" : "bad"}` },
          `${one.score > 0 ? "+" : "−"}${studio.number(Math.abs(one.score), 2)}`),
        make("div", { class: "influence-text" }, make("button", {
          type: "button", class: "plain num", title: studio.say("Show it in the Data tab"), onclick: () => open(one)
        }, studio.say("Row {n}", { n: studio.number(one.row) })), make("div", { class: "answer" }, one.text)));
    };
    const list = (title, about, rows) => (rows?.length
      ? make("div", {}, make("h4", {}, studio.say(title)), make("p", { class: "quiet small" }, studio.say(about)),
        make("ol", { class: "influence-list" }, rows.map(line)))
      : null);
    const asked = () => (typeof results.prompt === "string"
      ? results.prompt
      : (results.prompt || []).map((turn) => turn.content).at(-1));
    const outcome = () => [
      results.answer == null
        ? null
        : make("div", { class: "influence-asked" }, make("b", {}, asked()), make("p", { class: "answer" }, results.answer)),
      list("Pushed towards this answer",
        "Learning these rows moves the model towards the answer. The number is the cosine of the two gradients, 1 at most.",
        results.answer == null ? [] : results.rows.filter((one) => one.score > 0)),
      list("Pulled against it", "Learning these rows moves the model away from the answer.", results.against),
      list("Hurt the held-out loss", "Learning these rows moves the model away from what the held-out rows say.",
        results.harmful),
      make("p", { class: "quiet small" },
        studio.say("Compared were {n} training rows, in {s} seconds. A hint, not a proof: leave rows out, train again, "
          + "and compare.", { n: studio.number(results.of), s: studio.number(results.seconds) })),
      results.left_out
        ? make("p", { class: "quiet small" },
          studio.say("For {n} rows memory did not suffice; they count as 0.", { n: studio.number(results.left_out) }))
        : null,
      make("div", { class: "acts" },
        make("button", {
          type: "button", job: "train_without", class: "button", disabled: !chosen.size, onclick: again
        }, chosen.size === 1
          ? studio.say("Train again without 1 row")
          : studio.say("Train again without {n} rows", { n: chosen.size })),
        results.harmful?.length
          ? make("button", {
            type: "button", class: "button",
            onclick: () => {
              for (const one of results.harmful)
                chosen.set(`${one.source} ${one.row}`, { source: one.source, row: one.row });
              draw();
            }
          }, studio.say("Choose those that hurt"))
          : null)];

    const draw = () => {
      if (!row) return;
      if (row.method === "full") {
        node.replaceChildren(head(), make("p", { class: "quiet" },
          studio.say("Full fine-tuning trains all weights, and a gradient of each row would be as large as the model. "
            + "Train the same data with an adapter, such as LoRA, and look there.")));
        return;
      }
      const about = make("p", { class: "quiet" }, ready()
        ? studio.say("Finds the training rows whose gradients point where an answer's does, and those that point "
          + "against it. The first look takes about as long as an epoch; later ones are quick.")
        : studio.say("It can be asked when the run has a result."));
      const failed = seen?.state === "failed" && !going()
        ? make("div", { class: "call bad" }, make("div", {}, make("b", {}, studio.told(seen.error.message)),
          seen.error.hint ? make("p", {}, studio.told(seen.error.hint)) : null))
        : seen?.state === "cut off" && !going()
        ? make("p", { class: "bad" }, studio.say("The last search was cut off. What was computed is kept."))
        : null;
      const body = going() ? progress() : [about, ready() ? form() : null, ...(results ? outcome() : [])];
      node.replaceChildren(...[head(), failed, ...body].flat().filter(Boolean));
    };
    const look = async () => {
      clearTimeout(timer);
      const id = row?.id;
      if (!id || studio.tab() !== "runs" || document.hidden) { timer = id ? setTimeout(look, 3000) : null; return; }
      const answer = await studio.ask("studio-bar", "influences", { id, mark: results ? String(results.at) : "" })
        .catch(() => null);
      if (row?.id !== id) return;
      if (answer) {
        if (answer.results) { results = answer.results; begun = 0; }
        if (answer.state === "going" || answer.state === "failed") begun = 0;
        seen = { ...answer, results: null };
      }
      const now = JSON.stringify([seen, results?.at, studio.language, row.state, row.saved, going()]);
      if (now !== key) { key = now; draw(); }
      timer = setTimeout(look, going() ? 1500 : 10000);
    };
    window.addEventListener("studio:language", () => { if (row) draw(); });
    return {
      node,
      show(wanted) {
        const changed = wanted?.id !== row?.id || wanted?.state !== row?.state || wanted?.saved !== row?.saved;
        if (wanted?.id !== row?.id && wanted) {
          seen = results = key = null; begun = 0; question = ""; chosen.clear();
          node.replaceChildren(head(), make("p", { class: "quiet" }, studio.say("Reading…")));
        }
        row = wanted;
        if (!wanted) { clearTimeout(timer); return; }
        if (pending?.id === row.id) {
          const { prompt, answer } = pending;
          pending = null;
          begin(prompt, answer);
          node.scrollIntoView({ block: "start" });
        } else if (changed || !timer) look();
      },
    };
  };
  studio.resultCards.push(card);
})();
