// The keyboard's place: what had the focus and was drawn anew has it again, and after a dialogue what it was opened by.
(() => {
  const nameOf = (node) => node.id || node.dataset.key || node.getAttribute("aria-label") || node.textContent.trim();
  let last = null; // {node, root, tag, name, among, before}: before the dialogue that root is, the same of its opener

  const alike = ({ root, tag, name }) => [...root.querySelectorAll(tag)].filter((one) => nameOf(one) === name);
  window.addEventListener("focusin", ({ target }) => {
    const root = target.closest("dialog, [id^='tab-']") || document.body;
    const before = root === last?.root ? last.before : root.tagName === "DIALOG" ? last : null;
    last = { node: target, root, tag: target.tagName, name: nameOf(target), before };
    last.among = alike(last).indexOf(target);
  });
  window.addEventListener("pointerdown", () => { last = null; }, true);

  const restore = () => {
    if (!last || document.activeElement !== document.body) return;
    while (last && (!last.root.isConnected || last.root.open === false)) last = last.before;
    if (last?.name && !last.node.isConnected) alike(last)[last.among]?.focus({ preventScroll: true });
  };
  new MutationObserver(restore).observe(document.documentElement, { childList: true, subtree: true });
})();
