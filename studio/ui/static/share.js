// A link to one run's report for a colleague: read-only, without a login, until it expires or is ended.
(() => {
  const studio = window.studio, { element: make, button, say, date } = studio;
  const LOCAL = /^(localhost|127\.|\[?::1)/;

  studio.share = async (id) => {
    const { links } = await studio.ask("studio-bar", "shares", { id }).catch(() => ({ links: [] }));
    const days = [[1, say("one day")], [7, say("a week")], [30, say("a month")]];
    const found = await studio.inquire({
      title: say("Share by a link"),
      text: [say("Whoever has the link can read this run's report until it expires: order, curves, samples and "
        + "figures. Nothing else can be seen, and nothing can be changed."),
        LOCAL.test(location.hostname) && say("This page is served on this computer alone, and so is the link: "
          + "start it with --share or --host for others."),
        links.length > 0 && say("{n} links to it are open.", { n: links.length })].filter(Boolean).join(" "),
      field: { label: say("Open for"), choices: days, value: 7 }, act: say("Make a link"),
      other: links.length > 0 && { act: say("End its links"), value: "end", grave: true }
    });
    if (!found) return;
    const made = await (found === "end"
      ? studio.perform("end_shares", id)
      : studio.perform("share_run", id, Number(found)));
    if (made?.path) show(new URL(made.path, document.baseURI).href, made.until);
    else if (made) studio.tell({ message: say("{n} links have ended.", { n: made.ended }) }, "good");
  };

  const show = (address, until) => {
    const field = make("input", { type: "text", class: "field", readOnly: true, "aria-label": say("Link") });
    field.value = address;
    const copy = button("button primary", say("Copy"), () => {
      field.select();
      studio.copy(address)?.catch(() => document.execCommand("copy"));
    });
    const box = make("dialog", { class: "dialogue", onclose: () => box.remove() },
      make("form", { method: "dialog" }, make("h3", {}, say("The link")),
        make("p", {}, say("Open until {date}. It is shown here alone.", { date: date(until) })), field,
        make("div", { class: "dialogue-acts" },
          make("button", { type: "submit", class: "button" }, say("Close")), copy)));
    document.body.append(box);
    box.showModal();
    field.select();
  };
})();
