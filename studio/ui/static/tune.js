// The Tune tab: cards for model, data, method and settings; form and YAML are two views of one order.
(() => {
  const studio = window.studio, { element: make, button, say, bytes } = studio;

  const icon = (path) => {
    const box = make("span", { class: "card-icon", "aria-hidden": "true" });
    const stroke = 'stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round"';
    box.innerHTML = `<svg viewBox="0 0 24 24" width="20" height="20" fill="none" ${stroke}>${path}</svg>`;
    return box;
  };
  const ICONS = { model: '<path d="M12 3 4 7.5v9L12 21l8-4.5v-9L12 3Z"/><path d="M4 7.5 12 12l8-4.5M12 12v9"/>',
    data: '<ellipse cx="12" cy="6" rx="7" ry="3"/>'
      + '<path d="M5 6v12c0 1.7 3.1 3 7 3s7-1.3 7-3V6M5 12c0 1.7 3.1 3 7 3s7-1.3 7-3"/>',
    stage: '<path d="M12 4v16M8 20h8M6 7h12M6 7l-3 6h6L6 7ZM18 7l-3 6h6l-3-6Z"/>',
    method: '<path d="M4 20 14 10M13 5l6 6M16 3l5 5-4 4-5-5 4-4Z"/>',
    training: '<path d="M4 7h10M18 7h2M4 17h2M10 17h10"/><circle cx="16" cy="7" r="2"/><circle cx="8" cy="17" r="2"/>',
    advanced: '<path d="M6 4v6M6 14v6M12 4v2M12 10v10M18 4v9M18 17v3"/>'
      + '<circle cx="6" cy="12" r="2"/><circle cx="12" cy="8" r="2"/><circle cx="18" cy="15" r="2"/>',
    place: '<rect x="3" y="4" width="18" height="12" rx="2"/><path d="M8 20h8M12 16v4"/>' };
  const card = (name, title, about, ...inside) => make("section",
    { class: `card card-${name}`, "aria-labelledby": `card-${name}` },
    make("div", { class: "card-head" }, icon(ICONS[name]),
      make("div", {}, make("h2", { id: `card-${name}` }, say(title)), make("p", { class: "quiet" }, say(about)))),
    ...inside);
  const grid = (...fields) => make("div", { class: "fields" }, ...fields);

  studio.parts.tune = async (element) => {
    const server = studio.asking("tune", "look", "read");
    const at = (selector) => element.querySelector(selector);
    const form = at(".tune-form"), yaml = at("textarea.yaml");
    let offer = null, shape = "form", written = null;
    let advanced = studio.stored("studio-advanced") === "yes";
    while (!offer) { // the studio may be starting anew under the page
      try {
        offer = await server.offer({});
      } catch (problem) {
        at(".lead").textContent = studio.trouble(problem).message;
        await new Promise((go) => setTimeout(go, 2000));
      }
    }
    studio.offer = offer;
    studio.order.begin(structuredClone(offer.first));
    window.dispatchEvent(new CustomEvent("studio:offered"));
    window.dispatchEvent(new CustomEvent("studio:order", { detail: { from: "begin" } })); // the Data tab can read on
    const method = () => offer.form.methods.find((one) => one.name === studio.order.method()) || offer.form.methods[0];
    const summary = studio.summary(at(".summary"), server, method);
    studio.glossary(at(".glossary"), at(".glossary-open"), summary, method);

    const openChooser = studio.chooser(element, (model, method, settings) => {
      studio.order.set("model", model, undefined, "form");
      if (method && method !== studio.order.method()) studio.order.set("method", { name: method }, undefined, "form");
      for (const [path, value] of Object.entries(settings)) studio.order.set(path, value, undefined, "form");
      draw();
      form.querySelector("#source-model-list")?.focus();
    }, () => summary.lookedAt);

    at(".start-over").addEventListener("click", () => studio.order.replace(structuredClone(offer.first), "reset"));
    at(".recipes-open").addEventListener("click", studio.recipes(element, (recipe) => {
      studio.order.replace(structuredClone(recipe.order), "recipe");
    }));

    const some = (knobs, section, hints = {}) => knobs.filter((knob) => !knob.advanced)
      .map((knob) => studio.field(knob, `${section}.${knob.key}`, { hint: hints[knob.key] }));

    const source = (label, help, value, options, list, change) => {
      const input = make("input",
        { id: `source-${list}`, type: "text", value, spellcheck: "false", autocomplete: "off", list });
      input.addEventListener("change", () => change(input.value.trim()));
      if (list === "model-list")
        input.addEventListener("keydown", (event) => {
          if (event.key === "ArrowDown" && event.altKey) { event.preventDefault(); openChooser(); }
        });
      return make("div", { class: "field" },
        make("div", { class: "field-head" }, make("label", { for: `source-${list}` }, say(label))), input,
        make("datalist", { id: list }, options.map((one) => make("option", { value: one.source }, one.label))),
        make("p", { class: "help" }, say(help)));
    };
    const chips = (label, options, chosen, change) => make("div",
      { class: "chips", role: "group", "aria-label": say(label) },
      options.map((one) => make("button", {
        class: "chip", title: one.title, "aria-pressed": String(one.source === chosen),
        onclick: () => change(one.source)
      },
        make("b", {}, one.label), one.note && make("span", { class: "quiet" }, one.note))));

    const drawModel = () => {
      const choose = (wanted) => { if (wanted) { studio.order.set("model", wanted, undefined, "form"); draw(); } };
      return card("model", "Model", "What you start from.",
        chips("Model",
          offer.models.slice(0, 4).map((one) => ({
            source: one.source, label: one.label.split("/").pop().replace(/-Instruct$/, ""), title: one.label,
            note: say(one.source === "starter"
              ? "small; learns on a laptop"
              : one.local ? "on this computer" : "from the Hub")
          })),
          studio.order.model(), choose),
        studio.order.get("start") && make("p", { class: "advice start-from" },
          say("The adapter of {run} goes on: what it learnt stays.", { run: studio.order.get("start") }), " ",
          button("plain", say("Begin a new adapter instead"),
            () => { studio.order.set("start", undefined, undefined, "form"); draw(); })),
        make("p", { class: "card-more" },
          button("plain open-chooser", say("All models, and what fits here →"), openChooser,
            { "aria-haspopup": "dialog" })),
        grid(source("Another model", "A Hugging Face id, a folder with safetensors, or a .gguf file.",
          studio.order.model(), offer.models, "model-list", choose),
          ...some(offer.form.model, "model")));
    };
    const drawData = () => {
      // "Three lines (Alpaca, English)"
      const parts = (title) => title.match(/^(.*?)\s*[(（](.*)[)）]$/) || [title, title, ""];
      // those of the recipes are shown where they are chosen
      const samples = offer.samples.filter((one) => !one.recipe || `sample:${one.name}` === studio.order.train());
      const options = [...samples.map((one) => ({
        source: `sample:${one.name}`, label: parts(say(one.title))[1],
        note: [parts(say(one.title))[2].split(/[,，]/)[0], say("{n} rows", { n: one.rows })].filter(Boolean).join(" · ")
      })),
        ...offer.uploads.slice(0, 4).map((one) => ({ source: one.source, label: one.name, note: bytes(one.bytes) }))];
      const choose = (wanted) => { studio.order.use(wanted); draw(); };
      return card("data", "Data", "What it learns: questions and the answers you want.",
        chips("Data", options, studio.order.train(), choose),
        make("p", { class: "card-more" },
          button("plain", say("Bring your own file, look at the rows →"), () => studio.open("data"))),
        grid(source("Another source", "A file on this computer, or a Hugging Face data set id.", studio.order.train(),
          [], "data-list", choose),
          ...some(named(offer.form.data), "data")));
    };
    const named = (knobs) => knobs.map((knob) => (knob.key === "template"
      ? { ...knob, suggestions: offer.templates }
      : knob.key === "format" ? { ...knob, suggestions: offer.formats } : knob));
    const stage = () => offer.form.stages.find((one) => one.name === studio.order.stage()) || offer.form.stages[0];
    const drawStage = () => {
      const choose = (name) => {
        if (name === studio.order.stage()) return;
        studio.order.set("stage", name === offer.form.stages[0].name ? undefined : { name }, undefined, "form");
        draw();
      };
      return card("stage", "Stage", "What is learnt from what.",
        chips("Stage",
          offer.form.stages.map((one) => ({ source: one.name, label: say(one.label), title: say(one.about) })),
          stage().name, choose),
        make("p", { class: "advice" }, say(stage().about), " ", say(stage().advice)),
        stage().name === "grpo" && studio.rewards(offer.form.rewards, server, draw),
        grid(some(stage().knobs, "stage")));
    };
    const drawMethod = () => {
      const pick = (name) => {
        if (name !== studio.order.method()) {
          studio.order.set("method", { name }, undefined, "form");
          draw();
          element.querySelector(`[data-method="${name}"]`)?.focus();
        }
      };
      const choices = offer.form.methods.map((one) => make("button",
        { class: "method", role: "radio", "data-method": one.name,
          "aria-checked": String(one === method()), tabIndex: one === method() ? 0 : -1, onclick: () => pick(one.name)
        },
        make("b", {}, say(one.label)), make("span", {}, say(one.about))));
      const group = make("div", { class: "methods", role: "radiogroup", "aria-label": say("Method") }, choices);
      group.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const all = offer.form.methods;
        pick(all[(all.indexOf(method()) + step + all.length) % all.length].name);
      });
      const hints = { alpha: say("2 × rank") };
      return card("method", "Method", "How the model is changed.", group,
        make("p", { class: "advice" }, say(method().advice)), grid(some(method().knobs, "method", hints)));
    };
    const drawTraining = () => card("training", "Settings", "How long, how fast.",
      grid(some(offer.form.training, "training",
        { learning_rate: say("{rate} (this method's own)",
          { rate: Number((method().rate * stage().rate_scale).toPrecision(3)) }) })),
      grid(drawEvaluation()));
    // `evaluation` is there or not: a switch, and its knobs where it is on.
    const drawEvaluation = () => {
      const isOn = Boolean(studio.order.get("evaluation"));
      const control = make("button", { id: "knob-evaluation", class: "switch", role: "switch",
        "aria-checked": String(isOn), "aria-describedby": "knob-evaluation-help",
        onclick: () => { studio.order.set("evaluation", isOn ? undefined : {}, undefined, "form"); draw(); } });
      return [make("div", { class: `field field-switch ${isOn ? "changed" : ""}`, "data-path": "evaluation" },
        make("div", { class: "field-head" },
          make("label", { for: "knob-evaluation" }, say("Evaluate by answers after training"))), control,
        make("p", { class: "help", id: "knob-evaluation-help" },
          say("Base and tuned model answer held-out questions, "
            + "and the answers are scored. It adds to the run's time; later it can be done from the run's page."))),
        ...(isOn ? some(offer.form.evaluation, "evaluation") : [])];
    };

    const place = () => offer.form.places.find((one) => one.kind === studio.order.place()) || offer.form.places[0];
    const drawPlace = () => {
      const choose = (kind) => {
        if (kind !== studio.order.place()) {
          studio.order.set("place", kind === "here" ? undefined : { kind }, undefined, "form");
          draw();
        }
      };
      return card("place", "Where it trains", "Which computer does the work.",
        chips("Where it trains",
          offer.form.places.map((one) => ({ source: one.kind, label: say(one.label), title: say(one.about) })),
          place().kind, choose),
        place().kind !== "here" && make("p", { class: "advice" }, say(place().about)),
        place().kind !== "here" && grid(some(place().knobs, "place", { namespace: say("you") })));
    };

    // Of a group the run's own settings come first, then those of its method, stage, data, model and place.
    const sections = () => [{ key: "training", title: "Settings", knobs: offer.form.training },
      { key: "method", title: method().label, knobs: method().knobs },
      { key: "stage", title: stage().label, knobs: stage().knobs },
      { key: "data", title: "Data", knobs: named(offer.form.data) },
      { key: "model", title: "Model", knobs: offer.form.model },
      { key: "place", title: place().label, knobs: place().knobs },
      ...(studio.order.get("evaluation")
        ? [{ key: "evaluation", title: "Evaluate by answers after training", knobs: offer.form.evaluation }]
        : [])];
    const drawAdvanced = () => card("advanced", "Advanced", "Everything else that can be set. What is left at auto "
      + "tells what it comes to here.", studio.groups(offer.form.groups, sections));
    const search = make("input", { id: "knob-search", type: "search", autocomplete: "off", spellcheck: "false",
      oninput: () => draw(true),
      onkeydown: (event) => {
        if (event.key === "Escape" && search.value) { event.preventDefault(); search.value = ""; draw(true); }
      } });
    const drawFound = () => make("section", { class: "card card-found", "aria-label": say("Search settings") },
      studio.soughtFields(sections(), search.value));
    const drawSwitch = () => {
      const count = sections().reduce((sum, { key, knobs }) => sum + studio.changed(knobs, key), 0);
      search.placeholder = say("Search settings");
      search.setAttribute("aria-label", search.placeholder);
      return make("div", { class: "switch-line" },
        make("div", { class: "presets" },
          (offer.presets || []).map((one) => button("chip preset", say(one.label), () => preset(one),
            { "aria-pressed": String(chosen(one)), title: say(one.about) }))),
        search,
        make("label", { class: "advanced" }, make("span", {}, say("Advanced")),
          count > 0
            && make("span", { class: "count", title: say("{n} advanced values changed", { n: count }) }, String(count)),
          make("button",
            {
              class: "switch", role: "switch", "aria-label": say("Advanced"),
              "aria-checked": String(advanced),
              onclick: () => { advanced = !advanced; studio.store("studio-advanced", advanced ? "yes" : "no"); draw(); }
            })));
    };
    const preset = async (one) => {
      const made = await server.preset({ order: studio.order.value, name: one.name }).catch(() => ({}));
      if (made.order) studio.order.replace(made.order, "preset");
    };
    const chosen = (one) => Object.entries(one.patch)
      .every(([section, keys]) => Object.entries(keys).every(([key, value]) => {
        const knob = section === "method"
          ? method().knobs.find((found) => found.key === key)
          : offer.form.training.find((found) => found.key === key);
        return JSON.stringify((key === "name" ? studio.order.method() : studio.order.get(`${section}.${key}`))
          ?? knob?.default) === JSON.stringify(value);
      }));

    // searching: the line with the search stays as it is, for what is being typed into it.
    function draw(searching = false) {
      const line = searching && form.firstElementChild || drawSwitch();
      const cards = search.value.trim()
        ? [drawFound()]
        : [drawModel(), drawData(), drawStage(), drawMethod(), drawTraining(), advanced && drawAdvanced(), drawPlace()];
      while (form.lastElementChild && form.lastElementChild !== line) form.lastElementChild.remove();
      form.append(...(line.parentNode ? [] : [line]), ...cards.filter(Boolean));
      at(".lead").textContent = studio.order.model() === offer.first.model
        && studio.order.train() === offer.first.data.train
        ? say("Everything is set for a first run: a small model, sample data and LoRA. Press Start, or change "
          + "what you like.")
        : say("The summary says what this will take. Press Start, or change what you like.");
      at(".shape").replaceChildren(studio.segments("Form or YAML", [["form", "Form"], ["yaml", "YAML"]], shape, turn));
    }

    // Bring the setting at a path such as stage.rewards into sight, from behind the Advanced switch too, or its card.
    const cardOf = (path) => form.querySelector(`.card-${path.split(".")[0].replace(/\W/g, "")}`);
    const fieldOf = (path) => form.querySelector(`[data-path="${path.replace(/[^\w.-]/g, "")}"]`);
    studio.reveals = (path) => Boolean(fieldOf(path) || cardOf(path));
    studio.reveal = (path) => {
      turn("form");
      search.value = "";
      const [section, key] = path.split(".");
      const hidden = sections().some((one) => one.key === section
        && one.knobs.some((knob) => knob.key === key && knob.advanced));
      if (hidden && !advanced) { advanced = true; studio.store("studio-advanced", "yes"); }
      draw();
      const found = fieldOf(path) || cardOf(path);
      found?.closest("details")?.setAttribute("open", "");
      found?.scrollIntoView({ block: "center" });
      found?.querySelector("input, select, textarea, button")?.focus({ preventScroll: true });
    };

    async function turn(wanted) {
      if (wanted === shape) return;
      if (wanted === "yaml" && written === null) {
        yaml.value = (await server.write({ order: studio.order.value })).yaml;
        written = yaml.value;
      }
      shape = wanted;
      form.hidden = wanted === "yaml";
      at(".tune-yaml").hidden = wanted !== "yaml";
      draw();
    }
    const typed = async () => {
      const found = await server.read({ yaml: yaml.value, lang: studio.language }).catch((problem) => ({
        error: problem.status === 413 ? { message: say("The order is too long."), hint: "" } : studio.trouble(problem)
      }));
      at(".yaml-fault").hidden = !found.error;
      if (found.error) {
        at(".yaml-fault").textContent = `${found.error.message} ${found.error.hint}`;
        summary.refuse(found.error);
        return;
      }
      written = yaml.value;
      studio.order.replace(found.order, "yaml");
    };
    yaml.addEventListener("input", () => { clearTimeout(yaml.later); yaml.later = setTimeout(typed, 400); });
    yaml.addEventListener("keydown", (event) => {
      if (event.key === "Tab" && !event.shiftKey && yaml.selectionStart !== yaml.selectionEnd) {
        event.preventDefault();
      }
    });

    window.addEventListener("studio:order", ({ detail }) => {
      if (detail.from !== "yaml") { written = null; if (shape === "yaml") { shape = "form"; turn("yaml"); } }
      if (detail.from !== "form") draw();
      else {
        form.querySelector(".switch-line")?.replaceWith(drawSwitch());
        for (const group of form.querySelectorAll(".group")) group.tell();
      }
      summary.refresh();
    });
    window.addEventListener("studio:language", () => { draw(); summary.refresh(true); });
    window.addEventListener("studio:uploads", async () => {
      const answer = await server.offer({}).catch(() => null);
      if (answer?.form) {
        offer = studio.offer = answer;
        draw();
        window.dispatchEvent(new CustomEvent("studio:offered"));
      }
    });
    studio.translate(element);
    draw();
    summary.refresh(true);
  };
})();
