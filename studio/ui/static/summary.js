// The card that stays in view: what the order amounts to, and the one button, whose label says what is missing.
(() => {
  const studio = window.studio, { element: make, button, say, number, duration } = studio;
  const CAUSES = {
    weights: "Model", trained: "Trained parameters", gradients: "Gradients", optimizer: "Optimizer",
    activations: "Activations", logits: "Logits",
    workspace: "Workspace", overhead: "Overhead" };
  const SPEEDS = {
    runs: "forecast from this computer's runs", calibration: "forecast from a timing of this computer",
    "data sheet": "forecast from a data sheet"
  };
  const AGAIN = 10000; // milliseconds until a service that did not answer is looked at again
  const TAUGHT = { full: "Full fine-tuning", lora: "LoRA", qlora: "QLoRA" };

  studio.summary = (box, server, method) => {
    let other = ""; // a device that is looked at instead of the order's own
    let last = null, asked = 0, starting = false, timing = false, refused = null, later = 0, again = 0;

    const row = (label, value, note) => make("div", { class: "row" }, make("dt", {}, say(label)),
      make("dd", { class: "num" }, value, note && make("small", {}, note)));
    const training = (key) => {
      const given = studio.order.get(`training.${key}`);
      return given === undefined ? studio.offer.form.training.find((knob) => knob.key === key)?.default : given;
    };

    // The order's own device, or another one to look at: a known card, or hardware that is rented by the hour.
    const devices = (found) => {
      const own = [found?.place, found?.here?.name].filter(Boolean).join(": ") || say("This one");
      const option = (name, label) => make("option", { value: name, selected: name === other }, label);
      const { cards, rented } = studio.offer.devices;
      const brief = (name) => name.replace(/^(NVIDIA |Tesla )?(GeForce )?/, "");
      return make("div", { class: "row device-row" },
        make("dt", {}, make("label", { for: "summary-device" }, say("Device"))),
        make("dd", {}, make("select", { id: "summary-device", class: "inline-select",
          onchange: (event) => { other = event.target.value; ask(); } },
          option("", own),
          make("optgroup", { label: say("By the hour, on the Hub (Job or Space)") },
            rented.map((one) => option(one.name, `${one.name.split(":")[1]}: ${one.count > 1 ? `${one.count} × ` : ""}`
              + `${brief(one.label)}, $${one.price.toFixed(2)}/h`))),
          make("optgroup", { label: say("Other cards") },
            cards.map((one) => option(one.name, `${brief(one.name)}, ${studio.bytes(one.memory)}`))))));
    };
    const lookedAt = (found) => {
      if (!found?.elsewhere) return null;
      const { name, fault } = found.elsewhere, kind = name.includes(":") && name.split(":")[0];
      return make("div", { class: "looked-at" },
        fault
          ? make("p", { class: "bad" }, say("Not there:"), " ", fault.message, " ", fault.hint)
          : make("p", {}, say("Only looked at: the run itself trains on {device}.",
            { device: found.here?.name || found.place })),
        make("div", { class: "looked-acts" },
          kind && !fault && button("plain", say("Train there"), () => {
            other = "";
            studio.order.set("place", { kind, [placeKnob(kind)]: name.slice(kind.length + 1) }, undefined, "place");
          }),
          button("plain", say("Back"), () => { other = ""; ask(); })));
    };
    const placeKnob = (kind) => studio.offer.form.places.find((one) => one.kind === kind).knobs[0].key;

    const memory = (found) => {
      const forecast = found.memory;
      if (!found.device)
        return make("div", { class: "memory" },
          make("p", { class: "quiet small" },
            say("What {place} computes with is known once something was sent there.", { place: found.place })));
      if (!forecast)
        return make("div", { class: "memory" },
          make("p", { class: "quiet small" }, say(found.model && !found.model.local
            ? "Memory and time are known once the model is on this computer." : "No forecast for this order.")));
      const whole = Math.max(found.device.memory, forecast.total);
      const parts = Object.entries(forecast.by_cause).filter(([, bytes]) => bytes > 0);
      const over = forecast.high > found.device.memory;
      return make("div", { class: "memory" },
        make("div", { class: "row" },
          make("span", {}, say(found.device.kind === "cpu" ? "Memory (RAM)" : "GPU memory")),
          make("b", { class: `num ${over ? "bad" : ""}` },
            `${studio.bytes(forecast.total)} / ${studio.bytes(found.device.memory)}`)),
        make("div", {
          class: "bar", role: "img",
          "aria-label": parts.map(([cause, bytes]) => `${say(CAUSES[cause] || cause)} ${studio.bytes(bytes)}`)
            .join(", ")
        },
          parts.map(([cause, bytes], place) => make("i", {
            class: `cause cause-${place}`, style: `width:${(100 * bytes) / whole}%`,
            title: reason(forecast, cause, bytes)
          }))),
        make("ul", { class: "legend" },
          parts.map(([cause, bytes], place) => make("li", { title: reason(forecast, cause, bytes) },
            make("i", { class: `cause-${place}` }),
            say(CAUSES[cause] || cause), make("span", { class: "num" }, studio.bytes(bytes))))),
        make("p", { class: "quiet small" },
          say("Between {low} and {high}.", { low: studio.bytes(forecast.low), high: studio.bytes(forecast.high) }),
          over ? " " + say("This does not fit.") : "",
          found.record?.runs ? " " + studio.told(found.record.text) : ""),
        found.seven
          && make("details", { class: "seven" },
            make("summary", { class: "quiet small" }, say("What a 7B model takes")),
            make("table", { class: "small" },
              found.seven.map((one) => make("tr", {}, make("td", {}, say(TAUGHT[one.method])),
                make("td", { class: "num" }, studio.bytes(one.total)),
                make("td", { class: "quiet" }, say("tutorials say {size}", { size: one.said })))))));
    };
    const limits = (forecast) => { const { batch_size: batch, max_length: length } = forecast?.limits || {};
      return make("p", { class: "quiet small" },
        [batch && say("The largest batch that fits: {n}.", { n: number(batch) }),
          length && say("The longest rows that fit: {n} tokens.", { n: number(length) })].filter(Boolean)
          .join(" "));
        };
    const reason = (forecast, cause, bytes) => {
      const explained = studio.told(forecast.explained?.[cause] || "");
      return `${say(CAUSES[cause] || cause)}: ${studio.bytes(bytes)}\n${explained}`;
    };

    const advice = (found) => (found.advice || []).slice(0, 3)
      .map((one) => make("button", { class: "advice-line", onclick: () => take(one) },
        make("b", {}, studio.told(one.text)),
        make("span", {}, one.saves ? say("saves {bytes}", { bytes: studio.bytes(one.saves) }) : ""),
        one.cost && make("small", {}, studio.told(one.cost))));
    const take = (one) => {
      for (const [path, value] of Object.entries(one.change)) studio.order.set(path, value, undefined, "advice");
    };

    // What a refusal of the setting at this path asks for, in a few words.
    const unrewarded = (where) => where === "stage.rewards" && !studio.order.get(where)?.length;
    const lacking = (where) => (unrewarded(where)
      ? "Add a reward"
      : {
        model: "Choose another model", data: "The data needs a look", place: "Name the computer",
        stage: "The stage needs a look", method: "The method needs a look", training: "A setting needs a look"
      }[where.split(".")[0]] || "Something does not fit");
    const label = (found) => {
      if (starting) return say("Starting…");
      if (!found) return say("One moment…");
      if (!studio.may("start")) return say("Only the owner can train here");
      if (found.missing === "data") return say("Choose a data set");
      if (found.blocked) return say("Training is switched off here");
      if (found.fault) return say(lacking(found.fault.where || ""));
      return say("Start training");
    };

    const draw = () => {
      const found = last, ready = found && !found.missing && !found.fault && !found.blocked && !starting;
      const name = studio.order.model() === "starter" ? "SmolLM2-135M-Instruct" : studio.order.model().split("/").pop();
      const fault = refused || found?.fault;
      const accumulation = found?.accumulation ?? training("accumulation");
      const batch = `${training("batch_size")} × ${accumulation} = ${found?.effective ?? "–"}`;
      const rank = studio.order.method().includes("lora") ? ` · r = ${studio.order.get("method.rank") ?? 16}` : "";
      box.replaceChildren(...[
        make("p", { class: "eyebrow" }, say("This run")),
        make("h2", { class: "summary-model", title: studio.order.model() }, name),
        make("dl", {},
          devices(found),
          row("Data", found?.data ? say("{n} rows", { n: number(found.data.train) }) : "–",
            found?.data
              ? (found.data.held ? say("+ {n} held out", { n: number(found.data.held) }) : say("none held out"))
              : ""),
          row("Method", say(method().label) + rank),
          row("Trained", found?.trainable != null ? number(found.trainable) : "–",
            found?.share != null ? `${number(100 * found.share, found.share < 0.01 ? 3 : 1)} %` : ""),
          row("Batch", batch, say("rows a step")),
          row("Steps", found?.steps != null ? number(found.steps) : "–",
            say("{n} epochs", { n: number(training("epochs"), 2) })),
          row("Learning rate", found?.rate != null ? String(found.rate) : "–"),
          row("Time", found?.seconds != null ? "≈ " + duration(found.seconds) : "–",
            found?.seconds != null ? said(found.speed_from) : ""),
          found?.speed_from === "data sheet" && !found.place && !found.elsewhere && timer(),
          found?.cost
            && row("Cost",
              found.cost.run == null ? "–" : found.cost.run < 0.01 ? "< $0.01" : `≈ $${found.cost.run.toFixed(2)}`,
              say("{price} an hour, setting up not counted", { price: "$" + found.cost.hour.toFixed(2) })),
          row("Disk", found?.disk != null ? studio.bytes(found.disk) : "–")),
        lookedAt(found),
        found?.model && !found.model.local
          && make("p", { class: "download quiet small" },
            found.model.bytes
              ? say("{bytes} are downloaded at the start.", { bytes: studio.bytes(found.model.bytes) })
            : say("The model is downloaded at the start."),
            " ", say("Until then the tokens of the rows are a guess.")),
        found && memory(found),
        found && advice(found).length > 0
          && make("div", { class: "advices" }, make("p", { class: "quiet small" }, say("What would help:")),
            advice(found), limits(found.memory)),
        found?.service && make("p", { class: "note", role: "status" }, found.service),
        found?.note && make("p", { class: "note" }, found.note),
        !found?.place && make("div", { class: "before-run" },
          button("chip preset", say("Will it help?"), () => studio.plan(), { job: "start_plan", disabled: !ready }),
          button("chip preset", say("Race settings…"), () => studio.race(method()),
            { job: "start_race", disabled: !ready })),
        make("div", { class: "start" },
          button("primary", label(found), start, { job: "start", disabled: !ready }),
          fault
          // a choice that is still to be made is no mistake, and its hint is how to write it down
            && make("p", { class: unrewarded(fault.where) ? "note" : "fault", role: "alert" },
              make("b", {}, fault.message),
              fault.hint && !unrewarded(fault.where) ? " " + fault.hint : " ",
              (fault.where || "").startsWith("data")
                ? button("plain", say("Look at the data"), () => studio.open("data"))
                : fault.where && studio.reveals(fault.where)
                && button("plain", say("Show where"), () => studio.reveal(fault.where))),
          found?.blocked
            && make("p", { class: "fault" }, found.blocked,
              found.duplicate
                && make("a", { class: "plain", href: found.duplicate, target: "_blank", rel: "noopener" },
                  say("Duplicate this Space"))),
          ...(found?.notices || []).filter((one) => one.text !== fault?.message)
            .map((one) => make("p", { class: "note" }, make("b", {}, one.text), one.hint ? " " + one.hint : ""))),
      ].filter(Boolean));
      fit();
    };
    // What stands above the card until the page is scrolled is taken off its height: its button stays in the window.
    const fit = () => {
      const above = box.getBoundingClientRect().top - parseFloat(getComputedStyle(box).top);
      box.style.setProperty("--above", `${Math.max(0, above)}px`);
    };
    for (const moved of ["scroll", "resize", "studio:tab"]) window.addEventListener(moved, fit, { passive: true });

    async function start() {
      if (starting) return; // a second click before the button is greyed
      starting = true; refused = null; draw();
      try {
        const made = await studio.call("start", (await server.write({ order: studio.order.value })).yaml);
        studio.open("runs", { run: made.run });
      } catch (error) { refused = studio.trouble(error); }
      starting = false; draw();
    }

    const said = (from) => make("span", { title: say(SPEEDS[from]) }, say("forecast"));
    const timer = () => make("div", { class: "row" }, make("dt", {}, say("By a data sheet")), make("dd", {},
      button("plain", say(timing ? "Timing… 30 s" : "Time this computer"), time,
        { job: "time_device", disabled: timing,
          title: say("A small model is trained for half a minute; a run that is ordered meanwhile waits.") })));
    async function time() {
      if (timing) return;
      timing = true; draw();
      await studio.perform("time_device");
      timing = false; ask();
    }

    // A question can take long (a model looked up at the Hub) and a browser holds few connections: only the tab in
    // sight asks.
    let owed = false;
    const inSight = () => !document.hidden && studio.tab() !== "runs" && studio.tab() !== "chat";
    const settle = () => { if (owed && inSight()) ask(); };
    window.addEventListener("studio:tab", settle);
    document.addEventListener("visibilitychange", settle);
    const ask = async () => {
      owed = !inSight();
      if (owed) return;
      const mine = (asked += 1);
      box.classList.add("waiting");
      try {
        const found = await server.look({ order: studio.order.value, lang: studio.language, name: other || undefined });
        if (mine === asked) { last = found; refused = null; }
      } catch (error) {
        if (mine === asked) refused = studio.trouble(error);
      }
      clearTimeout(again);
      // somebody else was asked, and has not answered yet
      if (mine === asked && last?.service) again = setTimeout(ask, AGAIN);
      if (mine === asked) {
        box.classList.remove("waiting");
        draw();
        window.dispatchEvent(new CustomEvent("studio:summary", { detail: last }));
      }
    };
    window.addEventListener("studio:permit", draw);
    studio.live.listen((what) => { if (what.link && !studio.live.since) ask(); });
    draw();
    return {
      get last() { return last; },
      get lookedAt() { return other; },
      refresh(now) { clearTimeout(later); later = setTimeout(ask, now ? 0 : 150); draw(); },
      refuse(error) { refused = error; draw(); },
    };
  };
})();
