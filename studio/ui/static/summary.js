// The card that stays in view: what the order amounts to, and the one button, whose label says what is missing.
(() => {
  const studio = window.studio, make = studio.element;
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

    const row = (label, value, note) => make("div", { class: "row" }, make("dt", {}, studio.say(label)),
      make("dd", { class: "num" }, value, note && make("small", {}, note)));
    const training = (key) => {
      const given = studio.order.get(`training.${key}`);
      return given === undefined ? studio.offer.form.training.find((knob) => knob.key === key)?.default : given;
    };

    // The order's own device, or another one to look at: a known card, or hardware that is rented by the hour.
    const devices = (found) => {
      const own = [found?.place, found?.here?.name].filter(Boolean).join(": ") || studio.say("This one");
      const option = (name, label) => make("option", { value: name, selected: name === other }, label);
      const { cards, rented } = studio.offer.devices;
      const brief = (name) => name.replace(/^(NVIDIA |Tesla )?(GeForce )?/, "");
      return make("div", { class: "row device-row" },
        make("dt", {}, make("label", { for: "summary-device" }, studio.say("Device"))),
        make("dd", {}, make("select", { id: "summary-device", class: "inline-select",
          onchange: (event) => { other = event.target.value; ask(); } },
          option("", own),
          make("optgroup", { label: studio.say("By the hour, on the Hub (Job or Space)") },
            rented.map((one) => option(one.name, `${one.name.split(":")[1]}: ${one.count > 1 ? `${one.count} × ` : ""}`
              + `${brief(one.label)}, $${one.price.toFixed(2)}/h`))),
          make("optgroup", { label: studio.say("Other cards") },
            cards.map((one) => option(one.name, `${brief(one.name)}, ${studio.bytes(one.memory)}`))))));
    };
    const lookedAt = (found) => {
      if (!found?.elsewhere) return null;
      const { name, fault } = found.elsewhere, kind = name.includes(":") && name.split(":")[0];
      return make("div", { class: "looked-at" },
        fault
          ? make("p", { class: "bad" }, studio.say("Not there:"), " ", fault.message, " ", fault.hint)
          : make("p", {}, studio.say("Only looked at: the run itself trains on {device}.",
            { device: found.here?.name || found.place })),
        make("div", { class: "looked-acts" },
          kind && !fault && make("button", { type: "button", class: "plain", onclick: () => {
            other = "";
            studio.order.set("place", { kind, [placeKnob(kind)]: name.slice(kind.length + 1) }, undefined, "place");
          } }, studio.say("Train there")),
          make("button", { type: "button", class: "plain", onclick: () => { other = ""; ask(); } },
            studio.say("Back"))));
    };
    const placeKnob = (kind) => studio.offer.form.places.find((one) => one.kind === kind).knobs[0].key;

    const memory = (found) => {
      const forecast = found.memory;
      if (!found.device)
        return make("div", { class: "memory" },
          make("p", { class: "quiet small" },
            studio.say("What {place} computes with is known once something was sent there.", { place: found.place })));
      if (!forecast)
        return make("div", { class: "memory" },
          make("p", { class: "quiet small" }, studio.say(found.model && !found.model.local
            ? "Memory and time are known once the model is on this computer." : "No forecast for this order.")));
      const whole = Math.max(found.device.memory, forecast.total);
      const parts = Object.entries(forecast.by_cause).filter(([, bytes]) => bytes > 0);
      const over = forecast.high > found.device.memory;
      return make("div", { class: "memory" },
        make("div", { class: "row" },
          make("span", {}, studio.say(found.device.kind === "cpu" ? "Memory (RAM)" : "GPU memory")),
          make("b", { class: `num ${over ? "bad" : ""}` },
            `${studio.bytes(forecast.total)} / ${studio.bytes(found.device.memory)}`)),
        make("div", {
          class: "bar", role: "img",
          "aria-label": parts.map(([cause, bytes]) => `${studio.say(CAUSES[cause] || cause)} ${studio.bytes(bytes)}`)
            .join(", ")
        },
          parts.map(([cause,
            bytes], place) => make("i", {
              class: `cause cause-${place}`, style: `width:${(100 * bytes) / whole}%`,
              title: reason(forecast, cause, bytes)
            }))),
        make("ul", { class: "legend" },
          parts.map(([cause,
            bytes], place) => make("li", { title: reason(forecast, cause, bytes) },
              make("i", { class: `cause-${place}` }),
              studio.say(CAUSES[cause] || cause), make("span", { class: "num" }, studio.bytes(bytes))))),
        make("p", { class: "quiet small" },
          studio.say("Between {low} and {high}.",
            { low: studio.bytes(forecast.low), high: studio.bytes(forecast.high) }),
          over ? " " + studio.say("This does not fit.") : "",
          found.record?.runs ? " " + studio.told(found.record.text) : ""),
        found.seven
          && make("details", { class: "seven" },
            make("summary", { class: "quiet small" }, studio.say("What a 7B model takes")),
            make("table", { class: "small" },
              found.seven.map((one) => make("tr", {}, make("td", {}, studio.say(TAUGHT[one.method])),
                make("td", { class: "num" }, studio.bytes(one.total)),
                make("td", { class: "quiet" }, studio.say("tutorials say {size}", { size: one.said })))))));
    };
    const limits = (forecast) => { const { batch_size: batch, max_length: length } = forecast?.limits || {};
      return make("p", { class: "quiet small" },
        [batch && studio.say("The largest batch that fits: {n}.", { n: studio.number(batch) }),
          length && studio.say("The longest rows that fit: {n} tokens.", { n: studio.number(length) })].filter(Boolean)
            .join(" "));
        };
    const reason = (forecast, cause, bytes) => {
      const explained = studio.told(forecast.explained?.[cause] || "");
      return `${studio.say(CAUSES[cause] || cause)}: ${studio.bytes(bytes)}\n${explained}`;
    };

    const advice = (found) => (found.advice || []).slice(0, 3)
      .map((one) => make("button", { type: "button", class: "advice-line", onclick: () => take(one) },
        make("b", {}, studio.told(one.text)),
        make("span", {}, one.saves ? studio.say("saves {bytes}", { bytes: studio.bytes(one.saves) }) : ""),
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
      if (starting) return studio.say("Starting…");
      if (!found) return studio.say("One moment…");
      if (!studio.may("start")) return studio.say("Only the owner can train here");
      if (found.missing === "data") return studio.say("Choose a data set");
      if (found.blocked) return studio.say("Training is switched off here");
      if (found.fault) return studio.say(lacking(found.fault.where || ""));
      return studio.say("Start training");
    };

    const draw = () => {
      const found = last, ready = found && !found.missing && !found.fault && !found.blocked && !starting;
      const name = studio.order.model() === "starter" ? "SmolLM2-135M-Instruct" : studio.order.model().split("/").pop();
      const fault = refused || found?.fault;
      const accumulation = found?.accumulation ?? training("accumulation");
      const batch = `${training("batch_size")} × ${accumulation} = ${found?.effective ?? "–"}`;
      const rank = studio.order.method().includes("lora") ? ` · r = ${studio.order.get("method.rank") ?? 16}` : "";
      box.replaceChildren(...[
        make("p", { class: "eyebrow" }, studio.say("This run")),
        make("h2", { class: "summary-model", title: studio.order.model() }, name),
        make("dl", {},
          devices(found),
          row("Data", found?.data ? studio.say("{n} rows", { n: studio.number(found.data.train) }) : "–",
            found?.data
              ? (found.data.held
                ? studio.say("+ {n} held out", { n: studio.number(found.data.held) })
                : studio.say("none held out"))
              : ""),
          row("Method", studio.say(method().label) + rank),
          row("Trained", found?.trainable != null ? studio.number(found.trainable) : "–",
            found?.share != null ? `${studio.number(100 * found.share, found.share < 0.01 ? 3 : 1)} %` : ""),
          row("Batch", batch, studio.say("rows a step")),
          row("Steps", found?.steps != null ? studio.number(found.steps) : "–",
            studio.say("{n} epochs", { n: studio.number(training("epochs"), 2) })),
          row("Learning rate", found?.rate != null ? String(found.rate) : "–"),
          row("Time", found?.seconds != null ? "≈ " + studio.duration(found.seconds) : "–",
            found?.seconds != null ? said(found.speed_from) : ""),
          found?.speed_from === "data sheet" && !found.place && !found.elsewhere && timer(),
          found?.cost
            && row("Cost",
              found.cost.run == null ? "–" : found.cost.run < 0.01 ? "< $0.01" : `≈ $${found.cost.run.toFixed(2)}`,
              studio.say("{price} an hour, setting up not counted", { price: "$" + found.cost.hour.toFixed(2) })),
          row("Disk", found?.disk != null ? studio.bytes(found.disk) : "–")),
        lookedAt(found),
        found?.model && !found.model.local
          && make("p", { class: "download quiet small" },
            found.model.bytes
              ? studio.say("{bytes} are downloaded at the start.", { bytes: studio.bytes(found.model.bytes) })
            : studio.say("The model is downloaded at the start."),
            " ", studio.say("Until then the tokens of the rows are a guess.")),
        found && memory(found),
        found && advice(found).length > 0
          && make("div", { class: "advices" }, make("p", { class: "quiet small" }, studio.say("What would help:")),
            advice(found), limits(found.memory)),
        found?.service && make("p", { class: "note", role: "status" }, found.service),
        found?.note && make("p", { class: "note" }, found.note),
        !found?.place && make("div", { class: "before-run" },
          make("button", {
            type: "button", job: "start_plan", class: "chip preset", disabled: !ready, onclick: () => studio.plan()
          }, studio.say("Will it help?")),
          make("button", {
            type: "button", job: "start_race", class: "chip preset", disabled: !ready,
            onclick: () => studio.race(method())
          }, studio.say("Race settings…"))),
        make("div", { class: "start" },
          make("button", { type: "button", job: "start", class: "primary", disabled: !ready, onclick: start },
            label(found)),
          fault
            // a choice that is still to be made is no mistake, and its hint is how to write it down
            && make("p", { class: unrewarded(fault.where) ? "note" : "fault", role: "alert" },
              make("b", {}, fault.message),
              fault.hint && !unrewarded(fault.where) ? " " + fault.hint : " ",
              (fault.where || "").startsWith("data")
                ? make("button", { type: "button", class: "plain", onclick: () => studio.open("data") },
                  studio.say("Look at the data"))
                : fault.where && studio.reveals(fault.where)
                  && make("button", { type: "button", class: "plain", onclick: () => studio.reveal(fault.where) },
                    studio.say("Show where"))),
          found?.blocked
            && make("p", { class: "fault" }, found.blocked,
              found.duplicate
                && make("a", { class: "plain", href: found.duplicate, target: "_blank", rel: "noopener" },
                  studio.say("Duplicate this Space"))),
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

    const said = (from) => make("span", { title: studio.say(SPEEDS[from]) }, studio.say("forecast"));
    const timer = () => make("div", { class: "row" }, make("dt", {}, studio.say("By a data sheet")), make("dd", {},
      make("button",
        {
          type: "button", job: "time_device", class: "plain",
          title: studio.say("A small model is trained for half a minute; a run that is ordered meanwhile waits."),
          disabled: timing, onclick: time }, studio.say(timing ? "Timing… 30 s" : "Time this computer"))));
    async function time() {
      if (timing) return;
      timing = true; draw();
      try { await studio.call("time_device"); } catch (error) { studio.tell(studio.trouble(error)); }
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
        const found = await server.look(
          { order: studio.order.value, lang: studio.language, name: other || undefined });
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
