// Take a run away: adapter, merged model, GGUF, Ollama folder, report; each with its proof of equal answers.
(() => {
  const studio = window.studio, { element: make, button, say, bytes } = studio;
  const ADAPTER = ["adapter", "Adapter",
    "Only what was learnt, some megabytes. For programs that load it beside the base model."];
  const MERGED = ["merged", "Whole model",
    "Base and adapter as one model at 16 bits, for transformers, vLLM and others."];
  const OLLAMA = ["ollama", "Ollama", "A folder with the model and its Modelfile: ollama create mine -f Modelfile."];
  const BITS = [ // kind, name in the list, name of its line, what it is for; from -q6 on by llama.cpp's own quantizer
    ["gguf", "16 bits", "GGUF, 16 bits",
      "One file for llama.cpp, LM Studio and others, with nothing rounded beyond 16 bits."],
    ["gguf-q8", "8 bits", "GGUF, 8 bits", "About half the size; the proof tells what the rounding costs."],
    ["gguf-q6", "Q6_K", "GGUF, Q6_K", "Between 6 and 7 bits a weight: hardly to be told from 8."],
    ["gguf-q5", "Q5_K_M", "GGUF, Q5_K_M", "About 5.7 bits a weight, a little less exact."],
    ["gguf-q4", "Q4_K_M", "GGUF, Q4_K_M", "About 4.8 bits a weight: what most programs offer, a third of the size."],
  ];
  const QUANTIZED = ["gguf-q6", "gguf-q5", "gguf-q4"], WEIGHED = "-imatrix";
  const WITH = BITS.filter(([kind]) => QUANTIZED.includes(kind))
    .map(([kind, , name, about]) => [kind + WEIGHED, `${name}, imatrix`, about]);

  studio.takeAway = () => {
    const node = make("div", { class: "card away" });
    let row = null, timer = null, key = null, bits = "gguf", weighed = false;
    const begin = async (kind) => {
      await studio.perform("take_away", row.id, kind);
      look();
    };
    const fetchFile = async (kind, name) => {
      try {
        studio.save(await studio.askFile("studio-bar", "download", { id: row.id, kind, lang: studio.language }), name);
      } catch (problem) {
        studio.tell(problem.status === 404 ? { message: say("The file cannot be read.") } : studio.trouble(problem));
      }
    };
    // What a proof found, as [sentence, class]: a proof that failed leaves the file standing, and says so.
    const proof = (found) => {
      if (!found) return [];
      if (found.failed)
        return [[
          [say("The file stands, but it could not be proved:"), studio.told(found.failed.message),
            studio.told(found.failed.hint || "")].join(" "),
          "warn"]];
      const said =
        [[say(
          "{agree} of {prompts} answers equal the trained model's, {stopped} ended by themselves, {same} of {texts} "
            + "texts read alike ({by}).",
          { ...found, same: found.tokenizer.same, texts: found.tokenizer.texts })]];
      if (!found.same_prompts)
        said.push([studio.say("The questions have other tokens there than in training."), "warn"]);
      const loss = found.loss;
      const named = [["trained", say("trained")], ["merged", say("merged")], ["exported", say("exported")]];
      if (loss)
        said.push([say("Held-out loss: {losses}.", {
          losses: named.filter(([name]) => loss[name] != null).map(([name, word]) => `${word} ${loss[name].toFixed(4)}`)
            .join(", ") })]);
      for (const reason of found.unmeasured || []) said.push([studio.told(reason), "warn"]);
      const ended = (found.not_asked || []).map((reason) =>
        [studio.say("Not asked: {reason}", { reason: studio.told(reason) }), "warn"]);
      return said.concat(...(found.also || []).map(proof), ended);
    };
    const line = ([kind, name, about], one) => {
      const acts = [];
      if (one.state === "going")
        acts.push(make("span", { class: "spinner", role: "status", "aria-label": say("Being written") }));
      else if (one.state === "done" && one.answer.there) {
        if (one.answer.file)
          acts.push(button("button", say("Download"), () => fetchFile(kind, one.answer.path.split("/").pop()),
            { job: "download" }));
        else
          acts.push(button("button", say("Copy the path"), () => studio.copy(one.answer.path)));
      } else
        acts.push(button("button", say("Write it"), () => begin(kind), { job: "take_away" }));
      const said = one.state === "going"
        ? [[studio.told(one.said || "starting")]]
        : one.state === "failed"
        ? [[`${studio.told(one.error.message)} ${studio.told(one.error.hint || "")}`, "bad"]]
        : one.state === "done" && one.answer.there
        ? [[`${bytes(one.answer.bytes)} · ${one.answer.path}`], ...proof(one.answer.proof),
          [studio.told(one.answer.note || "")]]
        : [];
      return make("div", { class: "repair" },
        make("div", {}, make("b", {}, say(name)), make("p", { class: "quiet" }, say(about)),
          said.filter(([text]) => text)
            .map(([text, tone = "quiet"]) => make("p", { class: `away-said num ${tone}` }, text))),
        make("div", { class: "acts" }, acts));
    };
    // One line to choose a GGUF by its bits, and one for each that was begun.
    const gguf = (answer) => {
      const quantized = QUANTIZED.includes(bits), kind = quantized && weighed ? bits + WEIGHED : bits;
      const list = make("select", {
        class: "field", "aria-label": say("Bits of the GGUF"),
        onchange: (event) => { bits = event.target.value; key = null; look(); }
      },
        BITS.map(([each,
          name]) => make("option", { value: each, disabled: QUANTIZED.includes(each) && !answer.quantizer },
            say(name))));
      list.value = bits;
      const box = make("input",
        { type: "checkbox", onchange: (event) => { weighed = event.target.checked; key = null; look(); } });
      box.checked = weighed;
      const begun = [...BITS.map(([each, , name, about]) => [each, name, about]),
        ...WITH].filter(([each]) => !["none", undefined].includes(answer.exports[each]?.state));
      const known = answer.exports[kind] || {};
      const there = known.state === "going" || (known.state === "done" && known.answer.there);
      return [make("div", { class: "repair" },
        make("div", {}, make("b", {}, "GGUF"),
          make("p", { class: "quiet" }, say(BITS.find(([each]) => each === bits)[3])),
          answer.quantizer
            ? null
            : make("p", { class: "quiet" },
              say("Q6_K, Q5_K_M and Q4_K_M are written by llama.cpp's own quantizer: pip install xllamacpp, "
                + "then load this page again.")),
          quantized
            ? make("label", { class: "away-weighed" }, box, " ",
              say("Weigh each column by what your rows put through it (importance matrix)"))
            : null),
        make("div", { class: "acts" }, list,
          button("button", say("Write it"), () => begin(kind), { job: "take_away", disabled: there }))),
        ...begun.map((each) => line(each, answer.exports[each[0]]))];
    };
    const look = async () => {
      clearTimeout(timer);
      if (!row || studio.tab() !== "runs" || document.hidden) return;
      const answer = await studio.ask("studio-bar", "taken", { id: row.id }).catch(() => null);
      if (answer && row) {
        const now = JSON.stringify([answer, studio.language, row.id]);
        if (now !== key) {
          key = now;
          node.replaceChildren(make("p", { class: "quiet" },
            say("After each export the trained and the exported model are asked the same 20 questions; answers, "
              + "ids of difficult texts and held-out loss are compared.")),
            ...[ADAPTER, MERGED].map((kind) => line(kind, answer.exports[kind[0]] || { state: "none" })),
            ...gguf(answer), line(OLLAMA, answer.exports.ollama || { state: "none" }),
            make("div", { class: "repair" },
              make("div", {}, make("b", {}, say("Report")),
                make("p", { class: "quiet" },
                  say("One HTML file with the order, the data's verdicts, curves, samples and numbers; needs no "
                    + "network."))),
              make("div", { class: "acts" },
                button("button", say("Share by a link…"), () => studio.share(row.id), { job: "share_run" }),
                button("button", say("Download"), () => fetchFile("report", `${row.id}.html`), { job: "download" }))));
        }
      }
      timer = setTimeout(look,
        answer && Object.values(answer.exports).some((one) => one.state === "going") ? 1500 : 6000);
    };
    const back = () => { if (row) look(); };
    window.addEventListener("studio:tab", back);
    document.addEventListener("visibilitychange", back);
    return { node, show(wanted) {
      row = wanted;
      clearTimeout(timer);
      if (!row) return;
      if (!row.saved && row.state !== "finished") {
        key = null;
        node.replaceChildren(make("div", { class: "empty" }, make("h3", {}, say("Nothing to take away yet")),
          make("p", {},
            say("When the run has finished, its adapter, a whole model or a file for other programs can be "
              + "written here."))));
        return;
      }
      look();
    } };
  };
})();
