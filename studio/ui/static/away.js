// Take a run away: adapter, merged model, GGUF, Ollama folder, report; each with its proof of equal answers.
(() => {
  const studio = window.studio, make = studio.element;
  const KINDS = [
    ["adapter", "Adapter", "Only what was learnt, some megabytes. For programs that load it beside the base model."],
    ["merged", "Whole model", "Base and adapter as one model at 16 bits, for transformers, vLLM and others."],
    ["gguf", "GGUF, 16 bits", "One file for llama.cpp, LM Studio and others, with nothing rounded beyond 16 bits."],
    ["gguf-q8", "GGUF, 8 bits", "About half the size; the proof tells what the rounding costs."],
    ["ollama", "Ollama", "A folder with the model and its Modelfile: ollama create mine -f Modelfile."],
  ];

  studio.takeAway = () => {
    const node = make("div", { class: "card away" });
    let row = null, timer = null, key = null;
    const begin = async (kind) => { try { await studio.call("take_away", row.id, kind); } catch (problem) { studio.tell(problem); } look(); };
    const fetchFile = async (kind, name) => {
      const data = await studio.askFile("studio-bar", "download", { id: row.id, kind }).catch(() => null);
      if (data) studio.save(data, name); else studio.tell({ message: studio.say("The file cannot be read.") });
    };
    // What a proof found, in sentences: a proof that failed leaves the file standing, and says so.
    const proof = (found) => {
      if (!found) return [];
      if (found.failed) return [studio.say("The file stands, but it could not be proved:"), studio.told(found.failed.message), studio.told(found.failed.hint || "")];
      const said = [studio.say("{agree} of {prompts} answers equal the trained model's, {stopped} ended by themselves, {same} of {texts} texts read alike ({by}).",
        { ...found, same: found.tokenizer.same, texts: found.tokenizer.texts })];
      const loss = found.loss, number = (value) => (value == null ? "–" : value.toFixed(4));
      if (loss) said.push(studio.say("Held-out loss: trained {trained}, merged {merged}, exported {exported}.", { trained: number(loss.trained), merged: number(loss.merged), exported: number(loss.exported) }));
      return said.concat(...(found.also || []).map(proof));
    };
    const line = ([kind, name, about], one) => {
      const acts = [];
      if (one.state === "going") acts.push(make("span", { class: "spinner", role: "status", "aria-label": studio.say("Being written") }));
      else if (one.state === "done" && one.answer.there) {
        if (one.answer.file) acts.push(make("button", { type: "button", class: "button", onclick: () => fetchFile(kind, one.answer.path.split("/").pop()) }, studio.say("Download")));
        else acts.push(make("button", { type: "button", class: "button", onclick: () => navigator.clipboard?.writeText(one.answer.path).then(() => studio.tell({ message: studio.say("Copied.") }, "good")) }, studio.say("Copy the path")));
      } else acts.push(make("button", { type: "button", job: "take_away", class: "button", onclick: () => begin(kind) }, studio.say("Write it")));
      const said = one.state === "going" ? studio.told(one.said) : one.state === "failed" ? studio.told(one.error.message) + (one.error.hint ? ` ${studio.told(one.error.hint)}` : "")
        : one.state === "done" && one.answer.there ? [studio.bytes(one.answer.bytes), proof(one.answer.proof).filter(Boolean).join(" "), studio.told(one.answer.note || ""), one.answer.path].filter(Boolean).join(" · ") : "";
      return make("div", { class: "repair" }, make("div", {}, make("b", {}, studio.say(name)), make("p", { class: "quiet" }, studio.say(about)), said ? make("p", { class: one.state === "failed" ? "bad" : "quiet num" }, said) : null), make("div", { class: "acts" }, acts));
    };
    const look = async () => {
      clearTimeout(timer);
      if (!row || studio.tab() !== "runs" || document.hidden) return;
      const answer = await studio.ask("studio-bar", "taken", { id: row.id }).catch(() => null);
      if (answer && row) {
        const now = JSON.stringify([answer, studio.language, row.id]);
        if (now !== key) {
          key = now;
          node.replaceChildren(make("p", { class: "quiet" }, studio.say("After each export the trained and the exported model are asked the same 20 questions; answers, ids of difficult texts and held-out loss are compared.")),
            ...KINDS.map((kind) => line(kind, answer.exports[kind[0]] || { state: "none" })),
            make("div", { class: "repair" }, make("div", {}, make("b", {}, studio.say("Report")), make("p", { class: "quiet" }, studio.say("One HTML file with the order, the data's verdicts, curves, samples and numbers; needs no network."))),
              make("button", { type: "button", class: "button", onclick: () => fetchFile("report", `${row.id}.html`) }, studio.say("Download"))));
        }
      }
      timer = setTimeout(look, answer && Object.values(answer.exports).some((one) => one.state === "going") ? 1500 : 6000);
    };
    const back = () => { if (row) look(); };
    window.addEventListener("studio:tab", back);
    document.addEventListener("visibilitychange", back);
    return { node, show(wanted) {
      row = wanted;
      clearTimeout(timer);
      if (!row) return;
      if (!row.saved && row.state !== "finished") { key = null; node.replaceChildren(make("div", { class: "empty" }, make("h3", {}, studio.say("Nothing to take away yet")), make("p", {}, studio.say("When the run has finished, its adapter, a whole model or a file for other programs can be written here.")))); return; }
      look();
    } };
  };
})();
