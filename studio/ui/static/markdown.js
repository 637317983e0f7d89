// A model's answer as paragraphs, lists, code and tables. Every text is set as text: nothing in an answer becomes HTML or a link that acts.
(() => {
  const studio = window.studio, make = studio.element;

  const INLINE = /(`+)([\s\S]+?)\1|\*\*([^*\n]+?)\*\*|(?<![\w*])\*([^*\n]+?)\*(?![\w*])|(?<!\w)_([^_\n]+?)_(?!\w)|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/;
  const inline = (text) => {
    const parts = [];
    let found;
    while ((found = INLINE.exec(text))) {
      if (found.index) parts.push(text.slice(0, found.index));
      if (found[2] != null) parts.push(make("code", {}, found[2].trim()));
      else if (found[3] != null) parts.push(make("strong", {}, ...inline(found[3])));
      else if (found[6] != null) parts.push(make("a", { href: found[7], target: "_blank", rel: "noopener noreferrer nofollow" }, found[6]));
      else parts.push(make("em", {}, ...inline(found[4] ?? found[5])));
      text = text.slice(found.index + found[0].length);
    }
    if (text) parts.push(text);
    return parts;
  };
  const lines = (text) => text.split("\n").flatMap((line, place) => (place ? [make("br"), ...inline(line)] : inline(line)));

  const row = (line) => line.replace(/^\s*\||\|\s*$/g, "").split("|").map((cell) => cell.trim());
  const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])\s+(.*)$/;

  // markdown(text) -> nodes
  studio.markdown = (text) => {
    const found = [], all = text.split("\n");
    let plain = [];
    const flush = () => { if (plain.join("").trim()) found.push(make("p", {}, ...lines(plain.join("\n").trim()))); plain = []; };
    for (let at = 0; at < all.length; at += 1) {
      const line = all[at], fence = line.match(/^\s*(```+|~~~+)\s*([\w+#.-]*)/), head = line.match(/^(#{1,6})\s+(.*)$/);
      if (fence) {
        flush();
        const code = [];
        for (at += 1; at < all.length && !all[at].trim().startsWith(fence[1]); at += 1) code.push(all[at]);
        found.push(make("pre", { tabindex: "0" }, make("code", {}, code.join("\n"))));
      } else if (head) { flush(); found.push(make("p", { class: `said-head said-head-${head[1].length}` }, ...inline(head[2]))); }
      else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) { flush(); found.push(make("hr")); }
      else if (ITEM.test(line)) {
        flush();
        const ordered = /\d/.test(line.match(ITEM)[2]), list = make(ordered ? "ol" : "ul", ordered ? { start: String(parseInt(line.match(ITEM)[2], 10)) } : {});
        for (; at < all.length && (ITEM.test(all[at]) || (/^\s{2,}\S/.test(all[at]) && list.lastChild)); at += 1) {
          const item = all[at].match(ITEM);
          if (item) list.append(make("li", item[1].length >= 2 ? { class: "said-inner" } : {}, ...inline(item[3]))); else list.lastChild.append(" ", ...inline(all[at].trim()));
        }
        at -= 1;
        found.push(list);
      } else if (/^\s*>/.test(line)) {
        flush();
        const quoted = [];
        for (; at < all.length && /^\s*>/.test(all[at]); at += 1) quoted.push(all[at].replace(/^\s*>\s?/, ""));
        at -= 1;
        found.push(make("blockquote", {}, ...studio.markdown(quoted.join("\n"))));
      } else if (line.includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(all[at + 1] || "")) {
        flush();
        const head_ = row(line), body = [];
        for (at += 2; at < all.length && all[at].includes("|"); at += 1) body.push(row(all[at]));
        at -= 1;
        found.push(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, head_.map((cell) => make("th", {}, ...inline(cell))))),
          make("tbody", {}, body.map((cells) => make("tr", {}, cells.map((cell) => make("td", {}, ...inline(cell)))))))));
      } else if (!line.trim()) flush();
      else plain.push(line);
    }
    flush();
    return found;
  };

  // The thinking of a model, <think>…</think>, apart from what it says: {thoughts, text, open}.
  studio.thoughts = (text) => {
    const found = text.match(/^\s*<think>([\s\S]*?)(<\/think>|$)/);
    return found ? { thoughts: found[1].trim(), text: text.slice(found[0].length).trim(), open: !found[2] } : { thoughts: "", text, open: false };
  };
})();
