// Rows out of a document: another model writes them, each beside the passage it is from; A accepts, R rejects.
(() => {
  const studio = window.studio, { element: make, button, say } = studio;
  const KEPT = "studio-making"; // {id, decisions: {number: true or false}}
  const KINDS = ["md", "markdown", "txt", "rst", "pdf", "docx", "pptx", "xlsx", "html", "htm", "epub"];
  const MARKS = { unsupported: "not in the passage", repeat: "asked before" };

  // host: where in the page it lies. upload(file) -> {path}. take(made): what becomes of the data set.
  studio.making = (host, upload, take) => {
    let kept = { id: null, decisions: {} }, rows = [], seen = {}, timer = null, here = 0, fault = "", busy = "";
    let settings = { url: "", model: "", per_passage: 3, prompt: "" };
    const dialog = make("dialog", { class: "chooser making" });
    host.append(dialog);
    dialog.addEventListener("close", () => clearTimeout(timer));
    const store = () => studio.store(KEPT, JSON.stringify(kept));
    const open = (id) => { kept = { id, decisions: {} }; rows = []; here = 0; fault = ""; store(); };

    const look = async () => {
      clearTimeout(timer);
      const id = kept.id;
      const answer = await studio.ask("data", "made",
        { id, start: rows.length, model: settings.model, lang: studio.language }).catch((problem) => {
        if (id && id === kept.id) open(null); // it is no longer there
        fault = studio.trouble(problem).message;
      });
      if (id !== kept.id) return;
      if (answer) {
        const fresh = answer.rows || [];
        const same = !fresh.length && ["state", "done", "note"].every((key) => seen[key] === answer[key]);
        seen = answer; rows.push(...fresh);
        if (!same) draw();
      } else draw();
      if (dialog.open && seen.state === "going") timer = setTimeout(look, 1000);
    };
    const call = async (name, ...values) => {
      fault = "";
      try { return await studio.call(name, ...values); } catch (problem) {
        const trouble = studio.trouble(problem);
        fault = `${trouble.message} ${trouble.hint || ""}`;
        draw();
        return null;
      }
    };
    // Documents one after the other into one set of passages; what cannot be read is told, and the others go on.
    const bring = async (files) => {
      if (!files.length || busy) return;
      const known = [...files].filter((file) => KINDS.includes(file.name.toLowerCase().split(".").pop()));
      const faults = [];
      for (const file of known.length ? known : [files[0]]) {
        busy = say("Reading {name}…", { name: file.name }); draw();
        try {
          const made = await studio.call("read_document", (await upload(file)).path, file.name, kept.id || "");
          if (made.id !== kept.id) open(made.id);
        } catch (problem) {
          const trouble = studio.trouble(problem);
          faults.push(`${trouble.message} ${trouble.hint || ""}`);
        }
      }
      busy = ""; fault = faults.join(" "); draw(); look();
    };
    const begin = async () => {
      if (!studio.filled(dialog)) return;
      const wanted = { url: settings.url.trim(), model: settings.model.trim(),
        per_passage: Number(settings.per_passage) || 3 };
      if (settings.prompt && settings.prompt !== seen.prompt) wanted.prompt = settings.prompt;
      if (await call("make_rows", kept.id, wanted)) { seen.state = "going"; draw(); look(); }
    };

    const field = (name, label, more) => {
      const entry = make("input", { class: "field", type: "text", value: String(settings[name]), ...more,
        oninput: () => { settings[name] = entry.value; }, onchange: () => { if (name === "model") look(); } });
      return make("label", {}, make("span", {}, say(label)), entry);
    };
    const choice = () => {
      const input = (id, more) => make("input", { type: "file", id, class: "hidden-but-read", job: "read_document",
        multiple: true, ...more, onchange: (event) => bring(event.target.files) });
      return make("div", { class: "bring" },
        input("making-file", { accept: KINDS.map((kind) => `.${kind}`).join() }),
        make("label", { class: "drop", for: "making-file" },
          make("b", {}, busy || say("Choose documents")),
          make("span", { class: "quiet" },
            say("Markdown or text; PDF, Word, PowerPoint, Excel and HTML where the "
              + "package markitdown is installed. Nothing is sent yet."))),
        input("making-folder", { webkitdirectory: true }),
        make("label", { class: "drop", for: "making-folder" }, make("b", {}, say("Choose a folder of documents"))));
    };
    const form = () => {
      const prompt = make("textarea", { class: "field", rows: "9", "aria-label": say("Prompt"),
        oninput: () => { settings.prompt = prompt.value; } });
      prompt.value = settings.prompt || seen.prompt || "";
      return make("div", { class: "making-form" },
        make("p", {}, make("b", {}, kept.id), " · ",
          say("{n} passages", { n: studio.number(seen.passages || 0) }), " ",
          button("plain", say("Other documents"), () => { open(null); draw(); })),
        make("div", { class: "making-fields" },
          field("url", "Address", { placeholder: "http://127.0.0.1:8000/v1", required: true }),
          field("model", "Model there", { placeholder: "base", required: true }),
          field("per_passage", "Rows of a passage", { inputmode: "numeric", maxlength: "2" })),
        make("details", {}, make("summary", {}, say("The prompt")), prompt),
        seen.note && make("p", { class: "note" }, seen.note),
        button("primary", say("Have rows written"), begin, { job: "make_rows" }),
        make("p", { class: "quiet small" }, say("The passages go to the address you give, and nowhere else."),
          " ",
          seen.key ? say("The key in STUDIO_MAKE_KEY is sent along.")
          : say("No key is sent: STUDIO_MAKE_KEY is not set.")));
    };

    const decide = (number, good) => {
      kept.decisions[number] = kept.decisions[number] === good ? undefined : good;
      store();
      if (kept.decisions[number] !== undefined && here < rows.length - 1) here = number + 1;
      draw();
      dialog.querySelector(".made-row.here")?.scrollIntoView({ block: "nearest" });
    };
    const accepted = () => rows.map((_, number) => number).filter((number) => kept.decisions[number]);
    const card = (row, number) => make("article", {
      class: ["made-row", number === here && "here", { true: "taken", false: "left" }[kept.decisions[number]]]
        .filter(Boolean).join(" "),
      onclick: () => { if (here !== number) { here = number; draw(); } } },
      make("div", {}, make("b", {}, row.question), make("p", {}, row.answer),
        make("p", { class: "made-marks" },
          row.marks.map((mark) => make("span", { class: "made-mark" }, say(MARKS[mark] || mark)))),
        make("div", { class: "acts" },
          button("chip", say("Accept (A)"), (event) => { event.stopPropagation(); decide(number, true); },
            { "aria-pressed": String(kept.decisions[number] === true) }),
          button("chip", say("Reject (R)"), (event) => { event.stopPropagation(); decide(number, false); },
            { "aria-pressed": String(kept.decisions[number] === false) }))),
      make("blockquote", { class: "quiet small" },
        make("b", {}, [row.document, row.heading].filter(Boolean).join(" › ")), make("p", {}, row.text)));
    const review = () => {
      const taken = accepted().length;
      return [make("div", { class: "making-bar" },
        seen.state === "going"
          ? [make("span", { role: "status" },
            say("{done} of {of} passages", { done: seen.done || 0, of: seen.of || seen.passages })),
            button("button", say("Stop and keep what is written"), () => call("stop_making", kept.id),
              { job: "stop_making" })]
          : [make("span", { class: "quiet" }, say("{n} rows", { n: studio.number(rows.length) })),
            (["cut off", "failed"].includes(seen.state) || seen.results?.passages < seen.results?.of)
              && button("plain", say("Go on…"), () => { rows.pending = true; draw(); }, { job: "make_rows" }),
            button("plain", say("Other documents"), () => { open(null); draw(); })],
        make("span", { class: "grow" }),
        button("chip", say("Accept all that have no mark"), () => {
          rows.forEach((row, number) => { if (!row.marks.length) kept.decisions[number] ??= true; });
          store(); draw();
        }),
        button("primary", say("Use {n} rows", { n: studio.number(taken) }), async () => {
          const made = await call("take_rows", kept.id, accepted());
          if (made) { dialog.close(); take(made); }
        }, { job: "take_rows", disabled: !taken })),
        make("p", { class: "quiet small" }, say("↑ and ↓ go from row to row, A accepts, R rejects.")),
        rows.pending && form(),
        make("div", { class: "made-rows" }, rows.map(card))];
    };
    function draw() {
      if (!dialog.open) return;
      const list = dialog.querySelector(".making-body"), top = list?.scrollTop || 0, focus = document.activeElement?.id;
      const error = seen.error && seen.state === "failed"
        ? `${studio.told(seen.error.message)} ${studio.told(seen.error.hint || "")}`
        : seen.state === "cut off" ? say("The writing was cut off. What is written is kept; go on.") : "";
      const body = make("div", { class: "making-body chooser-list", tabindex: "-1" }, ...[
        (fault || error) && make("p", { class: "fault", role: "alert" }, fault || error),
        ...(!kept.id ? [choice()] : rows.length ? review() : seen.state === "going" ? review() : [form()])
      ].flat().filter(Boolean));
      dialog.setAttribute("aria-label", say("Rows from documents"));
      dialog.replaceChildren(studio.dialogHead(dialog, say("Rows from documents"),
        say("A model that you have writes questions and answers about each passage; you keep the good ones. "
          + "Take one of 3 billion weights or more, served here or elsewhere: the starter is too small for it.")),
            body);
      body.scrollTop = top;
      if (focus) document.getElementById(focus)?.focus();
      else if (rows.length) body.focus({ preventScroll: true }); // so that the next key is heard
    }
    dialog.addEventListener("keydown", (event) => {
      if (!rows.length || event.ctrlKey || event.metaKey) return;
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
      const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
      if (step) {
        event.preventDefault();
        here = Math.max(0, Math.min(rows.length - 1, here + step)); draw();
        dialog.querySelector(".made-row.here")?.scrollIntoView({ block: "nearest" });
      } else if (event.key === "a" || event.key === "r") { event.preventDefault(); decide(here, event.key === "a"); }
    });

    return () => {
      try { kept = { ...kept, ...JSON.parse(studio.stored(KEPT) || "{}") }; } catch { /* as it was */ }
      rows = []; dialog.showModal(); draw(); look();
    };
  };
})();
