// A link to one run's report for a colleague: read-only, without a login, until it expires or is ended.
(() => {
  const studio = window.studio, make = studio.element;
  const LOCAL = /^(localhost|127\.|\[?::1)/;

  studio.share = async (id) => {
    const { links } = await studio.ask("studio-bar", "shares", { id }).catch(() => ({ links: [] }));
    const days = [[1, studio.say("one day")], [7, studio.say("a week")], [30, studio.say("a month")]];
    const found = await studio.inquire({
      title: studio.say("Share by a link"),
      text: [studio.say("Whoever has the link can read this run's report until it expires: order, curves, samples and "
        + "figures. Nothing else can be seen, and nothing can be changed."),
        LOCAL.test(location.hostname) && studio.say("This page is served on this computer alone, and so is the link: "
          + "start it with --share or --host for others."),
        links.length > 0 && studio.say("{n} links to it are open.", { n: links.length })].filter(Boolean).join(" "),
      field: { label: studio.say("Open for"), choices: days, value: 7 }, act: studio.say("Make a link"),
      other: links.length > 0 && { act: studio.say("End its links"), value: "end", grave: true }
    });
    if (!found) return;
    try {
      if (found === "end") {
        const { ended } = await studio.call("end_shares", id);
        studio.tell({ message: studio.say("{n} links have ended.", { n: ended }) }, "good");
        return;
      }
      const made = await studio.call("share_run", id, Number(found));
      show(new URL(made.path, document.baseURI).href, made.until);
    } catch (problem) { studio.tell(problem); }
  };

  const show = (address, until) => {
    const field = make("input", { type: "text", class: "field", readOnly: true, "aria-label": studio.say("Link") });
    field.value = address;
    const copy = make("button", { type: "button", class: "button primary", onclick: () => {
      field.select();
      studio.copy(address)?.catch(() => document.execCommand("copy"));
    } }, studio.say("Copy"));
    const box = make("dialog", { class: "dialogue", onclose: () => box.remove() },
      make("form", { method: "dialog" }, make("h3", {}, studio.say("The link")),
        make("p", {}, studio.say("Open until {date}. It is shown here alone.", { date: studio.date(until) })), field,
        make("div", { class: "dialogue-acts" },
          make("button", { type: "submit", class: "button" }, studio.say("Close")), copy)));
    document.body.append(box);
    box.showModal();
    field.select();
  };
})();
