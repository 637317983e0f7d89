// The Data tab: choose or bring data, see what it is, decide on problems, look at any row, move the cut line.
(() => {
  const studio = window.studio, { element: make, button, say, number, bytes } = studio;
  const DECISIONS = [["drop", "Drop"], ["keep", "Keep"], ["stop", "Stop"]];
  const NEWEST = 12; // uploads that stand open
  const SEVERITY = { refused: "cannot be trained on", cut: "too long", suspicious: "worth a look" };

  // A data set of pairs that was just made becomes the order's, under a stage that learns from it.
  studio.usePairs = (made) => {
    const left = Object.entries(made.left_out).map(([why, count]) => `${number(count)} ${say(why)}`);
    studio.tell({ message: say("{name}: {n} pairs.", { name: made.name, n: number(made.pairs) })
      + (left.length ? " " + say("Left out: {what}.", { what: left.join(", ") }) : "") }, "good");
    if (!["dpo", "orpo", "reward"].includes(studio.order.stage()))
      studio.order.set("stage", { name: "dpo" }, undefined, "data");
    studio.order.use(made.source);
    window.dispatchEvent(new CustomEvent("studio:uploads"));
    studio.open("data");
  };

  studio.parts.data = (element, gradioUpload) => {
    const upload = studio.sending(gradioUpload);
    const server = studio.asking("data", "inspect", "rows", "preview", "lengths");
    const at = (selector) => element.querySelector(selector);
    const main = at(".data-main"), sources = at(".sources");
    let asked = 0, found = null, sending = null, trouble = null, drawn = "", told = null, source = "", older = false;
    const about = make("section", { class: "card about" });
    const problems = make("section", { class: "card problems", hidden: true });
    const edit = make("button",
      { job: "data_edit", class: "button edit-open", onclick: () => editing(() => editor.open()) });
    const measured = studio.histogram(server, () => drawProblems()), rows = studio.rows(server, edit);
    const editor = studio.editor(server,
      {
        saved: (made) => written(made),
        closed: () => { rows.element.hidden = false; edit.focus(); drawn = ""; look(); }
      });
    main.append(about, problems, measured.element, rows.element, editor.element);
    const editing = (begin) => {
      rows.element.hidden = true;
      begin();
      editor.element.scrollIntoView({ behavior: "smooth", block: "start" });
    };
    const go = (row) => (editor.isOpen ? editing(() => editor.open(row)) : rows.show(row, true));
    at(".onward").addEventListener("click", () => studio.open("tune"));

    // A new file becomes the order's, and what was found in it comes into view, which lies far below on a phone.
    const use = (made) => {
      studio.order.use(made.source);
      window.dispatchEvent(new CustomEvent("studio:uploads"));
      about.scrollIntoView({ behavior: "smooth", block: "center" });
    };
    const bring = async (file) => {
      trouble = null; sending = file.name; drawSources();
      try {
        const { path } = await upload(file);
        use(await studio.call("import", path, file.name));
      } catch (error) {
        trouble = error;
      }
      sending = null; drawSources();
    };

    const openMaking = studio.making(element, upload, (made) => use(made));
    const paste = async () => {
      const pasted = await studio.inquire({
        title: say("Paste rows"),
        text: say("Cells copied from Excel or another table, a Markdown table, JSON, or lines that begin with "
          + "Q: and A:. They become a file of their own."),
        fields: [{ key: "text", label: say("Rows"), value: "", long: true },
          { key: "header", label: say("The first line of a table holds"), value: "auto",
            choices: [["auto", say("recognise it")], ["names", say("the columns' names")], ["row", say("a row")]] }],
        act: say("Use these rows")
      });
      if (!pasted) return;
      trouble = null; sending = say("what was pasted"); drawSources();
      try {
        const made = await studio.call("paste_rows", pasted.text, pasted.header);
        told = { source: made.source, text: [say("Pasted as {name}.", { name: made.name }),
          made.header === "row" && say("The first line was taken as a row: the columns had no names."),
          made.header === "names" && say("The first line was taken as the columns' names.")]
          .filter(Boolean).join(" ") };
        use(made);
      } catch (error) {
        trouble = studio.trouble(error);
      }
      sending = null; drawSources();
    };

    // The edited rows stand in a new file: it takes the place of the one they are from.
    const written = (made) => {
      const train = studio.order.value.data.train;
      const data = {
        ...studio.order.value.data,
        train: Array.isArray(train) ? [{ ...train[0], source: made.source }, ...train.slice(1)] : made.source
      };
      delete data.encoding;
      if (made.mapping) data.mapping = made.mapping;
      told = {
        source: made.source,
        text:
        say(
          "Saved as {name}: {n} rows. It is what will be trained on now; the file it was made from is unchanged.",
          { name: made.name, n: number(made.rows) })
        + (made.left_out
          ? " "
            + say(made.left_out === 1
              ? "1 row that could not be read is not in it."
              : "{n} rows that could not be read are not in it.",
              { n: number(made.left_out) })
          : "")
      };
      studio.order.replace({ ...studio.order.value, data }, "data");
      window.dispatchEvent(new CustomEvent("studio:uploads"));
      about.scrollIntoView({ behavior: "smooth", block: "center" });
    };

    const remove = async (one) => {
      const { runs } = await studio.ask("tune", "upload_users", { source: one.source }).catch(() => ({ runs: [] }));
      const named = runs.slice(0, 5).map(studio.undated).join(", ")
        + (runs.length > 5 ? ` ${say("and {n} more", { n: number(runs.length - 5) })}` : "");
      const sure = await studio.inquire({
        title: say("Delete {name}?", { name: one.name }),
        text: [
          say("Runs that learnt from it keep what they learnt. To repeat or extend one, the file is needed again."),
          runs.length > 0 && say("It was the data of {runs}.", { runs: named })
        ].filter(Boolean).join(" "),
        act: say("Delete"), grave: true
      });
      if (!sure || !(await studio.perform("delete_upload", one.source))) return;
      if (studio.order.train() === one.source) studio.order.use(`sample:${studio.offer.samples[0].name}`);
      at("#bring").focus(); // what was pressed is gone with the file
      window.dispatchEvent(new CustomEvent("studio:uploads"));
    };

    function drawSources() {
      const offer = studio.offer || { samples: [], uploads: [] }, chosen = studio.order.train();
      const pick = (source, name, note) => make("button", {
        class: "source", "aria-pressed": String(source === chosen),
        onclick: () => studio.order.use(source)
      },
        make("b", {}, name), make("span", { class: "quiet" }, note));
      const own = (one) => make("div", { class: "own" }, pick(one.source, one.name, bytes(one.bytes)),
        button("plain", "×", () => remove(one),
          { job: "delete_upload", "aria-label": say("Delete {name}", { name: one.name }), title: say("Delete") }));
      const file = make("input", {
        type: "file", job: "import", class: "hidden-but-read", id: "bring",
        accept: ".json,.jsonl,.ndjson,.csv,.tsv,.xlsx,.parquet,.arrow,.txt,.zip,.gz,.bz2,.xz,.zst",
        onchange: (event) => { if (event.target.files[0]) bring(event.target.files[0]); }
      });
      const drop = make("label", { class: `drop ${studio.may("import") ? "" : "off"}`, for: "bring" },
        make("b", {}, sending ? say("Sending {name}…", { name: sending }) : say("Bring your own file")),
        make("span", { class: "quiet" },
          say("Drop it here or press. JSON, JSON Lines, CSV, TSV, Excel, Parquet, Arrow or text, packed or "
            + "not.")));
      for (const name of ["dragover", "dragleave", "drop"]) {
        drop.addEventListener(name, (event) => {
          event.preventDefault();
          drop.classList.toggle("over", name === "dragover");
          if (name === "drop" && studio.may("import") && event.dataTransfer.files[0])
            bring(event.dataTransfer.files[0]);
        });
      }
      const known = [...offer.samples.map((one) => `sample:${one.name}`), ...offer.uploads.map((one) => one.source)];
      const other = make("input", {
        id: "other-source", type: "text", value: known.includes(chosen) ? "" : chosen,
        placeholder: say("owner/data-set or a path"), spellcheck: "false", autocomplete: "off"
      });
      other.addEventListener("change", () => other.value.trim() && studio.order.use(other.value.trim()));
      const more = make("p", { class: "bring-more" },
        button("plain", say("Paste rows…"), paste, { job: "paste_rows" }),
        button("plain", say("From documents…"), openMaking, { job: "make_rows" }));
      sources.replaceChildren(...[make("div", { class: "bring" }, file, drop), more,
        trouble && studio.fault(trouble),
        offer.uploads.length > 0 && make("h3", { "aria-level": "2" }, say("Yours")),
        ...offer.uploads.slice(0, NEWEST).map(own),
        offer.uploads.length > NEWEST && make("details", {
          class: "older", open: older, ontoggle: (event) => { older = event.target.open; }
        }, make("summary", {}, say("{n} more", { n: offer.uploads.length - NEWEST })),
          offer.uploads.slice(NEWEST).map(own)),
        make("h3", { "aria-level": "2" }, say("Sample data")),
        ...offer.samples.filter((one) => !one.recipe || `sample:${one.name}` === chosen)
          .map((one) => pick(`sample:${one.name}`, say(one.title), say(one.description))),
        make("h3", { "aria-level": "2" }, make("label", { for: "other-source" }, say("From the Hub or this computer"))),
        other].filter(Boolean));
    }

    const drawAbout = () => studio.aboutData(about, found, told);

    // What can be done about the rows of a kind at once; shown first, done when it was looked at.
    const mends = (one) => studio.may("data_edit") && make("p", { class: "small jump mends" },
      one.mend
        && button("plain", `${say(one.mend)}…`, () => editing(() => editor.fix(one.kind, "mend")),
          { "data-mend": one.kind }),
      one.delete
        && button("plain", `${say("Delete these rows")}…`, () => editing(() => editor.fix(one.kind, "delete")),
          { "data-delete": one.kind }));

    function drawProblems() {
      problems.hidden = !found?.problems;
      if (problems.hidden) return;
      // of the file, and of what template and model make of it
      const known = [...found.problems, ...measured.told(found.fingerprint)];
      const head = make("div", { class: "card-head plain-head" },
        make("div", {}, make("h2", {}, say("Problems")), make("p", { class: "quiet" },
          say(known.length
            ? "Decide for each kind what becomes of its rows. Nothing is dropped unless it stands here."
            : "None found. Every row can be trained on."))));
      const lines = known.map((one) => {
        const chosen = one.decision || one.default;
        const decide = (value) => {
          const all = { ...(studio.order.get("data.problems") || {}) };
          if (value === one.default) delete all[one.kind]; else all[one.kind] = value;
          studio.order.set("data.problems", Object.keys(all).length ? all : undefined, undefined, "data"); };
        return make("li", { class: "problem" },
          make("span", { class: `dot ${one.severity}`, title: say(SEVERITY[one.severity]) }), make("div", {},
            make("p", {}, make("b", { class: "num" }, number(one.count)), " · ", say(one.reason)),
            make("p", { class: "quiet small" }, say(one.hint), " ",
              one.virtual > 0 && say("The method takes {n} tokens of it for itself.", { n: number(one.virtual) }),
              one.value && make("code", {}, one.value)),
            one.rows.length > 0
              && make("p", { class: "small jump" }, say("Rows"), " ",
                one.rows.map((row) => button("plain num", String(row), () => go(row))),
                one.count > one.rows.length && found.problems.includes(one)
                  && button("plain", say("all {n}", { n: number(one.count) }),
                    () => (editor.isOpen ? editor.only(one.kind) : rows.only(one.kind)))),
            found.problems.includes(one) && mends(one)),
          !one.fixed && studio.segments("What becomes of these rows", DECISIONS, chosen, decide));
      });
      problems.replaceChildren(head, ...(lines.length ? [make("ul", {}, lines)] : []));
    }

    const ask = async (anew) => {
      const mine = (asked += 1);
      drawSources();
      if (anew) { found = null; drawAbout(); problems.hidden = true; main.classList.add("waiting"); }
      const answer = await server.inspect(studio.question()).catch((problem) => ({ error: studio.trouble(problem) }));
      if (mine !== asked) return;
      found = answer;
      main.classList.remove("waiting");
      drawAbout(); drawProblems();
      const fine = Boolean(found.rows);
      if (found.source !== source) { source = found.source; editor.begin(); }
      measured.element.hidden = !fine;
      rows.element.hidden = !fine || editor.isOpen;
      edit.textContent = found.edits
        ? say(found.edits === 1 ? "Go on editing (1 change not saved)" : "Go on editing ({n} changes not saved)",
          { n: number(found.edits) })
        : say("Edit the rows");
      edit.hidden = !studio.may("data_edit");
      if (fine) { measured.refresh(found.fingerprint); rows.refresh(found); showWanted(); }
    };
    // A row that another tab points to.
    const showWanted = () => {
      if (studio.wantedRow == null || found?.error || found?.source !== studio.order.train()) return;
      const row = studio.wantedRow;
      studio.wantedRow = null;
      go(row);
    };
    const watched = () => JSON.stringify([studio.order.value?.data, studio.order.value?.model]);
    const look = () => {
      if (studio.tab() !== "data" || !studio.order.value) return;
      if (watched() === drawn) { if (found) showWanted(); return; }
      const anew = !drawn || JSON.parse(drawn)[0]?.train !== studio.order.value.data.train;
      drawn = watched();
      ask(anew);
    };
    window.addEventListener("studio:order", look);
    window.addEventListener("studio:tab", look);
    window.addEventListener("studio:summary", look);
    window.addEventListener("studio:offered", () => drawSources());
    window.addEventListener("studio:permit", () => studio.order.value && drawSources());
    window.addEventListener("studio:language", () => { told = null; drawn = ""; editor.speak(); look(); });
    studio.translate(element);
    measured.element.hidden = rows.element.hidden = true; // until there is something to show
    drawAbout();
    sources.replaceChildren(make("p", { class: "quiet" }, say("Reading…")));
    look();
  };
})();
