// The doctor's card: what works on this computer, tried with small random models; and what is known to be wrong before
// that.
(() => {
  const studio = window.studio, make = studio.element;
  const SIGNS = { ok: "✓", failed: "✗", skipped: "–" };

  studio.doctorPanel = () => {
    const node = make("section", { class: "card doctor" });
    let timer = null, key = null, seen = null, begun = 0, open = false;

    const begin = async () => {
      begun = Date.now();
      draw();
      try { await studio.call("examine"); } catch (problem) { begun = 0; studio.tell(problem); }
      look();
    };
    const report = async () => {
      const data = await studio.askFile("studio-bar", "doctors_report", {}).catch(() => null);
      if (data)
        studio.save(data, seen.answer.file);
      else
        studio.tell({ message: studio.say("The file cannot be read.") });
    };
    const going = () => seen?.state === "going" || Date.now() - begun < 15000 && seen?.state !== "going";
    const button = (text, kind = "") => make("button",
      { type: "button", job: "examine", class: `button ${kind}`, onclick: begin }, text);
    const part = (one) => make("li", { class: one.state },
      make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[one.state]),
      make("div", {}, make("b", {}, studio.told(one.name)),
        make("span", { class: "hidden-but-read" },
          ` ${studio.say(one.state === "ok" ? "works" : one.state === "failed" ? "does not work" : "left out")}`),
        make("p", { class: one.state === "failed" ? "bad" : "quiet" }, one.why)));

    const outcome = (answer) => {
      const failed = answer.parts.filter((one) => one.state === "failed");
      const left = answer.parts.filter((one) => one.state === "skipped").length;
      const good = !failed.length && answer.usable;
      const list = make("details",
        { class: "doctor-parts", open: open || null, ontoggle: (event) => { open = event.target.open; } },
        make("summary", {}, studio.say("What was tried")), make("ul", {}, answer.parts.map(part)));
      return [make("p", { class: good ? "good" : "bad" },
        make("b", {},
          good
            ? studio.say("Everything that was tried works here.")
            : studio.say("{n} of {all} did not pass.", { n: failed.length, all: answer.parts.length }))),
        make("p", { class: "quiet num" },
          [studio.duration(answer.seconds), left ? studio.say("{n} left out", { n: left }) : null].filter(Boolean)
            .join(" · ")),
        failed.length ? make("ul", {}, failed.map(part)) : null, list,
        make("div", { class: "acts" },
          make("button", { type: "button", job: "doctors_report", class: "button", onclick: report },
            studio.say("Download the report")),
          button(studio.say("Check again")))];
    };
    const progress = (answer) => {
      const done = answer?.parts?.length || 0, all = answer?.of || 0;
      return [make("p", { class: "doctor-now", role: "status" }, make("span", { class: "spinner" }),
        make("span", {}, answer?.doing ? studio.told(answer.doing) : studio.say("Starting…")),
        all ? make("span", { class: "quiet num" }, studio.say("{n} of {all} done", { n: done, all })) : null),
      all
        ? make("span", {
          class: "row-meter doctor-meter", role: "img", "aria-label": studio.say("{n} of {all} done", { n: done, all })
        }, make("i", { style: `width:${(100 * done) / all}%` }))
        : null,
      make("p", { class: "quiet" }, studio.say("A run that is ordered meanwhile waits. This page may be closed."))];
    };
    const draw = () => {
      const notes = (seen?.notices
        || []).map((one) => make("div", { class: "call warn", role: "status" },
          make("div", {}, make("b", {}, one.text), make("p", {}, one.hint))));
      const intro = [make("p", { class: "quiet" },
        studio.say("Trains every method for some steps with a small random model, and says in plain words what works "
          + "on this computer. It takes some minutes and needs no network.")),
        seen?.state === "cut off" ? make("p", { class: "bad" }, studio.say("The last examination was cut off.")) : null,
        make("div", { class: "acts" }, button(studio.say("Check this computer")))];
      const body = going()
        ? progress(seen?.state === "going" ? seen.answer : null)
        : seen?.state === "done"
        ? outcome(seen.answer)
        : intro;
      node.replaceChildren(...[make("h3", {}, studio.say("Does everything work here?")), ...notes, ...body].flat()
        .filter(Boolean));
    };
    const look = async () => {
      clearTimeout(timer);
      if (studio.tab() === "runs" && !document.hidden && node.isConnected && !node.closest("[hidden]")) {
        const answer = await studio.ask("studio-bar", "examined", { lang: studio.language }).catch(() => null);
        if (answer) { seen = answer; if (seen.state === "going") begun = 0; }
        const now = JSON.stringify([seen, studio.language, going()]);
        if (now !== key) { key = now; draw(); }
      }
      timer = setTimeout(look, going() ? 1500 : 10000);
    };
    draw();
    window.addEventListener("studio:tab", look);
    window.addEventListener("studio:language", () => { draw(); look(); });
    setTimeout(look, 0);
    return { node };
  };
})();
