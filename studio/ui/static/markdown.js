// A model's answer as paragraphs, lists, code and tables, by markdown-it (vendored/markdown-it.min.js). No HTML of an
// answer is taken; what is drawn is gone through once more: elements of a fixed list, and of their attributes only
// those that act on nothing.
(() => {
  const studio = window.studio;
  const KEPT = new Set(["P", "BR", "STRONG", "EM", "S", "CODE", "PRE", "UL", "OL", "LI", "BLOCKQUOTE", "HR", "A",
    "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "DIV"]);
  const LONGEST = 200000; // characters; more is shown as it stands

  // The library's own <script src> ends loading after this script has run: it is asked for when a text is drawn.
  let reader = null;
  const loaded = () => {
    if (reader || !window.markdownit) return reader;
    reader = window.markdownit({ html: false, linkify: false, breaks: true });
    reader.disable("image");
    reader.validateLink = (address) => /^https?:\/\//i.test(address);
    const rules = reader.renderer.rules;
    rules.heading_open = (tokens, at) => `<p class="said-head said-head-${tokens[at].tag.slice(1)}">`;
    rules.heading_close = () => "</p>";
    rules.table_open = () => '<div class="scroll"><table>';
    rules.table_close = () => "</table></div>";
    return reader;
  };

  const clean = (element) => {
    for (const node of [...element.querySelectorAll("*")]) {
      if (!KEPT.has(node.tagName)) { node.replaceWith(node.textContent); continue; }
      for (const { name, value } of [...node.attributes]) {
        const harmless = (name === "href" && reader.validateLink(value)) || (name === "start" && /^\d+$/.test(value))
          || (name === "class" && /^(said-|scroll$)/.test(value));
        if (!harmless) node.removeAttribute(name);
      }
      if (node.tagName === "A") { node.target = "_blank"; node.rel = "noopener noreferrer nofollow"; }
      if (node.tagName === "PRE") node.tabIndex = 0;
    }
    return element;
  };

  // markdown(text) -> nodes
  studio.markdown = (text) => {
    if (!loaded() || text.length > LONGEST) return [document.createTextNode(text)];
    const made = document.createElement("template");
    made.innerHTML = reader.render(text);
    return [...clean(made.content).childNodes].filter((node) => node.nodeType !== Node.TEXT_NODE
      || node.textContent.trim());
  };

  // The thinking of a model, <think>…</think>, apart from what it says: {thoughts, text, open}.
  studio.thoughts = (text) => {
    const found = text.match(/^\s*<think>([\s\S]*?)(<\/think>|$)/);
    return found
      ? { thoughts: found[1].trim(), text: text.slice(found[0].length).trim(), open: !found[2] }
      : { thoughts: "", text, open: false };
  };
})();
