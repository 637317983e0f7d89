// The device panel: what the card, the memory and the disk are used for.
(() => {
  const studio = window.studio, { element: make, say, number, bytes } = studio, live = studio.live;
  const meter = (label, parts, total, text) => make("div", { class: "device-row" },
    make("span", { class: "device-label" }, label),
    make("span", { class: "device-meter", role: "img", "aria-label": `${label}: ${text}` },
      parts.map(([name, value]) => make("i", { class: `device-${name}`,
        style: `width:${total ? Math.min(100, (100 * value) / total) : 0}%` }))),
    make("span", { class: "device-text num" }, text));

  // The device is asked for, and drawn, only while a panel is in sight.
  const inSight = new Set();

  studio.devicePanel = () => {
    const node = make("section", { class: "card devices" });
    let drawn = null;
    const draw = () => {
      const seen = live.device, key = JSON.stringify([seen, studio.language]);
      if (!seen || !inSight.has(node) || key === drawn) return;
      drawn = key;
      const rows = seen.devices.flatMap((one) => [
        make("h3", { "aria-level": "2" }, one.name,
          one.temperature == null ? null : make("span", { class: "quiet num" }, ` ${one.temperature} °C`)),
        meter(one.kind !== "cpu" && !one.shared ? say("Device memory") : say("Memory"),
          [["mine", one.mine], ["others", one.others]], one.memory,
          one.mine
            ? say("{mine} by this run, {others} by others, of {total}",
              { mine: bytes(one.mine), others: bytes(one.others), total: bytes(one.memory) })
            : say("{used} of {total}", { used: bytes(one.used), total: bytes(one.memory) })),
        one.utilisation != null
          ? meter(say("Utilisation"), [["load", one.utilisation]], 100, `${one.utilisation} %`)
          : null,
      ]);
      if (seen.devices.every((one) => one.kind !== "cpu" && !one.shared))
        rows.push(meter(say("Memory"), [["others", seen.ram.used]], seen.ram.total,
          say("{used} of {total}", { used: bytes(seen.ram.used), total: bytes(seen.ram.total) })));
      rows.push(meter(say("Processor"), [["load", seen.load]], 100, `${number(seen.load)} %`));
      rows.push(meter(say("Disk"), [["others", seen.disk.used]], seen.disk.total,
        say("{free} free", { free: bytes(seen.disk.free) })));
      node.replaceChildren(...rows.filter(Boolean));
    };
    new IntersectionObserver(([seen]) => {
      if (seen.isIntersecting) inSight.add(node); else inSight.delete(node);
      live.wantsDevice = inSight.size > 0;
      if (live.wantsDevice) { draw(); live.hurry(); }
    }, { rootMargin: "100px" }).observe(node);
    live.listen(draw);
    window.addEventListener("studio:language", draw);
    return node;
  };
})();
