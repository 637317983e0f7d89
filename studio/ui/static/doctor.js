// The doctor's card: what works on this computer, tried with small random models; and what is known to be wrong before
// that.
(() => {
  const studio = window.studio, { element: make, button, say, duration } = studio;
  const SIGNS = { ok: "✓", failed: "✗", skipped: "–" };

  studio.doctorPanel = () => {
    const node = make("section", { class: "card doctor" });
    let timer = null, key = null, seen = null, begun = 0, open = false;

    const begin = async () => {
      begun = Date.now();
      draw();
      if (!(await studio.perform("examine"))) begun = 0;
      look();
    };
    const report = async () => {
      const data = await studio.askFile("studio-bar", "doctors_report", {}).catch(() => null);
      if (data)
        studio.save(data, seen.answer.file);
      else
        studio.tell({ message: say("The file cannot be read.") });
    };
    const going = () => seen?.state === "going" || Date.now() - begun < 15000 && seen?.state !== "going";
    const starter = (text, kind = "") => button(`button ${kind}`, text, begin, { job: "examine" });
    const part = (one) => make("li", { class: one.state },
      make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[one.state]),
      make("div", {}, make("b", {}, studio.told(one.name)),
        make("span", { class: "hidden-but-read" },
          ` ${say(one.state === "ok" ? "works" : one.state === "failed" ? "does not work" : "left out")}`),
        make("p", { class: one.state === "failed" ? "bad" : "quiet" }, one.why)));

    const outcome = (answer) => {
      const failed = answer.parts.filter((one) => one.state === "failed");
      const left = answer.parts.filter((one) => one.state === "skipped").length;
      const good = !failed.length && answer.usable;
      const list = make("details",
        { class: "doctor-parts", open: open || null, ontoggle: (event) => { open = event.target.open; } },
        make("summary", {}, say("What was tried")), make("ul", {}, answer.parts.map(part)));
      return [make("p", { class: good ? "good" : "bad" },
        make("b", {},
          good
            ? say("Everything that was tried works here.")
            : say("{n} of {all} did not pass.", { n: failed.length, all: answer.parts.length }))),
        make("p", { class: "quiet num" },
          [duration(answer.seconds), left ? say("{n} left out", { n: left }) : null].filter(Boolean).join(" · ")),
        failed.length ? make("ul", {}, failed.map(part)) : null, list,
        make("div", { class: "acts" },
          button("button", say("Download the report"), report, { job: "doctors_report" }),
          starter(say("Check again")))];
    };
    const progress = (answer) => {
      const done = answer?.parts?.length || 0, all = answer?.of || 0;
      return [...studio.progress(studio.told(answer?.doing || ""), done, all,
        say("{n} of {all} done", { n: done, all })),
        studio.waiting()];
    };
    const draw = () => {
      const notes = (seen?.notices || []).map((one) => studio.callout("warn", one.text, one.hint));
      const intro = [make("p", { class: "quiet" },
        say("Trains every method for some steps with a small random model, and says in plain words what works "
          + "on this computer. It takes some minutes and needs no network.")),
        seen?.state === "cut off" ? make("p", { class: "bad" }, say("The last examination was cut off.")) : null,
        make("div", { class: "acts" }, starter(say("Check this computer")))];
      const body = going()
        ? progress(seen?.state === "going" ? seen.answer : null)
        : seen?.state === "done" ? outcome(seen.answer) : intro;
      node.replaceChildren(...[make("h3", {}, say("Does everything work here?")), ...notes, ...body].flat()
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
